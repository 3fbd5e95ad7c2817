"""Shapes drawn around objects, painted to labels: COCO, ImageJ and QuPath have this in common."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.wording import counted
from training.errors import MaskMismatch
from training.layouts.raster import Patch
from training.layouts.source import Labels
from training.options import Data

_log = logging.getLogger(__name__)

_MOST_LOST = 5


Role = Literal["object", "unknown", "region"]


@dataclass(frozen=True, slots=True)
class Shape:
    """One drawn shape.

    Parameters
    ----------
    name
        For messages.
    patch
        Its pixels.
    category
        Its class, where the file has one.
    role
        ``object``; ``unknown``: nobody has annotated what lies in it; ``region``: only what lies in regions is
        annotated.

    """

    name: str
    patch: Patch
    category: str | None = None
    role: Role = "object"


def paint(shapes: Sequence[Shape], size_yx: tuple[int, int], file: str, data: Data) -> Labels:
    """Paint shapes in their order; where objects overlap, the later one has the pixels.

    Instances are numbered from 1 in the order of the shapes. Semantic labels are the place of the shape's category in
    ``data.categories``, from 1; shapes of other categories are left out. Pixels of shapes that are unknown, and pixels
    beyond all regions where there are regions, count as not annotated unless they belong to an object. The log names
    objects that have no pixel in the end.

    Raises
    ------
    MaskMismatch
        Where no object has a pixel although there are objects, or semantic shapes are of several categories and the
        recipe does not say which class each is.

    """
    objects = [shape for shape in shapes if shape.role == "object" and is_taken(shape, data)]
    others = {str(shape.category) for shape in objects}
    if data.kind == "semantic" and data.categories is None and len(others) > 1:
        raise MaskMismatch(
            f"{file} has shapes of the categories {', '.join(sorted(others))}; expected data.categories to name them "
            "in the order of the recipe's classes, or shapes of one category"
        )
    numbers = number_pixels(objects, size_yx)
    _report_lost(objects, numbers, size_yx, file)
    unknown = _covered([shape for shape in shapes if shape.role == "unknown"], size_yx)
    regions = [shape for shape in shapes if shape.role == "region"]
    if regions:
        unknown |= ~_covered(regions, size_yx)
    unknown &= numbers == 0
    if data.kind == "semantic":
        classes = [0, *(1 + data.categories.index(str(shape.category)) if data.categories else 1 for shape in objects)]
        return Labels(np.array(classes, dtype=np.int32)[numbers], unknown)
    return Labels(numbers, unknown)


def number_pixels(shapes: Sequence[Shape], size_yx: tuple[int, int]) -> NDArray[np.int32]:
    """Number the pixels of each shape from 1 on, 0 beyond all of them; later shapes have the pixels."""
    numbers = np.zeros(size_yx, dtype=np.int32)
    for number, shape in enumerate(shapes, start=1):
        shape.patch.of(numbers)[shape.patch.mask_yx] = number
    return numbers


def is_taken(shape: Shape, data: Data) -> bool:
    """Whether ``data`` takes shapes of this category."""
    return data.categories is None or shape.category in data.categories


def _covered(shapes: Sequence[Shape], size_yx: tuple[int, int]) -> NDArray[np.bool_]:
    covered = np.zeros(size_yx, dtype=bool)
    for shape in shapes:
        shape.patch.of(covered)[...] |= shape.patch.mask_yx
    return covered


def _report_lost(objects: Sequence[Shape], numbers_yx: NDArray[np.int32], size_yx: tuple[int, int], file: str) -> None:
    areas = np.bincount(numbers_yx.ravel(), minlength=len(objects) + 1)
    lost = [shape for number, shape in enumerate(objects, start=1) if not areas[number]]
    if not lost:
        return
    reasons = "; ".join(f"{shape.name} {_why_lost(shape.patch, size_yx)}" for shape in lost[:_MOST_LOST])
    more = f"; and {len(lost) - _MOST_LOST} more" if len(lost) > _MOST_LOST else ""
    lack = "has" if len(lost) == 1 else "have"
    said = f"{file}: {len(lost)} of {counted(len(objects), 'object')} {lack} no pixel: {reasons}{more}"
    if len(lost) == len(objects):
        raise MaskMismatch(f"{said}. Expected coordinates in pixels of this image, from its upper left corner")
    _log.warning("%s", said)


def _why_lost(patch: Patch, size_yx: tuple[int, int]) -> str:
    if not patch.mask_yx.size:
        return f"lies outside of the image ({size_yx[0]} x {size_yx[1]} px)"
    return "is hidden by later ones" if patch.mask_yx.any() else "covers the centre of no pixel"
