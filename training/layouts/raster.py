"""Outlines to pixels: a pixel belongs to a shape where its centre lies inside.

Coordinates are those of ImageJ and QuPath: origin top left, x to the right, y down; pixel (y, x) covers (x, y) to
(x + 1, y + 1), its centre is (x + 0.5, y + 0.5). Outlines along pixel edges come out as the pixels they enclose, to the
last one. skimage.draw.polygon takes one ring, gives pixels on a common edge to both sides, and its time grows with area
times corners; here rings are filled together, holes by the even-odd rule, and time grows with area plus corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.draw import ellipse

_FARTHEST = 1e9


@dataclass(frozen=True, slots=True)
class Patch:
    """Pixels of a shape.

    ``mask_yx`` (bool) begins at (top, left) of the image. It is 0 x 0 for a shape that lies outside of the image, and
    holds False alone for one so small or thin that it covers the centre of no pixel.
    """

    top: int
    left: int
    mask_yx: NDArray[np.bool_]

    def of(self, plane_yx: NDArray[Any]) -> NDArray[Any]:
        """View of the part of an image-sized plane that ``mask_yx`` covers."""
        height, width = self.mask_yx.shape
        return plane_yx[self.top : self.top + height, self.left : self.left + width]


def fill_rings(rings_xy: Sequence[NDArray[Any]], size_yx: tuple[int, int]) -> Patch:
    """Pixels inside of an odd number of rings.

    Parameters
    ----------
    rings_xy
        (n, 2) corners x, y each; closed or not.
    size_yx
        Height and width of the image; what lies beyond is cut off.

    """
    # a damaged file may hold any number; beyond _FARTHEST the differences below would overflow
    rings = [np.clip(np.asarray(ring, dtype=np.float64), -_FARTHEST, _FARTHEST) for ring in rings_xy]
    start, end = np.concatenate(rings), np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    left, top = np.maximum(np.floor(start.min(axis=0)), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(start.max(axis=0)), size_yx[::-1]).astype(int).tolist()
    if right <= left or bottom <= top:
        return _nothing(start.min(axis=0), start.max(axis=0), size_yx)
    # an edge crosses the centre line of row r if y_low <= r + 0.5 < y_high: a corner on the line counts once
    first, beyond = (
        np.clip(np.ceil(bound - 0.5), top, bottom).astype(np.int64)
        for bound in (np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1]))
    )
    crossed = beyond - first
    edge = np.repeat(np.arange(crossed.size), crossed)
    row = np.arange(edge.size) - np.repeat(np.cumsum(crossed) - crossed - first, crossed)
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + (row + 0.5 - start[edge, 1]) * slope
    column = np.clip(np.ceil(x - 0.5), left, right).astype(np.int64)  # first pixel whose centre is not left of x
    crossings = np.zeros((bottom - top, right - left + 1), dtype=np.int32)
    np.add.at(crossings, (row - top, column - left), 1)
    return Patch(top, left, np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1)


def fill_oval(left: float, top: float, width: float, height: float, size_yx: tuple[int, int]) -> Patch:
    """Pixels of the ellipse that a rectangle encloses."""
    low, high = np.array([left, top]), np.array([left + width, top + height])
    if min(width, height) <= 0:
        return _nothing(low, high, size_yx)
    rows, columns = ellipse(top + height / 2 - 0.5, left + width / 2 - 0.5, height / 2, width / 2, shape=size_yx)
    if not rows.size:
        return _nothing(low, high, size_yx)
    mask = np.zeros((rows.max() - rows.min() + 1, columns.max() - columns.min() + 1), dtype=bool)
    mask[rows - rows.min(), columns - columns.min()] = True
    return Patch(int(rows.min()), int(columns.min()), mask)


def unite(patches: Sequence[Patch]) -> Patch:
    """Pixels of any of the patches."""
    there = [patch for patch in patches if patch.mask_yx.size]
    if len(there) <= 1:
        return (there or list(patches))[0]
    top, left = min(patch.top for patch in there), min(patch.left for patch in there)
    bottom = max(patch.top + patch.mask_yx.shape[0] for patch in there)
    right = max(patch.left + patch.mask_yx.shape[1] for patch in there)
    united = np.zeros((bottom - top, right - left), dtype=bool)
    for patch in there:
        Patch(patch.top - top, patch.left - left, patch.mask_yx).of(united)[...] |= patch.mask_yx
    return Patch(top, left, united)


def _nothing(low_xy: NDArray[Any], high_xy: NDArray[Any], size_yx: tuple[int, int]) -> Patch:
    """Patch without pixels, of a shape within these bounds."""
    outside = (high_xy <= 0).any() or (low_xy >= size_yx[::-1]).any()
    return Patch(0, 0, np.zeros((0, 0) if outside else (1, 1), dtype=bool))
