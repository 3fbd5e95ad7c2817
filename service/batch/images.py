"""Which image files are meant: files, folders, patterns and lists, each file once."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from service.batch.czi import SUFFIX as CZI
from service.batch.czi import czi_title, is_czi, scenes_in
from service.batch.ome_zarr import SUFFIX, images_in, stem_of
from service.batch.patterns import matches
from service.batch.zarr_metadata import is_zarr
from service.batch.zarr_packed import is_packed

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy", CZI})
RESULT_ENDINGS = ("_mask", "_labels", "_probabilities")
"""How the stems of results end: a folder's earlier results are no images."""
_BYTE_ORDER_MARK = "\ufeff"  # which Windows' editors write


class NoImages(Exception):
    """Nothing at all matches what was named on the command line, or the list is none."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image file, or a folder that is one (OME-Zarr).

    Parameters
    ----------
    path
        Where it is.
    name
        Its path below the folder that was named, below the part of a pattern before the first wildcard, or below the
        folder that all files of a list share. The same on every machine, wherever the folder is mounted.
    by
        How the command line led to it; a file that is named alone counts as a pattern.

    """

    path: Path
    name: PurePosixPath
    by: Literal["pattern", "folder", "list"] = "pattern"


@dataclass(frozen=True, slots=True)
class Nowhere:
    """What was named and leads to no image.

    Parameters
    ----------
    named
        How.
    why
        What is wrong with it, and the remedy.

    """

    named: str
    why: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the command line leads to."""

    images: list[Image]
    """Each file once. One may turn out to be unreadable, or a link to nothing: that shows when it is read."""
    like_results: list[Path]
    """Left out, because they are called as results are."""
    links: list[Path]
    """Not followed: to folders around them, or to those that are looked into all the same."""
    in_results: list[Path]
    """Left out, because they lie in the folder of results, around which a pattern leads."""
    unreadable: list[OSError]
    """Folders that a pattern leads into and that cannot be looked into."""
    nowhere: list[Nowhere]
    """Files, folders and patterns that lead to no image, beside others that do."""


def find_images(
    named: Sequence[str],
    listed: str | None = None,
    is_made: Callable[[Path], bool] = lambda _: False,
    out: Path | None = None,
) -> Found:
    """Images for files, folders (theirs alone, none hidden, no earlier results), patterns and a list, each once.

    A folder that is OME-Zarr counts as a file, or, where it is a plate or a series, as as many as it has images.

    Parameters
    ----------
    named
        Files, folders and patterns (``**`` for any depth).
    listed
        A file with one path on each line, absolute or from the list's own folder; ``-`` reads standard input, whose
        paths start at the working folder. Whether they exist shows when they are read.
    is_made
        Whether a file has been made from an image: what patterns find of that is no image where it is called as results
        are.
    out
        Where results go: patterns take nothing below it, such as corrected copies, but those that begin in it.

    Raises
    ------
    NoImages
        Where none of them leads to an image, or the list cannot be read or is empty.

    """
    images: dict[str, Image] = {}
    like_results: list[Path] = []
    links: list[Path] = []
    in_results: list[Path] = []
    unreadable: list[OSError] = []
    nowhere: list[Nowhere] = []
    for text in named:
        try:
            entries = list(_named(text, is_made, out))
        except OSError as error:
            nowhere.append(Nowhere(text, f"cannot be looked into: {error.strerror}; make it readable"))
            continue
        own = [entry for entry in entries if isinstance(entry, Image)]
        left_out = [entry.path for entry in entries if isinstance(entry, _LeftOut)]
        in_results += [entry.path for entry in entries if isinstance(entry, _InResults)]
        links += [entry.path for entry in entries if isinstance(entry, _Link)]
        unreadable += [entry for entry in entries if isinstance(entry, OSError)]
        like_results += left_out
        if not own:
            others = f", but for {len(left_out)} that are called as results are" if left_out else ""
            remedy = "name files, folders of TIFF, PNG, JPEG, BMP, .npy, CZI or OME-Zarr, or a pattern"
            nowhere.append(Nowhere(text, f"leads to no image{others}; {remedy}"))
        for image in own:
            # abspath, not resolve: links to one file are different images, and a million of them need no look each
            images.setdefault(os.path.abspath(image.path), image)  # noqa: PTH100 - text is enough
    for image in _listed(listed) if listed else ():
        images.setdefault(os.path.abspath(image.path), image)  # noqa: PTH100
    if not images:
        more = f"; and {len(nowhere) - 1} more lead nowhere" if len(nowhere) > 1 else ""
        raise NoImages(f"{nowhere[0].named!r} {nowhere[0].why}{more}")
    return Found(
        list(images.values()),
        [path for path in like_results if os.path.abspath(path) not in images],  # noqa: PTH100
        links,
        list(dict.fromkeys(in_results)),
        list({error.filename: error for error in unreadable}.values()),
        nowhere,
    )


@dataclass(frozen=True, slots=True)
class _LeftOut:
    path: Path
    """Called as results are."""


@dataclass(frozen=True, slots=True)
class _Link:
    path: Path
    """To a folder that is looked into all the same."""


@dataclass(frozen=True, slots=True)
class _InResults:
    path: Path
    """In the folder of results."""


def _named(
    text: str, is_made: Callable[[Path], bool], out: Path | None
) -> Iterator[Image | _LeftOut | _Link | _InResults | OSError]:
    """Images, what is left out, and folders that cannot be looked into."""
    path = Path(text)
    if path.is_dir() and is_zarr(path):
        name = PurePosixPath(os.path.basename(os.path.abspath(path)))  # noqa: PTH100, PTH119
        yield from list(_in_zarr(path, name)) or [Image(path, name)]  # why it is none shows when it is read
    elif path.is_dir():
        for entry in sorted(path.iterdir()):
            if entry.name.startswith("."):  # as patterns do; macOS puts a ._a.tif that is no image beside each a.tif
                continue
            if (entry.suffix.lower() in _IMAGE_SUFFIXES or is_packed(entry)) and _may_be_image(entry):
                name = PurePosixPath(entry.name)
                yield from [_LeftOut(entry)] if _is_result(entry) else _in_file(entry, name, "folder")
            elif entry.suffix == SUFFIX or (entry.is_dir() and is_zarr(entry)):
                name = PurePosixPath(entry.name)
                yield from [_LeftOut(entry)] if _is_result(entry) else _in_zarr(entry, name, "folder")
    elif path.exists():
        yield from _in_file(path, PurePosixPath(path.name))
    elif is_czi(path):
        yield Image(path, PurePosixPath(czi_title(path)))
    else:
        yield from _matched(text, is_made, out)


def _matched(
    pattern: str, is_made: Callable[[Path], bool], out: Path | None
) -> Iterator[Image | _LeftOut | _Link | _InResults | OSError]:
    found = matches(pattern)
    yield from found.unreadable
    yield from map(_Link, found.links)
    results = None if out is None or _lies_in(found.fixed, out) else out
    for entry in found.paths:
        name = PurePosixPath(entry.relative_to(found.fixed).as_posix())
        if results is not None and _lies_in(entry, results):
            yield _InResults(entry)
        elif _is_result(entry) and is_made(entry):
            yield _LeftOut(entry)
        elif not _may_be_image(entry):
            yield from _in_zarr(entry, name)
        else:
            yield from _in_file(entry, name)


def _in_file(file: Path, name: PurePosixPath, by: Literal["pattern", "folder"] = "pattern") -> Iterator[Image]:
    """Images of a file: itself, or the scenes of one that has several."""
    for image in scenes_in(file) if file.suffix.lower() == CZI and is_czi(file) else [file]:
        yield Image(image, name if image == file else name.with_suffix("") / image.name, by)


def _lies_in(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))  # noqa: PTH100 - text is enough


def _in_zarr(
    folder: Path, name: PurePosixPath, by: Literal["pattern", "folder"] = "pattern"
) -> Iterator[Image | OSError]:
    """Images of a folder that is OME-Zarr; of any other none."""
    if folder.suffix != SUFFIX and not is_zarr(folder):
        return
    none = True
    for image in images_in(folder):
        none = False
        if isinstance(image, OSError):
            yield image
            continue
        # a folder of results is no Zarr, and must not be called so
        below = name.parent / stem_of(folder) / image.relative_to(folder)
        yield Image(image, name if image == folder else below, by)
    if none and folder.suffix == SUFFIX:
        yield Image(folder, name, by)  # why it is none shows when it is read


def _may_be_image(entry: Path) -> bool:
    """Whether it is a file, or cannot be seen (a link to nothing): that shows when it is read, and is said then."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


def _is_result(entry: Path) -> bool:
    return (stem_of(entry) if entry.suffix == SUFFIX else entry.stem).endswith(RESULT_ENDINGS)


def _listed(listed: str) -> list[Image]:
    try:
        text = sys.stdin.read() if listed == "-" else Path(listed).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise NoImages(f"the list {listed!r} cannot be read: {error.strerror}; write one path on each line") from error
    if "\0" in text:
        raise NoImages(f"the list {listed!r} is not UTF-8, it holds a byte of 0 (UTF-16?); save it as text in UTF-8")
    base = Path() if listed == "-" else Path(listed).parent
    paths = [(base / line).absolute() for line in text.removeprefix(_BYTE_ORDER_MARK).splitlines() if line.strip()]
    if not paths:
        raise NoImages(f"the list {listed!r} is empty; write one path on each line")
    # a name that goes up would lead out of the folder of results
    named = [os.path.normpath(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(name) for name in named])  # noqa: PTH120 - text is enough
    return [
        Image(path, PurePosixPath(Path(name).relative_to(shared).as_posix()), "list")
        for path, name in zip(paths, named, strict=True)
    ]
