"""Background that one object encloses, found band by band."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from model.components import pairs_at_seam, smallest_of_joined
from model.pixels import Pixels


def number_background(labels: Pixels, bands: Iterator[slice], object_of: NDArray[np.int32]) -> NDArray[np.int32]:
    """Number the regions of background, and find the object that encloses each.

    Parameters
    ----------
    labels
        (y, x) int32, 0 = background, which becomes the negative number of its region (pixels that share an edge).
    bands
        Rows that cover the image, from top to bottom.
    object_of
        Object by the value of ``labels``: values that belong together have one object.

    Returns
    -------
    NDArray[np.int32]
        For each region, from 0 on, the only object that touches it; 0 where there are several, or none, or where the
        region reaches the border of the image.

    """
    height, width = labels.shape
    count = 0
    above: NDArray[np.int32] | None = None
    seams: list[NDArray[np.int32]] = []
    touching: list[NDArray[np.int32]] = []
    on_border: list[NDArray[np.int32]] = []
    for rows in bands:
        band = labels[rows].copy()
        regions, found = scipy.ndimage.label(band == 0)
        signed = np.where(regions > 0, -(regions + count), object_of[band])
        count += found
        touching += [_contacts(signed[:, :-1], signed[:, 1:]), _contacts(signed[:-1], signed[1:])]
        if above is not None:
            seams.append(-pairs_at_seam(np.minimum(above, 0), np.minimum(signed[0], 0), connectivity=1))
            touching.append(_contacts(above, signed[0]))
        on_border += [-np.minimum(signed[:, side], 0) for side in (0, width - 1)]
        if rows.start == 0:
            on_border.append(-np.minimum(signed[0], 0))
        if rows.stop == height:
            on_border.append(-np.minimum(signed[-1], 0))
        above = signed[-1].copy()
        labels[rows] = np.where(regions > 0, signed, band)
    region_of = smallest_of_joined(count, seams)
    lowest = np.full(count + 1, np.iinfo(np.int32).max, dtype=np.int32)
    highest = np.zeros(count + 1, dtype=np.int32)
    for contacts in touching:
        at = region_of[contacts[:, 0]]
        np.minimum.at(lowest, at, contacts[:, 1])
        np.maximum.at(highest, at, contacts[:, 1])
    enclosed_by = np.where(lowest == highest, highest, 0)
    enclosed_by[region_of[np.concatenate(on_border)]] = 0
    return enclosed_by[region_of]


def _contacts(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.int32]:
    """Region and object (n, 2), each pair once, where a region (negative) meets an object (positive)."""
    found = []
    for ground, thing in ((one, other), (other, one)):
        meet = (ground < 0) & (thing > 0)
        found.append(-ground[meet].astype(np.int64) << 32 | thing[meet])
    packed = np.unique(np.concatenate(found))
    return np.stack([packed >> 32, packed & 0xFFFFFFFF], axis=1).astype(np.int32)
