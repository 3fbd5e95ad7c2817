"""Which image files are meant: files, folders, patterns and lists, each file once."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy"})
RESULT_ENDINGS = ("_mask", "_labels", "_probabilities")
"""How the stems of results end: a folder's earlier results are no images."""


class NoImages(Exception):
    """Nothing matches what was named on the command line."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image file.

    Parameters
    ----------
    path
        Where it is.
    name
        Its path below the folder that was named, below the part of a pattern before the first wildcard, or below the
        folder that all files of a list share. The same on every machine, wherever the folder is mounted.

    """

    path: Path
    name: PurePosixPath


def find_images(named: Sequence[str], listed: str | None = None, out: Path | None = None) -> list[Image]:
    """Images for files, folders (theirs alone, without earlier results), glob patterns and a list, each file once.

    Parameters
    ----------
    named
        Files, folders and patterns (``**`` for any depth).
    listed
        A file with one path on each line, absolute or from the list's own folder; ``-`` reads standard input, whose
        paths start at the working folder. Whether they exist shows when they are read.
    out
        Where results go: what patterns find there is no image where it is called as results are.

    Raises
    ------
    NoImages
        Where one of them leads to no image.

    """
    found: dict[str, Image] = {}
    for text in named:
        images = list(_named(text, out))
        if not images:
            raise NoImages(f"{text!r} leads to no image; name files, folders of TIFF, PNG, JPEG or .npy, or a pattern")
        for image in images:
            # abspath, not resolve: links to one file are different images, and a million of them need no look each
            found.setdefault(os.path.abspath(image.path), image)  # noqa: PTH100 - text is enough
    for image in _listed(listed) if listed else ():
        found.setdefault(os.path.abspath(image.path), image)  # noqa: PTH100
    return list(found.values())


def _named(text: str, out: Path | None) -> Iterator[Image]:
    path = Path(text)
    if path.is_dir():
        for entry in sorted(path.iterdir()):
            if entry.is_file() and entry.suffix.lower() in _IMAGE_SUFFIXES and not _is_result(entry):
                yield Image(entry, PurePosixPath(entry.name))
    elif path.exists():
        yield Image(path, PurePosixPath(path.name))
    else:
        fixed = Path(*_until_wildcard(path))
        for match in sorted(glob.glob(text, recursive=True)):  # noqa: PTH207 - absolute too
            entry = Path(match)
            if entry.is_file() and not (out and _is_result(entry) and entry.absolute().is_relative_to(out.absolute())):
                yield Image(entry, PurePosixPath(entry.relative_to(fixed).as_posix()))


def _until_wildcard(path: Path) -> Iterator[str]:
    for part in path.parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _is_result(entry: Path) -> bool:
    return entry.stem.endswith(RESULT_ENDINGS)


def _listed(listed: str) -> list[Image]:
    try:
        text = sys.stdin.read() if listed == "-" else Path(listed).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise NoImages(f"the list {listed!r} cannot be read: {error.strerror}; write one path on each line") from error
    base = Path() if listed == "-" else Path(listed).parent
    paths = [(base / line).absolute() for line in text.splitlines() if line.strip()]
    if not paths:
        raise NoImages(f"the list {listed!r} is empty; write one path on each line")
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    return [Image(path, PurePosixPath(path.relative_to(shared).as_posix())) for path in paths]
