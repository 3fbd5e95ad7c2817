"""Objects matched one to one at IoU thresholds: average precision as in the 2018 Data Science Bowl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from skimage.metrics import contingency_table

from training.datasets import IGNORE
from training.weight_map import close_numbers

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
        Object numbers (y, x), 0 background. Pixels that the reference marks :data:`training.datasets.IGNORE` count on
        neither side.
    thresholds
        IoU, above 0 to 1.

    """
    known = reference_yx != IGNORE
    found, wanted = (close_numbers(np.where(known, plane, 0)).astype(np.int64) for plane in (labels_yx, reference_yx))
    table = contingency_table(wanted, found).tocoo()
    areas_wanted, areas_found = (np.bincount(plane.ravel()) for plane in (wanted, found))
    inside = (table.row > 0) & (table.col > 0)
    rows, columns = table.row[inside], table.col[inside]
    both = np.bincount(np.arange(rows.size), weights=table.data[inside], minlength=rows.size)
    iou = both / (areas_wanted[rows] + areas_found[columns] - both)
    n_wanted, n_found = (int(np.count_nonzero(areas[1:])) for areas in (areas_wanted, areas_found))
    results = []
    for threshold in thresholds:
        good = iou >= threshold
        pairs = sparse.csr_matrix(
            (np.ones(np.count_nonzero(good), dtype=np.int8), (rows[good], columns[good])),
            shape=(areas_wanted.size, areas_found.size),
        )
        # below IoU 0.5 an object may have several partners: the largest one-to-one matching decides
        matched = int(np.count_nonzero(csgraph.maximum_bipartite_matching(pairs, perm_type="column") >= 0))
        results.append(Matches(matched, n_found - matched, n_wanted - matched))
    return results
