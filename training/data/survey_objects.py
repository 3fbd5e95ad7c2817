"""What the masks of a folder hold: whether their values are objects or classes, and how large the objects are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label

from model.wording import counted
from training.data.object_sizes import areas_of, components, percentiles_px
from training.data.weight_map import close_numbers

MOST_CLASSES = 16
"""More values than these number objects."""

_MOST_DEPTH_PIXELS = 4_000_000  # exact distances take a third of a second a million pixels
_HOLE = 0.1
_RIM = 2.0  # four times half a pixel: distances are to the centre of the nearest pixel outside, not to its edge


@dataclass(frozen=True, slots=True)
class Guess:
    """What the values of the masks mean.

    Parameters
    ----------
    kind
        As :attr:`training.options.Data.kind`.
    class_values
        For semantic masks the value of class 0, 1, ...; None for instances.
    reason
        What the guess rests on.

    """

    kind: Literal["instances", "semantic"]
    class_values: tuple[int, ...] | None
    reason: str


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects of the measured images; connected components of each class but background where masks are semantic.

    Parameters
    ----------
    count, images
        Number of objects, and of the images measured.
    diameter_px
        5th, 50th and 95th percentile of the diameter of the circle of equal area, of the objects that neither the
        image's edge nor what nobody has annotated cuts (of all, where there are fewer than ten).
    width_px
        5th percentile of the objects' widths, four times the mean distance of a pixel's centre to the outside: a
        strip's width, two thirds of a disc's diameter.
    background_width_px
        The same of all that is no object: how thin it is where it parts objects.
    small_area_px
        1st percentile of all objects' areas; where masks are semantic, of the connected components of all classes but
        background together, of several classes that of the one that has the least, each component being of the class
        that most of its pixels have.
    touching
        Share of the objects that touch another, at least at a corner.
    hollow
        Share of the objects with holes, background that they enclose, of a tenth of their own pixels or more; 0 where
        masks are semantic.
    small_class
        Which class has that percentile, where there are several.

    """

    count: int
    images: int
    diameter_px: tuple[float, float, float]
    width_px: float
    background_width_px: float
    small_area_px: float
    touching: float
    hollow: float = 0.0
    small_class: int | None = None


def guess_kind(masks_yx: Sequence[NDArray[np.int32]], values: tuple[int, ...]) -> Guess:
    """Tell objects' numbers from classes.

    Parameters
    ----------
    masks_yx
        Masks as stored, int32; negative is not annotated.
    values
        Every value of all masks, ascending.

    """
    marks = [value for value in values if value > 0]
    if len(marks) <= 1 or len(values) <= 2:
        return Guess("semantic", values, f"the masks hold the values {_listed(values)} alone")
    if len(values) <= 4 and values[-1] == 255:
        return Guess(
            "semantic", values, f"the masks hold the values {_listed(values)} alone, the last as in 8-bit masks"
        )
    pieces = np.concatenate([_pieces(mask) for mask in masks_yx] or [np.zeros(0, dtype=np.int64)])
    median = float(np.median(pieces)) if pieces.size else 0.0
    if len(values) <= MOST_CLASSES and median > 2:
        return Guess(
            "semantic", values, f"{counted(len(values), 'value')}, each in {median:g} pieces an image (median)"
        )
    shown = counted(len(marks), "value") if len(marks) <= 1000 else "more than 1000 values"
    return Guess("instances", None, f"{shown}, each in {counted(median, 'piece', 'g')} an image (median)")


def measure_objects(masks_yx: Sequence[NDArray[np.int32]], kind: Literal["instances", "semantic"]) -> Objects:
    """Measure objects; ``masks_yx`` are object numbers, or class indexes."""
    areas, inner, joined, main, widths, gaps = [], [], [], [], [], []
    touching = hollow = looked_at = 0
    every = _every(masks_yx)
    for index, mask in enumerate(masks_yx):
        cells = close_numbers(np.maximum(mask, 0)) if kind == "instances" else _parts_of_classes(mask)
        numbers, area, whole = areas_of(cells, mask < 0)
        if numbers.size:
            areas.append(area)
            inner.append(whole)
            together, classes = (area, np.ones_like(area)) if kind == "instances" else _joined(mask)
            joined.append(together)
            main.append(classes)
            touching += len(_touching(cells))
        if index % every:
            continue
        if numbers.size:
            depth = ndimage.distance_transform_edt(_own_ground(cells))
            widths.append(4 * np.asarray(ndimage.mean(depth, cells, numbers)) - _RIM)
            if kind == "instances":
                hollow, looked_at = hollow + _hollow(cells), looked_at + numbers.size
        background = (cells == 0) & (mask >= 0)
        if background.any() and not background.all():
            gaps.append(4 * float(ndimage.distance_transform_edt(background)[background].mean()) - _RIM)
    if not areas:
        return Objects(0, len(masks_yx), (0.0, 0.0, 0.0), 0.0, 0.0, 0.0, 0.0)
    sizes = np.concatenate(areas)
    diameter_px = percentiles_px(sizes, np.concatenate(inner))
    small_area_px, small_class = _smallest(np.concatenate(joined), np.concatenate(main))
    return Objects(
        count=sizes.size,
        images=len(masks_yx),
        diameter_px=diameter_px,
        width_px=float(np.percentile(np.concatenate(widths), 5)) if widths else diameter_px[0],
        background_width_px=float(np.median(gaps)) if gaps else 0.0,
        small_area_px=small_area_px,
        touching=touching / sizes.size,
        hollow=hollow / max(1, looked_at),
        small_class=small_class,
    )


