"""Image files: found by stem, read as stored."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from training.errors import MaskMismatch, MissingFile, UnreadableFile

SUFFIXES = (".png", ".tif", ".tiff")
"""Of masks."""

IMAGE_SUFFIXES = (*SUFFIXES, ".jpg", ".jpeg")
"""Of images; a mask must not be a JPEG, which blurs its numbers."""


def files_by_stem(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, Path]:
    """Files of a folder by the stem of their names; hidden files do not count.

    Raises
    ------
    MissingFile
        Where there is no such folder.
    MaskMismatch
        Where two files share a stem.

    """
    if not folder.is_dir():
        raise MissingFile(f"{folder} is not a folder; expected images in it")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in found:
            raise MaskMismatch(f"{found[path.stem]} and {path} share a stem; keep one of them")
        found[path.stem] = path
    return found


def count_files(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> int:
    """Count the files of a folder with one of the suffixes, hidden ones left out; 0 where there is no such folder."""
    if not folder.is_dir():
        return 0
    return sum(path.suffix.lower() in suffixes and not path.name.startswith(".") for path in folder.iterdir())


def read_array(path: Path) -> NDArray[Any]:
    """Read a PNG, JPEG or TIFF file as stored: (y, x) or (y, x, c).

    Raises
    ------
    UnreadableFile
        Where the file is damaged.

    """
    with _named_when_damaged(path):
        if path.suffix.lower() in {".png", ".jpg", ".jpeg"}:
            with Image.open(path) as image:
                return np.asarray(image)
        return np.asarray(tifffile.imread(path))


def read_stack(path: Path) -> NDArray[Any]:
    """Read all pages of a TIFF file as stored: (page, y, x) or (page, y, x, c).

    Raises
    ------
    UnreadableFile
        Where the file is damaged.

    """
    with _named_when_damaged(path), tifffile.TiffFile(path) as file:
        series = [part.asarray() for part in file.series]
        return np.asarray(series[0] if len(series) == 1 else np.stack(series))


def stack_axes(path: Path) -> tuple[str, tuple[int, ...]]:
    """Axes of a TIFF file, as tifffile names them, and their lengths; its pixels are not read.

    Pages that were written one by one, all of one shape, have the axis I; pages of several shapes have no common axes,
    ``""``.

    Raises
    ------
    UnreadableFile
        Where the file is damaged.

    """
    with _named_when_damaged(path), tifffile.TiffFile(path) as file:
        shapes = [(part.axes, part.shape) for part in file.series]
    axes, shape = shapes[0]
    if len(shapes) == 1:
        return axes, shape
    return (f"I{axes}", (len(shapes), *shape)) if len(set(shapes)) == 1 else ("", ())


def is_stack(path: Path) -> bool:
    """Whether a file is a TIFF with pages that are neither channels nor colours; a damaged file is none."""
    if path.suffix.lower() not in {".tif", ".tiff"}:
        return False
    try:
        axes, _ = stack_axes(path)
    except UnreadableFile:
        return False
    return len(axes) >= 3 and axes[0] not in "YXSC"


@contextmanager
def _named_when_damaged(path: Path) -> Iterator[None]:
    """Take every failure of a decoder, warnings included, as a damaged file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except Exception as error:  # decoders fail with every kind of exception on damaged files
        raise UnreadableFile(f"{path} cannot be read: {error or type(error).__name__}; write it again") from error
