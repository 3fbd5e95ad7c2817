"""How large the objects are that were found, against those that a package knows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from model.labels import Objects

LEAST_OBJECTS = 5
"""Fewer tell nothing of how large objects are."""


def median_diameter(planes: Sequence[Objects]) -> float | None:
    """Median diameter of the circle of equal area, px of the labels, of the objects of all planes.

    Those that an edge cuts are left out, as they are where a package's own are measured; where few others are found,
    all count. None for fewer than :data:`LEAST_OBJECTS`.
    """
    areas = [objects.areas_px for objects in planes]
    whole = [objects.areas_px[~objects.cut] for objects in planes]
    for counted in (whole, areas):
        if sum(map(len, counted)) >= LEAST_OBJECTS:
            return 2 * math.sqrt(float(np.median(np.concatenate(counted))) / math.pi)
    return None
