"""Foreground pixels on both sides: IoU and Dice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets import IGNORE


@dataclass(frozen=True, slots=True)
class Overlap:
    """Foreground pixels on both sides, and on either."""

    both: int
    either: int

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where neither side has any foreground."""
        return self.both / self.either if self.either else 1.0

    @property
    def dice(self) -> float:
        """Twice the intersection over the sum of both areas; 1 where neither side has any foreground."""
        return 2 * self.both / (self.both + self.either) if self.either else 1.0


def foreground_overlap(mask_yx: NDArray[Any], reference_yx: NDArray[Any]) -> Overlap:
    """Compare two masks (non-zero is foreground) where the reference is not :data:`training.datasets.IGNORE`."""
    known = reference_yx != IGNORE
    found, wanted = (mask_yx != 0) & known, (reference_yx != 0) & known
    return Overlap(int(np.count_nonzero(found & wanted)), int(np.count_nonzero(found | wanted)))
