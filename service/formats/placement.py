"""Where an image lies in a larger one of which it is a region, smaller than there: a slide, as viewers export it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DECIMALS = 4
"""Of coordinates in the larger image, px."""
ORIGIN_LIMIT_PX = 1e9
DOWNSAMPLE_LIMITS = (0.01, 100_000.0)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the upper left corner lies, and how many pixels of the larger image one pixel is wide and high."""

    origin_yx: tuple[float, float] = (0.0, 0.0)
    """Pixels of the larger image."""
    downsample: float = 1.0

    def corners(self, corners_xy: NDArray[np.int64]) -> NDArray[Any]:
        """Corners (n, 2) in the larger image: int64 where origin and downsample are whole numbers, else float64."""
        if self == UNPLACED:
            return corners_xy
        placed: NDArray[np.float64] = corners_xy * self.downsample + np.array(self.origin_yx[::-1])
        whole = all(value.is_integer() for value in (*self.origin_yx, self.downsample))
        return placed.astype(np.int64) if whole else placed.round(DECIMALS)

    def area(self, pixels: int) -> float:
        """Area of so many pixels, px of the larger image; an integer where it is whole."""
        area = pixels * self.downsample**2
        return int(area) if area.is_integer() else round(area, DECIMALS)


UNPLACED = Placement()
"""Of an image that is no region of another one."""
