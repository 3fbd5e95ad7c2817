"""Outlines by geometry alone, for what is painted to be held against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def distance_to_edges(points_yxc: NDArray[Any], ring: NDArray[Any]) -> NDArray[np.float64]:
    """Distance of points (y, x, 2), x before y in the last axis, to the nearest edge of a closed ring (n, 2)."""
    nearest = np.full(points_yxc.shape[:2], np.inf)
    for start, end in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        along = end - start
        length = float(along @ along)
        share = np.clip((points_yxc - start) @ along / length, 0, 1) if length else np.zeros(points_yxc.shape[:2])
        nearest = np.minimum(nearest, np.linalg.norm(points_yxc - start - share[..., None] * along, axis=-1))
    return nearest
