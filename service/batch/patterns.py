"""Files that a pattern leads to, as :mod:`glob` reads it, each folder looked into once however links lead."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from service.batch.zarr_metadata import is_zarr

_PASSED_BY = {"lost+found"}
"""Folders that no wildcard takes, as it takes no hidden ones: file systems keep what is nobody's in it."""


@dataclass(frozen=True, slots=True)
class Matches:
    """What a pattern leads to."""

    fixed: Path
    """The folder before the first wildcard."""
    paths: list[Path] = field(default_factory=list)
    """Files, and folders too."""
    unreadable: list[OSError] = field(default_factory=list)
    """Folders that it leads into and that cannot be looked into."""
    links: list[Path] = field(default_factory=list)
    """Links that ``**`` does not follow: to folders around them, or to those that it looks into all the same."""


def matches(pattern: str) -> Matches:
    """Find what a pattern leads to; ``**`` follows links to folders, but into each folder once.

    Names that begin with a dot are taken where the pattern's part does. Real folders come before links to them, so that
    files have the names that they have without the links.
    """
    path = Path(pattern)
    fixed = Path(*_until_wildcard(path))
    found = Matches(fixed)
    _look(fixed, path.parts[len(fixed.parts) :], found)
    once = {error.filename: error for error in found.unreadable}
    return Matches(fixed, sorted(set(found.paths), key=str), list(once.values()), found.links)


def _until_wildcard(path: Path) -> Iterator[str]:
    for part in path.parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _look(folder: Path, parts: Sequence[str], found: Matches) -> None:
    part, *rest = parts
    if part == "**":
        for below in _all_folders(folder, found):
            if rest:
                _look(below, rest, found)
            else:
                found.paths.extend(Path(entry) for entry in _visible(below, found))
    elif not glob.has_magic(part):
        if rest:
            _look(folder / part, rest, found)
        elif os.path.lexists(folder / part):
            found.paths.append(folder / part)
    else:
        entries = _entries(folder, found) if part.startswith(".") else _visible(folder, found)
        for entry in entries:
            if not fnmatch.fnmatch(entry.name, part):
                continue
            if not rest:
                found.paths.append(Path(entry))
            elif _is_folder(entry):
                _look(Path(entry), rest, found)


def _all_folders(top: Path, found: Matches) -> Iterator[Path]:
    """A folder and all below it, behind links too, each once; none in Zarr."""
    seen = _around(top)
    links = [top]
    for link in links:  # grows meanwhile
        left = [link]
        while left:
            folder = left.pop()
            real = _id(folder)
            if folder != top and real in seen:
                found.links.append(folder)
                continue
            seen.add(real)
            if is_zarr(folder):  # of its files none is an image by itself, and they may be a million
                continue
            yield folder
            below = sorted(filter(_is_folder, _visible(folder, found)), key=lambda entry: entry.name)
            links += [Path(entry) for entry in below if entry.is_symlink()]
            left += [Path(entry) for entry in reversed(below) if not entry.is_symlink()]


def _around(folder: Path) -> set[tuple[int, int] | Path]:
    """The folders that a folder lies in, and itself."""
    real = folder.resolve()
    return {_id(above) for above in (real, *real.parents)}


def _id(folder: Path) -> tuple[int, int] | Path:
    """What tells one folder from another, whatever links lead there."""
    try:
        status = folder.stat()
    except OSError:  # which shows when it is looked into
        return folder
    return status.st_dev, status.st_ino


def _visible(folder: Path, found: Matches) -> list[os.DirEntry[str]]:
    return [
        entry for entry in _entries(folder, found) if not entry.name.startswith(".") and entry.name not in _PASSED_BY
    ]


def _entries(folder: Path, found: Matches) -> list[os.DirEntry[str]]:
    try:
        # what a listing tells of its entries costs no look at each
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        found.unreadable.append(error)
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link to itself
        return entry.is_dir()
    return False
