"""Seeds of a watershed that are too small to be objects: specks beside or inside of larger ones, mostly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.components import present_objects
from model.pixels import Pixels


class Components(NamedTuple):
    """What :func:`model.components.label_components` numbered."""

    numbers: Pixels
    """(y, x) int32: provisional numbers, 0 outside."""
    component_of: NDArray[np.int32]
    """For each provisional number, the one that its component bears."""


def drop_small_seeds(
    seeds: Components,
    least_px: int,
    bands: Callable[[], Iterator[slice]],
    share: float = 0,
    regions: Components | None = None,
) -> None:
    """Take seeds out of the array that they are numbered in.

    Parameters
    ----------
    seeds
        Changed in place: 0 where a seed was that is too small.
    least_px
        Fewer pixels are no seed.
    bands
        Rows that cover the image, from top to bottom.
    share
        Nor are fewer than this share of the typical seed of the region that the seed lies in.
    regions
        Connected foreground, needed for a share.

    """
    areas = np.zeros(len(seeds.component_of), dtype=np.int64)
    region = np.zeros(len(seeds.component_of) if regions else 0, dtype=np.int32)
    for rows in bands():
        numbers = seeds.component_of[seeds.numbers[rows]]
        present, owner = present_objects(numbers.ravel(), len(areas))
        areas[present] += np.bincount(owner, minlength=len(areas[present]))
        if regions:
            inside = numbers > 0
            region[numbers[inside]] = regions.component_of[regions.numbers[rows][inside]]
    areas[0] = 0
    least: NDArray[np.float64] | int = least_px
    if regions:
        least = np.maximum(least_px, share * typical_areas(areas, region))
    kept = (areas >= least)[seeds.component_of]
    for rows in bands():
        seeds.numbers[rows] = np.where(kept[seeds.numbers[rows]], seeds.numbers[rows], 0)


def typical_areas(areas: NDArray[np.int64], region: NDArray[np.int32]) -> NDArray[np.int64]:
    """For each seed, the area of its region's typical one, which holds the median of the pixels of all seeds there.

    Seeds are in order of area. The median is that of pixels, not of seeds: neither many specks nor a single clump among
    many objects moves it much.

    Parameters
    ----------
    areas, region
        Pixels of each seed, and the number of the region that it lies in; areas of 0 count for nothing.

    """
    order = np.lexsort((areas, region))
    sorted_areas, sorted_region = areas[order], region[order]
    first = np.flatnonzero(np.diff(sorted_region, prepend=-1))  # of each region
    upto = np.cumsum(sorted_areas)
    before = (upto - sorted_areas)[first]
    half = before + (np.append(before[1:], upto[-1:]) - before + 1) // 2
    typical: NDArray[np.int64] = sorted_areas[np.searchsorted(upto, half)]
    lengths = np.diff(np.append(first, len(order)))
    result = np.empty_like(areas)
    result[order] = np.repeat(typical, lengths)
    return result
