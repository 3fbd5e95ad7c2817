"""Images in OME-Zarr (NGFF 0.1 to 0.5): folders of chunks, and which of them are images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from model.images import FormatError
from service.batch.czi import file_of
from service.batch.zarr_metadata import GROUP_FILES, NO_IMAGES, attributes_if_readable, is_group, is_zarr, level_of

SUFFIX = ".zarr"

_DEEPEST = 16
"""Groups within groups: a field of a plate is in the third."""


def images_in(folder: Path) -> Iterator[Path | OSError]:
    """Groups that are images, in the order of their names: the folder itself, or fields and series below it, each once.

    Among them are groups whose metadata cannot be read, or are missing beside arrays: that shows when they are read.
    Groups that say of themselves to be something else, such as tables, are none. What cannot be looked into comes as
    the error that says so.
    """
    yield from _images_in(folder, set(), _DEEPEST)


def _images_in(folder: Path, seen: set[tuple[int, int]], deepest: int) -> Iterator[Path | OSError]:
    try:
        status = folder.stat()
        entries = sorted((entry for entry in folder.iterdir() if entry.name not in NO_IMAGES), key=_in_order)
    except OSError as error:
        yield error
        return
    if (status.st_dev, status.st_ino) in seen or not deepest or not is_group(folder):
        return
    seen.add((status.st_dev, status.st_ino))
    attributes = attributes_if_readable(folder)
    if attributes is None or "multiscales" in attributes:
        yield folder
        return
    below = [entry for entry in entries if os.path.isdir(entry)]  # noqa: PTH112 - Path's raises where it may not look
    for entry in below:
        yield from _images_in(entry, seen, deepest - 1)
    if not attributes and any(is_zarr(entry) and not is_group(entry) for entry in below):
        yield folder


def files_of(image: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Files that an image is read from and that are there: itself, or of OME-Zarr metadata and full resolution.

    Segmentations and lower resolutions may come and go beside these, and files of a writer that is at work.

    Raises
    ------
    OSError
        Where there is no such image.

    """
    file = file_of(image)
    status = file.stat()
    if not file.is_dir():
        yield file, status
        return
    for file in _files_in(image):
        with suppress(FileNotFoundError):
            yield file, file.stat()


def _files_in(image: Path) -> Iterator[Path]:
    yield from (image / name for name in GROUP_FILES)
    with suppress(FormatError, OSError):  # which shows when it is read
        for folder, _, names in os.walk(image / level_of(image).path):
            yield from (Path(folder, name) for name in names)


def stem_of(folder: Path) -> str:
    """Name of a folder without the suffixes of OME-Zarr."""
    return folder.name.removesuffix(SUFFIX).removesuffix(".ome")


def title_of(image: Path) -> str:
    """Names of an image and of the groups around it, without suffix: plate_A_1_0."""
    image = outermost = Path(os.path.abspath(image))  # noqa: PTH100 - links in it are names, too
    while outermost != outermost.parent and is_zarr(outermost.parent):
        outermost = outermost.parent
    return "_".join((stem_of(outermost), *image.relative_to(outermost).parts))


def _in_order(entry: Path) -> tuple[bool, int, str]:
    """Numbers by their value: field 10 comes after field 9; links come after folders."""
    return entry.is_symlink(), int(entry.name) if entry.name.isdecimal() else -1, entry.name