def some_masks(masks_yx: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int32], ...]:
    """Masks at equal steps, as many as are measured closely, and at least one."""
    return tuple(masks_yx[:: _every(masks_yx)])


def _every(masks_yx: Sequence[NDArray[np.int32]]) -> int:
    """Which masks are measured closely: one in so many."""
    return max(1, math.ceil(sum(mask.size for mask in masks_yx) / _MOST_DEPTH_PIXELS))


def _parts_of_classes(mask_yx: NDArray[np.int32]) -> NDArray[np.int32]:
    """Number the pieces of each class but background by itself."""
    numbered = np.zeros_like(mask_yx)
    for value in range(1, int(mask_yx.max(initial=0)) + 1):
        pieces = components(mask_yx == value)
        numbered = np.where(pieces > 0, pieces + numbered.max(), numbered)
    return numbered


def _joined(mask_yx: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Areas of the components of all classes but background together, and the class of most pixels of each."""
    objects = components(mask_yx > 0)
    numbers, areas, _ = areas_of(objects)
    count = int(mask_yx.max(initial=0)) + 1
    pairs = objects.astype(np.int64) * count + np.maximum(mask_yx, 0)
    pixels = np.bincount(pairs.ravel(), minlength=(int(objects.max(initial=0)) + 1) * count).reshape(-1, count)
    return areas, pixels[numbers].argmax(axis=1)


def _smallest(areas: NDArray[np.int64], classes: NDArray[np.int64]) -> tuple[float, int | None]:
    """1st percentile of areas in px, of several classes the least that one of them has, and which one that is."""
    there = np.unique(classes)
    if there.size < 2:
        return float(np.percentile(areas, 1)), None
    return min((float(np.percentile(areas[classes == each], 1)), int(each)) for each in there)


def _pieces(mask_yx: NDArray[np.int32]) -> NDArray[np.int64]:
    """Number of connected pieces of each value above 0 that occurs."""
    pieces, count = label(np.maximum(mask_yx, 0), background=0, connectivity=2, return_num=True)
    value_of = np.zeros(count + 1, dtype=np.int64)
    value_of[pieces.ravel()] = mask_yx.ravel()
    return np.unique(value_of[1:], return_counts=True)[1].astype(np.int64)


def _own_ground(cells_yx: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Pixels of objects, less those with another object to the left or above: so every object ends somewhere."""
    own: NDArray[np.bool_] = cells_yx > 0
    own[:, 1:] &= (cells_yx[:, 1:] == cells_yx[:, :-1]) | (cells_yx[:, :-1] <= 0)
    own[1:] &= (cells_yx[1:] == cells_yx[:-1]) | (cells_yx[:-1] <= 0)
    return own


def _hollow(cells_yx: NDArray[np.int32]) -> int:
    """Number of objects that enclose background of a tenth of their own pixels or more."""
    count = 0
    for number, window in enumerate(ndimage.find_objects(cells_yx), start=1):
        if window is not None:
            own = cells_yx[window] == number
            enclosed = ndimage.binary_fill_holes(own) & (cells_yx[window] == 0)
            count += bool(np.count_nonzero(enclosed) >= _HOLE * np.count_nonzero(own))
    return count


def _touching(cells_yx: NDArray[np.int32]) -> set[int]:
    """Numbers of the objects that have a neighbour, by edge or corner."""
    numbers: set[int] = set()
    height, width = cells_yx.shape
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        left, right = max(0, -dx), width - max(0, dx)
        here, there = cells_yx[: height - dy, left:right], cells_yx[dy:, left + dx : right + dx]
        meet = (here != there) & (here > 0) & (there > 0)
        numbers.update(np.unique(here[meet]).tolist(), np.unique(there[meet]).tolist())
    return numbers


def _listed(values: tuple[int, ...]) -> str:
    shown = ", ".join(str(value) for value in values[:-1])
    return f"{shown} and {values[-1]}" if shown else str(values[-1])
