"""What every layout lists: images with their labels, named but not read yet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from training.errors import MaskMismatch, MissingFile
from training.names import composed
from training.options import Data

_log = logging.getLogger(__name__)

NUMBERED = "Save the mask in grey of 16 bits: 0 for background, a number for each object or class"
"""Remedy for masks that hold something else."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels as a file holds them, not checked yet.

    ``values_yx`` are object numbers or class values, 0 background, of any dtype; ``unknown_yx`` (bool) says which
    pixels nobody has annotated, None where all are known.
    """

    values_yx: NDArray[Any]
    unknown_yx: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One annotated image of a folder.

    Parameters
    ----------
    stem
        Unique name in the folder, composed (:mod:`training.names`); sorted stems follow the order of slices and
        frames.
    image_name, labels_name
        For messages: the file, and the page or entry in it.
    read_image
        Returns the pixels (y, x, c), as the service reads them (:func:`training.layouts.files.read_image`).
    read_labels
        Takes the image's height and width in pixels, returns its labels.
    training_only
        Never validate on it: better annotated images of the folder do.

    """

    stem: str
    image_name: str
    labels_name: str
    read_image: Callable[[], NDArray[Any]]
    read_labels: Callable[[tuple[int, int]], Labels]
    training_only: bool = False


class Layout(Protocol):
    """What a module of a layout offers."""

    EXPECTS: str
    """What lies where, in words for messages."""

    def recognise(self, folder: Path, data: Data) -> str | None:
        """Say in words what of this layout lies in ``folder``; None where nothing does."""
        ...

    def list_sources(self, folder: Path, data: Data, wanted: Sequence[str] | None) -> list[Source]:
        """List the annotated images, sorted by stem; only those of the stems in ``wanted`` where that is given.

        Raises
        ------
        DatasetError
            Where something is missing, or a file that describes many images cannot be read.

        """
        ...


def whole_numbers(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Take the values of a mask as whole numbers: floats, as ImageJ's 32-bit label images have, become int64.

    Raises
    ------
    MaskMismatch
        Where a value is no whole number, or too large to be told from its neighbours.

    """
    if values.dtype.kind in "uib":
        return values
    if values.dtype.kind != "f":
        raise MaskMismatch(f"{name} holds {values.dtype} values; expected whole numbers. {NUMBERED}")
    exact = values.astype(np.float64)
    strange = exact[~(np.abs(exact) < 1 << 53) | (exact != np.floor(exact))]
    if strange.size:
        raise MaskMismatch(
            f"{name} holds {values.dtype} values, {strange.size} of which are no whole numbers, such as "
            f"{strange[0]:g}; expected whole numbers. {NUMBERED}"
        )
    return exact.astype(np.int64)


def choose(sources: Sequence[Source], wanted: Sequence[str] | None, folder: Path) -> list[Source]:
    """Sort by stem, and keep the wanted ones.

    Raises
    ------
    MissingFile
        Where a wanted stem is not among them.

    """
    by_stem = {source.stem: source for source in sorted(sources, key=lambda source: source.stem)}
    if wanted is None:
        return list(by_stem.values())
    stems = sorted(map(composed, wanted))
    missing = [stem for stem in stems if stem not in by_stem]
    if missing:
        raise MissingFile(
            f"{len(missing)} of {len(stems)} images that the table names are not in {folder}: expected {missing[0]}; "
            f"found {', '.join(list(by_stem)[:5])} ... ({len(by_stem)}). Correct the table's stems"
        )
    return [by_stem[stem] for stem in stems]


@cache
def tell_once(level: int, message: str) -> None:
    """Log what is found in a folder, however often a command reads it."""
    _log.log(level, "%s", message)
