"""Objects matched one to one at IoU thresholds: average precision as in the 2018 Data Science Bowl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.measures.overlaps import annotated_overlaps

AP_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class Matches:
    """Objects matched one to one at an IoU threshold."""

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def ap(self) -> float:
        """``TP / (TP + FP + FN)``; 1 where there is nothing to find and nothing was found."""
        total = self.true_positives + self.false_positives + self.false_negatives
        return self.true_positives / total if total else 1.0


def match_objects(
    labels_yx: NDArray[Any], reference_yx: NDArray[Any], thresholds: Sequence[float] = AP_THRESHOLDS
) -> list[Matches]:
    """Match found to reference objects, one result a threshold: as many pairs with IoU >= threshold as can be had.

    Parameters
    ----------
    labels_yx, reference_yx
        Object numbers (y, x), 0 background. Pixels that the reference marks :data:`.datasets.IGNORE` count on
        neither side.
    thresholds
        IoU, above 0 to 1.

    """
    pairs = annotated_overlaps(labels_yx, reference_yx)
    n_wanted, n_found = (int(np.count_nonzero(areas)) for areas in (pairs.wanted_px, pairs.found_px))
    results = []
    for threshold in thresholds:
        matched = pairs.matched(threshold)[0].size
        results.append(Matches(matched, n_found - matched, n_wanted - matched))
    return results
