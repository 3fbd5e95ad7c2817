"""Image files: found by stem, read as stored."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from training.errors import MaskMismatch, MissingFile, UnreadableFile

SUFFIXES = (".png", ".tif", ".tiff")
"""Of image and mask files."""


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
    """Read a PNG or TIFF file as stored: (y, x) or (y, x, c).

    Raises
    ------
    UnreadableFile
        Where the file is damaged.

    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if path.suffix.lower() == ".png":
                with Image.open(path) as image:
                    return np.asarray(image)
            return np.asarray(tifffile.imread(path))
    except Exception as error:  # decoders fail with every kind of exception on damaged files
        raise UnreadableFile(f"{path} cannot be read: {error or type(error).__name__}; write it again") from error
