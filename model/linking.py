"""Objects of a stack that was segmented plane by plane: which of neighbouring planes are one object.

The measure is the intersection over union (IoU) of two objects of neighbouring planes. They are one object where it is
at least ``least_iou`` and each is the other's best: matches are one to one. It is the measure of Cellpose's
``stitch_threshold`` (Stringer et al., Nature Methods 18, 2021; ``cellpose.utils.stitch3D``), where an object may also
go on as one that overlaps more with another. Of equals the one that comes first in its own plane is the best, and of
several equal pairs only the first goes on. A plane is compared with its neighbour alone: what is missing in one plane
and is back in the next is a new object.

Overlaps are counted in one pass over the pixels of both planes, band by band, as lengths of runs: time grows with
pixels, and with pairs of objects that really overlap, never with objects times pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.pixels import Pixels, row_bands

_BAND_PX = 1 << 18
_BYTES_PER_BANDED_PX = 110  # measured of noise: pairs and runs are as many as pixels
_PENDING = 1 << 16
BYTES_PER_PAIR = 96
"""Of the tables of two planes, for each pair of objects that overlap in a band, at their peak."""
BYTES_PER_NUMBER = 8
"""Of the numbers of an object in a plane, which are kept for the whole stack; at their peak."""
_BYTES_PER_NEW_NUMBER = 24  # beside that, of each object of the plane in work


@dataclass(frozen=True, slots=True)
class Linked:
    """Numbers of the objects of a stack."""

    numbers: tuple[NDArray[np.unsignedinteger[Any]], ...]
    """For each plane (n + 1,): the number in the stack of each of its own numbers, 0 for 0. All uint16, or uint32 where
    there are more than 65,535 objects."""
    count: int
    """Objects of the stack; they have the numbers from 1 to this, in the order of their first planes, and within a
    plane of their numbers there."""


def band_bytes(size_yx: tuple[int, int]) -> int:
    """Memory that planes of (height, width) px take while they are compared, beside what is told: that of a band."""
    height, width = size_yx
    return min(height * width, max(width, _BAND_PX)) * _BYTES_PER_BANDED_PX


def neighbours(shape: Sequence[int], axis: int) -> list[int | None]:
    """For each plane of a stack, the one before it along an axis; None for the first ones.

    Parameters
    ----------
    shape
        Length of each axis; planes are numbered in C order of these.
    axis
        Along which planes are neighbours.

    """
    planes = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    before = np.roll(planes, 1, axis)
    before[(slice(None),) * axis + (0,)] = -1
    return [None if plane < 0 else plane for plane in before.reshape(-1).tolist()]


def link_planes(
    planes: Sequence[Pixels],
    areas: Sequence[NDArray[np.int64]],
    before: Sequence[int | None],
    least_iou: float,
    tell: Callable[[int], None],
) -> Linked:
    """Number the objects of a stack.

    Parameters
    ----------
    planes
        Unsigned integers (y, x), all of one size: 0 background, objects numbered from 1 without gaps in each.
    areas
        For each plane (n,): pixels of each object.
    before
        For each plane its neighbour, which comes earlier; None where it has none. See :func:`neighbours`.
    least_iou
        Above 0, at most 1.
    tell
        Told again and again how many bytes the tables take or have taken at most; what it raises ends the work.

    """
    objects = [len(each) for each in areas]
    tables = sum(objects) * BYTES_PER_NUMBER + max(objects, default=0) * _BYTES_PER_NEW_NUMBER
    tell(tables)
    numbers: list[NDArray[np.unsignedinteger[Any]]] = []
    count = 0
    for plane, neighbour in enumerate(before):
        mine = np.zeros(len(areas[plane]) + 1, dtype=np.uint32)
        if neighbour is not None:
            first, second = best_matches(
                planes[neighbour],
                planes[plane],
                areas[neighbour],
                areas[plane],
                least_iou,
                tell=lambda pairs: tell(tables + pairs * BYTES_PER_PAIR),
            )
            mine[second] = numbers[neighbour][first]
        new = np.flatnonzero(mine[1:] == 0) + 1
        mine[new] = np.arange(count + 1, count + 1 + len(new))
        count += len(new)
        numbers.append(mine)
    dtype = np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32
    return Linked(tuple(each.astype(dtype, copy=False) for each in numbers), count)


def best_matches(
    first: Pixels,
    second: Pixels,
    first_areas: NDArray[np.int64],
    second_areas: NDArray[np.int64],
    least_iou: float,
    *,
    tell: Callable[[int], None],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers (n,) in the first plane, and those in the second, of objects that are each other's best match.

    Parameters
    ----------
    first, second
        Unsigned integers (y, x), 0 background.
    first_areas, second_areas
        (objects,): pixels of each.
    least_iou
        Least intersection over union of a match.
    tell
        Told after each band how many pairs of objects are in its tables, some of several bands more than once.

    """
    one, other, pixels = overlaps(first, second, len(second_areas) + 1, tell)
    iou = pixels / (first_areas[one - 1] + second_areas[other - 1] - pixels)
    enough = iou >= least_iou
    one, other, iou = one[enough], other[enough], iou[enough]
    mutual = _best_of_each(one, other, iou) & _best_of_each(other, one, iou)
    return one[mutual], other[mutual]


def overlaps(
    first: Pixels, second: Pixels, above: int, tell: Callable[[int], None], band_px: int = _BAND_PX
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return each pair of objects that share pixels: both numbers, and how many pixels that are, (n,) each.

    Parameters
    ----------
    first, second
        Unsigned integers (y, x), 0 background.
    above
        More than the largest number in the second plane.
    tell
        As for :func:`best_matches`.
    band_px
        Pixels looked at together; the result does not depend on it.

    """
    height, width = first.shape
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    pairs = summed = 0
    for rows in row_bands(height, width, band_px):
        one, other = (plane[rows].reshape(-1) for plane in (first, second))
        keys = one.astype(np.int64) * above + other
        keys[(one == 0) | (other == 0)] = 0
        ends = np.append(np.flatnonzero(keys[1:] != keys[:-1]) + 1, len(keys))
        keys, lengths = keys[ends - 1], np.diff(ends, prepend=0)
        found.append(_summed(keys[keys != 0], lengths[keys != 0]))
        pairs += len(found[-1][0])
        if pairs > 2 * summed + _PENDING:
            found = [_summed(*map(np.concatenate, zip(*found, strict=True)))]
            pairs = summed = len(found[0][0])
        tell(pairs)
    keys, pixels = _summed(*map(np.concatenate, zip(*found, strict=True)))
    return *np.divmod(keys, above), pixels


def _summed(keys: NDArray[np.int64], pixels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each key once, in their order, and the sum of its pixels."""
    each, place = np.unique(keys, return_inverse=True)
    return each, np.bincount(place, pixels, len(each)).astype(np.int64)


def _best_of_each(
    numbers: NDArray[np.int64], partners: NDArray[np.int64], iou: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which pairs (n,) are the best of their number: of the highest IoU, and of equals that of the lowest partner."""
    order = np.lexsort((partners, -iou, numbers))
    best = np.zeros(len(numbers), dtype=bool)
    best[order[np.diff(numbers[order], prepend=0) != 0]] = True
    return best
