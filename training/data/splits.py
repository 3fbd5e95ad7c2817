"""Which images are trained on, and which are kept for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from model.wording import counted
from training.data.datasets import AnnotatedImage, require_something_to_learn
from training.errors import NothingToLearn, RecipeError
from training.layouts.parts import stem_in
from training.names import composed
from training.options import Data

Side = Literal["validation", "training", "all"]
"""Which images of a folder are meant: those of one side of the split, or all of them."""


_REMEDY = "change data.validation_fraction or the fold"


def is_validation(stem: str, fraction: float) -> bool:
    """Whether an image belongs to the validation split: SHA-256 of its stem, as a fraction of 2^64, below ``fraction``.

    The split depends on the name alone: it is the same on every machine, and adding images moves none of the others.
    """
    return _position(stem) < fraction


def split_images(
    images: Sequence[AnnotatedImage], data: Data, remedy: str = _REMEDY
) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Part images into training and validation as the recipe's data part says, both in the given order.

    Images for training alone that fall among the validating ones are on neither side: neighbours of what validates
    teach nothing. ``remedy`` is for messages: what parts them otherwise.

    Raises
    ------
    RecipeError
        Where there is no such fold.
    NothingToLearn
        Where one side is empty although the recipe asks for both.

    """
    training, validation = _sides(images, data)
    if not training or (asks_for_validation(data) and not validation):
        raise NothingToLearn(
            f"{counted(len(images), 'image')} split into {len(training)} for training and {len(validation)} for "
            f"validation; add images or {_how(data, remedy)} (now {_asked(data)})"
        )
    return training, validation


def split_for_run(
    images: Sequence[AnnotatedImage], data: Data, folder: Path, remedy: str = _REMEDY
) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Part the images of ``folder`` as :func:`split_images`, so that those for training teach something.

    Raises
    ------
    RecipeError, NothingToLearn
        As :func:`split_images`; where all that the labels show stands on the validation side, too.

    """
    training, validation = split_images(images, data, remedy)
    others = f"Let others validate: {_how(data, remedy)} (now {_asked(data)})"
    require_something_to_learn(training, data, f"the training side of {folder}", others)
    return training, validation


def _how(data: Data, remedy: str) -> str:
    return remedy if data.parts is None else "correct data.parts"


def _asked(data: Data) -> str:
    """Which images shall validate, in short."""
    if data.parts is not None:
        return f"{data.parts[1]}/"
    return f"fold {data.fold[0]} of {data.fold[1]}" if data.fold else f"fraction {data.validation_fraction}"


def take_side(
    images: Sequence[AnnotatedImage], data: Data, side: Side, folder: Path, *, required: bool = True
) -> list[AnnotatedImage]:
    """Take the images of one side of the split of ``folder``, or all of them, however few stand on the other side.

    Raises
    ------
    RecipeError
        Where there is no such fold.
    NothingToLearn
        Where there are none. Where they are not ``required``, a recipe that asks for no validation may leave none.

    """
    if side == "all":
        return list(images)
    training, validation = _sides(images, data)
    taken = training if side == "training" else validation
    if not taken and (required or asks_for_validation(data)):
        raise NothingToLearn(f"no image of {folder} is kept for {side}; choose another --split, or another --data")
    return taken


def asks_for_validation(data: Data) -> bool:
    """Whether images shall be kept for validation."""
    return data.parts is not None or data.fold is not None or data.validation_fraction > 0


def says_validation(data: Data) -> bool:
    """Whether somebody has said which images validate."""
    said = {"parts", "split", "stretches", "validation_fraction", "fold"}
    return not data.model_fields_set.isdisjoint(said)


def _sides(images: Sequence[AnnotatedImage], data: Data) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Images for training and for validation."""
    chosen = validation_stems([image.stem for image in images], data)
    training = [image for image in images if image.stem not in chosen]
    return training, [image for image in images if image.stem in chosen and not image.training_only]


def validation_stems(stems: Sequence[str], data: Data) -> set[str]:
    """Stems of the images that validate.

    Of a folder with parts, those of the second one. A fold of split ``hash`` is an equal part of the stems in the order
    of their hashes. A fold of split ``blocks`` is, of each stretch, one contiguous part: neighbouring slices never
    stand on both sides but at the block's ends. Without a fold, ``hash`` takes what :func:`is_validation` says, and
    ``blocks`` the last part of each stretch.

    Raises
    ------
    RecipeError
        Where there is no such fold.

    """
    if data.parts is not None:
        return {stem for stem in stems if stem.startswith(stem_in(data.parts[1], ""))}
    if data.fold is None:
        if data.validation_fraction == 0:
            return set()
        if data.split == "hash":
            return {stem for stem in stems if is_validation(stem, data.validation_fraction)}
        count = max(2, round(1 / data.validation_fraction))
        number = count
    else:
        number, count = data.fold
    if number > count:
        raise RecipeError(f"there is no fold {number} of {count}; the folds are 1 to {count}")
    if data.split == "hash":
        return set(_part(sorted(stems, key=_position), number, count))
    ordered = sorted(stems, key=composed)
    stretches = [_part(ordered, index + 1, data.stretches) for index in range(data.stretches)]
    return {stem for stretch in stretches for stem in _part(stretch, number, count)}


def describe_split(data: Data) -> str:
    """Say in one or two sentences which images validate."""
    if not asks_for_validation(data):
        return "No image was kept for validation."
    if data.parts is not None:
        return f"The images in {data.parts[1]}/ validate, those in {data.parts[0]}/ are trained on."
    number, count = data.fold or (0, max(2, round(1 / data.validation_fraction)))
    if data.split == "blocks":
        where = "the sorted names" if data.stretches == 1 else f"each of {data.stretches} stretches of the sorted names"
        return f"Part {number or count} of {count} contiguous parts of {where} validates."
    if data.fold is not None:
        return f"Part {number} of {count} equal parts of the names, in the order of their SHA-256, validates."
    return (
        "An image is for validation if the first eight bytes of the SHA-256 of its name (without suffix), as a "
        f"fraction of 2^64, are below {data.validation_fraction}."
    )


def _part(stems: Sequence[str], number: int, count: int) -> list[str]:
    """Part ``number`` (from 1) of ``count`` parts that differ by at most one in length."""
    return [stems[index] for index in np.array_split(np.arange(len(stems)), count)[number - 1]]


def _position(stem: str) -> float:
    """SHA-256 of a stem as a number from 0 to 1."""
    return int.from_bytes(hashlib.sha256(composed(stem).encode("utf-8")).digest()[:8], "big") / 2**64
