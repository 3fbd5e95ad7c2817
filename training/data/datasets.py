"""Annotated images of a data folder: found by its layout, checked whole before training starts."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.wording import counted
from training.data.origin import DIGEST_BYTES
from training.errors import DatasetError, MaskMismatch, MissingFile, NothingToLearn, UnreadableFile
from training.layouts.choice import layout_of
from training.layouts.files import is_turned
from training.layouts.parts import data_folders
from training.layouts.source import NUMBERED, Labels, Source, whole_numbers
from training.options import Data, Include
from training.recipe import Recipe

_log = logging.getLogger(__name__)

IGNORE = -1
"""Label of a pixel that nobody has annotated."""

_MOST_PROBLEMS = 10
_IMAGES_TO_COUNT_CHANNELS = 9


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image in memory.

    ``image_yxc`` is as the service reads it (:func:`training.layouts.files.read_image`). ``labels_yx`` is int32: object
    numbers (instances) or class indexes (semantic), 0 background, :data:`IGNORE` where nobody has looked. An image that
    is ``training_only`` never validates: its labels are worse than those of others.
    """

    stem: str
    image_yxc: NDArray[Any]
    labels_yx: NDArray[np.int32]
    training_only: bool = False

    def pixels_digest(self) -> str:
        """Twelve hexadecimal digits that stand for the pixels, their shape and type, whatever the labels are."""
        image = self.image_yxc
        hashed = hashlib.blake2b(f"{image.dtype.str} {image.shape} ".encode(), digest_size=DIGEST_BYTES)
        hashed.update(np.ascontiguousarray(image).data)
        return hashed.hexdigest()

    def digest(self) -> str:
        """Sixteen hexadecimal digits that stand for pixels and labels, their shapes and types."""
        hashed = hashlib.blake2b(digest_size=8)
        for array in (self.image_yxc, self.labels_yx):
            hashed.update(f"{array.dtype.str} {array.shape} ".encode())
            hashed.update(np.ascontiguousarray(array).data)
        return hashed.hexdigest()


def find_sources(folder: Path, data: Data) -> list[Source]:
    """Find every image and its labels, in the layout that the recipe names or the folder shows.

    They are sorted by stem, those of each part of a folder that has parts. The recipe's table chooses among the images;
    a folder without that table is taken whole, and the log says so.

    Raises
    ------
    MissingFile
        Where a folder, a mask or an image named by the table is missing, no layout fits, or the table is there but
        cannot be used; where the folder has parts that the recipe does not name.
    MaskMismatch
        Where two files share a stem.

    """
    sources = [
        replace(source, stem=f"{beginning}{source.stem}")
        for beginning, place in data_folders(folder, data)
        for source in _sources_in(place, data)
    ]
    strange = sorted(set(data.incomplete) - {source.stem for source in sources})
    if strange:
        raise MissingFile(
            f"data.incomplete names {strange[0]}, which is not among the {counted(len(sources), 'image')} of {folder}; "
            f"expected stems such as {sources[0].stem}. Correct the recipe"
        )
    return sources


def _sources_in(folder: Path, data: Data) -> list[Source]:
    layout, data = layout_of(folder, data)
    wanted = None if data.include is None else _included(folder, data.include)
    sources = layout.list_sources(folder, data, wanted)
    if data.include is not None and wanted is None:
        _log.info("%s is not there: all %d images are taken", folder / data.include.csv, len(sources))
    return sources


def load_for(recipe: Recipe, folder: Path) -> list[AnnotatedImage]:
    """Read and check a whole dataset as a recipe reads it (:func:`load_images`)."""
    return load_images(folder, recipe.data, recipe.net.in_channels, len(recipe.targets.classes))


def load_images(folder: Path, data: Data, in_channels: int | None, classes: int) -> list[AnnotatedImage]:
    """Read and check a whole dataset; every problem is found before training starts.

    Parameters
    ----------
    folder
        The data folder.
    data
        The recipe's data part.
    in_channels
        Channels that the net takes; None for those of most of the first images.
    classes
        Number of classes (semantic masks).

    Raises
    ------
    DatasetError
        Names each file (the first ten), what was expected and what was found.
    NothingToLearn
        Where all labels are background, or of one class, or one object fills each image.

    """
    loaded: list[AnnotatedImage] = []
    problems: list[DatasetError] = []
    sources = find_sources(folder, data)
    _name_turned(sources)
    first, asked = {}, "the recipe's net.in_channels. Convert the image, or correct the recipe"
    if in_channels is None:
        first, asked = _read_first(sources), "as most of the first images have. Convert the image, or take it away"
        in_channels = Counter(image.shape[-1] for image in first.values()).most_common(1)[0][0] if first else 1
    for source in sources:
        try:
            image = first.pop(source.stem) if source.stem in first else source.read_image()
            if image.shape[-1] != in_channels:
                found = f"{source.image_name} has shape {image.shape}"
                raise UnreadableFile(f"{found}; expected (y, x, {in_channels}), {asked}")
            loaded.append(_checked(source, image, data, classes))
        except DatasetError as error:
            problems.append(error)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:_MOST_PROBLEMS])
        raise type(problems[0])(f"{len(problems)} broken of {counted(len(sources), 'image')} in {folder}:\n{listed}")
    require_something_to_learn(loaded, data, str(folder))
    return loaded


