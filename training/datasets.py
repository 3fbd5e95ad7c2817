"""Folders of images and masks: paired by stem, checked whole before training starts."""

from __future__ import annotations

import csv
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from training.errors import DatasetError, MaskMismatch, MissingFile, NothingToLearn, UnreadableFile
from training.options import Data, Include

_log = logging.getLogger(__name__)

IGNORE = -1
"""Label of a pixel that nobody has annotated."""

_SUFFIXES = (".png", ".tif", ".tiff")
_MOST_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class ImagePair:
    """Files of one image and its mask."""

    stem: str
    image: Path
    mask: Path


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image in memory.

    ``image_yxc`` keeps its stored dtype. ``labels_yx`` is int32: object numbers (instances) or class indexes
    (semantic), 0 background, :data:`IGNORE` where nobody has looked.
    """

    stem: str
    image_yxc: NDArray[Any]
    labels_yx: NDArray[np.int32]


def pair_files(folder: Path, data: Data) -> list[ImagePair]:
    """Find every image and its mask, sorted by stem.

    The recipe's table chooses among the images; a folder without that table is taken whole, and the log says so.

    Raises
    ------
    MissingFile
        Where a folder, a mask or an image named by the table is missing, or the table is there but cannot be used.
    MaskMismatch
        Where two files share a stem.

    """
    images, masks = _by_stem(folder / data.images), _by_stem(folder / data.masks)
    wanted = sorted(images)
    if data.include is not None:
        included = _included(folder, data.include)
        if included is None:
            _log.info("%s is not there: all %d images are taken", folder / data.include.csv, len(images))
        else:
            wanted = included
    for what, have in (("image", images), ("mask", masks)):
        missing = [stem for stem in wanted if stem not in have]
        if missing:
            where = folder / (data.images if what == "image" else data.masks)
            raise MissingFile(
                f"{len(missing)} of {len(wanted)} have no {what}: expected {where / missing[0]} with suffix "
                f"{', '.join(_SUFFIXES)}; found none. Add the file or take its partner away"
            )
    if not wanted:
        raise MissingFile(f"{folder / data.images} holds no image that is asked for; expected {', '.join(_SUFFIXES)}")
    return [ImagePair(stem, images[stem], masks[stem]) for stem in wanted]


def load_images(folder: Path, data: Data, in_channels: int, classes: int) -> list[AnnotatedImage]:
    """Read and check a whole dataset; every problem is found before training starts.

    Parameters
    ----------
    folder
        The data folder.
    data
        The recipe's data part.
    in_channels
        Channels that the net takes.
    classes
        Number of classes (semantic masks).

    Raises
    ------
    DatasetError
        Names each file (the first ten), what was expected and what was found.

    """
    loaded: list[AnnotatedImage] = []
    problems: list[DatasetError] = []
    for pair in pair_files(folder, data):
        try:
            loaded.append(_load(pair, data, in_channels, classes))
        except DatasetError as error:
            problems.append(error)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:_MOST_PROBLEMS])
        raise type(problems[0])(
            f"{len(problems)} broken of {len(problems) + len(loaded)} images in {folder}:\n{listed}"
        )
    if not any((image.labels_yx > 0).any() for image in loaded):
        raise NothingToLearn(f"no mask under {folder / data.masks} has foreground: all {len(loaded)} are background")
    if data.kind == "semantic" and not any((image.labels_yx == 0).any() for image in loaded):
        raise NothingToLearn(f"the masks under {folder / data.masks} hold one class only; at least two are needed")
    return loaded


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


def _load(pair: ImagePair, data: Data, in_channels: int, classes: int) -> AnnotatedImage:
    image, mask = read_array(pair.image), read_array(pair.mask)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim == 3 and image.shape[-1] == in_channels + 1 and in_channels in {1, 3}:
        image = image[..., :in_channels]  # alpha
    if image.ndim != 3 or image.shape[-1] != in_channels:
        raise UnreadableFile(f"{pair.image} has shape {image.shape}; expected (y, x) or (y, x, {in_channels})")
    if image.dtype.kind not in "uif":
        raise UnreadableFile(f"{pair.image} holds {image.dtype} values; expected whole numbers or floats")
    bad = image.size - int(np.count_nonzero(np.isfinite(image)))
    if bad:
        raise UnreadableFile(
            f"{pair.image}: {bad} of {image.size} pixel values are NaN or infinite; expected none. Replace them"
        )
    if mask.ndim != 2:
        raise MaskMismatch(
            f"{pair.mask} has shape {mask.shape}; expected one number per pixel (y, x), not colours or planes"
        )
    if mask.shape != image.shape[:2]:
        raise MaskMismatch(
            f"{pair.mask} is {mask.shape[0]} x {mask.shape[1]} px, its image {image.shape[0]} x {image.shape[1]} px"
        )
    if mask.dtype.kind not in "uib":
        raise MaskMismatch(f"{pair.mask} holds {mask.dtype} values; expected whole numbers")
    if mask.dtype.itemsize > 4 or (mask.size and int(mask.max()) > np.iinfo(np.int32).max):
        raise MaskMismatch(f"{pair.mask} holds values beyond {np.iinfo(np.int32).max}; number the objects from 1")
    return AnnotatedImage(pair.stem, np.ascontiguousarray(image), _labels(mask, pair.mask, data, classes))


def _labels(mask_yx: NDArray[Any], path: Path, data: Data, classes: int) -> NDArray[np.int32]:
    """Object numbers or class indexes, as the recipe reads the mask's values."""
    labels: NDArray[np.int32] = mask_yx.astype(np.int32)
    known = np.ones(mask_yx.shape, dtype=bool) if data.ignore_value is None else mask_yx != data.ignore_value
    if data.kind == "semantic":
        if data.class_values is not None:
            labels = np.full(mask_yx.shape, classes, dtype=np.int32)
            for index, value in enumerate(data.class_values):
                labels[mask_yx == value] = index
        elif classes == 2:
            labels = (mask_yx != 0).astype(np.int32)
        strange = np.unique(mask_yx[known & ((labels < 0) | (labels >= classes))])
        if strange.size:
            expected = data.class_values or tuple(range(classes))
            raise MaskMismatch(f"{path} holds the values {strange[:5].tolist()}; expected {expected}")
    elif labels.size and labels[known].min(initial=0) < 0:
        raise MaskMismatch(f"{path} holds negative object numbers; expected 0 for background and 1, 2, ...")
    labels[~known] = IGNORE
    return labels


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise MissingFile(f"{folder} is not a folder; expected images in it")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise MaskMismatch(f"{found[path.stem]} and {path} share a stem; keep one of them")
        found[path.stem] = path
    return found


def _included(folder: Path, include: Include) -> list[str] | None:
    """Stems that the table names; None where there is no table."""
    path = folder / include.csv
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MissingFile(f"the table {path} cannot be read: {error}") from error
    columns = {include.column, include.stem_column}
    if not rows or not columns <= rows[0].keys():
        raise MissingFile(f"the table {path} lacks a column; expected {sorted(columns)}, found {list(rows[:1])}")
    return sorted(row[include.stem_column] for row in rows if row[include.column] == include.value)