def _name_turned(sources: Sequence[Source]) -> None:
    """Warn of files, not of pages in stacks, that viewers turn: a mask drawn on what they show lies elsewhere."""
    turned = [source.image_name for source in sources if is_turned(Path(source.image_name))]
    if turned:
        _log.warning(
            "%d of %d images have an orientation other than upright (EXIF, or TIFF's tag), %s is the first: they are "
            "read as stored, as the service reads them, where viewers turn them. Unless the masks were drawn on the "
            "pictures as stored, save these upright and draw on those",
            len(turned),
            len(sources),
            turned[0],
        )


def _read_first(sources: Sequence[Source]) -> dict[str, NDArray[Any]]:
    """Read the first images, which tell the number of channels, by their stems; broken ones are left out."""
    images = {}
    for source in sources[:_IMAGES_TO_COUNT_CHANNELS]:
        with suppress(DatasetError):  # reading it again names it
            images[source.stem] = source.read_image()
    return images


def _checked(source: Source, image: NDArray[Any], data: Data, classes: int) -> AnnotatedImage:
    bad = image.size - int(np.count_nonzero(np.isfinite(image)))
    if bad:
        raise UnreadableFile(
            f"{source.image_name}: {bad} of {image.size} pixel values are NaN or infinite; expected none. Replace them"
        )
    size_yx = (image.shape[0], image.shape[1])
    labels = _labels(source.read_labels(size_yx), size_yx, source.labels_name, data, classes)
    if source.stem in data.incomplete:
        labels[labels == 0] = IGNORE
    return AnnotatedImage(source.stem, np.ascontiguousarray(image), labels, source.training_only)


def require_something_to_learn(
    images: Sequence[AnnotatedImage], data: Data, place: str, remedy: str = "Check the masks"
) -> None:
    """Make sure that images show something beside background.

    Parameters
    ----------
    images, data
        Images, and how they were read.
    place, remedy
        For messages: whose images they are, and what helps.

    Raises
    ------
    NothingToLearn
        Where all labels are background, or of one class, or one object fills each image.

    """
    if not any((image.labels_yx > 0).any() for image in images):
        raise NothingToLearn(
            f"no image of {place} has foreground: the labels of all {len(images)} are background; expected objects in "
            f"one at least. {remedy}"
        )
    if any((image.labels_yx == 0).any() for image in images):
        return
    values = [set(np.unique(image.labels_yx).tolist()) - {IGNORE} for image in images]
    if data.kind == "semantic" and len(set().union(*values)) < 2:
        raise NothingToLearn(
            f"the labels of {place} hold one class only; expected two or more. {remedy}, or data.class_values"
        )
    if data.kind == "instances" and max(map(len, values)) < 2:
        raise NothingToLearn(
            f"no label of {place} is background (0), and no image holds two objects: the labels of all {len(images)} "
            f"are of one value each; expected background, or objects that touch. {remedy}"
        )


def _labels(labels: Labels, size_yx: tuple[int, int], name: str, data: Data, classes: int) -> NDArray[np.int32]:
    """Object numbers or class indexes, as the recipe reads the values."""
    mask = labels.values_yx
    if mask.ndim != 2:
        raise MaskMismatch(
            f"{name} has shape {mask.shape}; expected one number per pixel (y, x), not colours or planes. {NUMBERED}"
        )
    if mask.shape != size_yx:
        turned = mask.shape == size_yx[::-1]
        remedy = "turn one of them" if turned else "save the mask at the size of its image, not scaled and not cropped"
        raise MaskMismatch(
            f"{name} is {mask.shape[0]} x {mask.shape[1]} px, its image {size_yx[0]} x {size_yx[1]} px; {remedy}, or "
            "give the mask that belongs to it"
        )
    mask = whole_numbers(mask, name)
    known = np.ones(size_yx, dtype=bool) if data.ignore_value is None else mask != data.ignore_value
    if labels.unknown_yx is not None:
        known &= ~labels.unknown_yx
    values, limits = mask[known], np.iinfo(np.int32)
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < limits.min or high > limits.max:
        raise MaskMismatch(
            f"{name} holds the value {high if high > limits.max else low}; expected {limits.min} to {limits.max}. "
            "Number the objects from 1"
        )
    found: NDArray[np.int32] = mask.astype(np.int32)
    if data.kind == "semantic":
        if data.class_values is not None:
            found = np.full(size_yx, classes, dtype=np.int32)
            for index, value in enumerate(data.class_values):
                found[mask == value] = index
        elif classes == 2:
            found = (mask != 0).astype(np.int32)
        strange = np.unique(mask[known & ((found < 0) | (found >= classes))])
        if strange.size:
            expected = data.class_values or tuple(range(classes))
            raise MaskMismatch(f"{name} holds the values {strange[:5].tolist()}; expected {expected}")
    elif low < 0:
        raise MaskMismatch(
            f"{name} holds the value {low}; expected 0 for background and 1, 2, ... for objects. Where it marks what "
            f"nobody has annotated, set data.ignore_value = {low}"
        )
    found[~known] = IGNORE
    return found


def _included(folder: Path, include: Include) -> list[str] | None:
    """Stems that the table names; None where there is no table."""
    path = folder / include.csv
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MissingFile(f"the table {path} cannot be read: {error}") from error
    columns = {include.column, include.stem_column}
    if not rows or not columns <= rows[0].keys():
        raise MissingFile(f"the table {path} lacks a column; expected {sorted(columns)}, found {list(rows[:1])}")
    return sorted(row[include.stem_column] for row in rows if row[include.column] == include.value)
