"""Pixels that found and reference objects share: what every measure of objects counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from skimage.metrics import contingency_table

from training.data.datasets import IGNORE
from training.data.weight_map import close_numbers


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Pairs of a reference and a found object that share pixels.

    Parameters
    ----------
    wanted, found
        (n,): numbers of both objects of each pair.
    both_px
        (n,): pixels that they share.
    wanted_px, found_px
        Area of each object by its number, in pixels; of number 0, which is no object, 0.

    """

    wanted: NDArray[np.intp]
    found: NDArray[np.intp]
    both_px: NDArray[np.int64]
    wanted_px: NDArray[np.int64]
    found_px: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """(n,): intersection over union of each pair."""
        either_px = self.wanted_px[self.wanted] + self.found_px[self.found] - self.both_px
        iou: NDArray[np.float64] = self.both_px / either_px
        return iou

    def matched(self, threshold: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Match one to one: numbers of reference and found objects, as many pairs with IoU >= threshold as can be had.

        Parameters
        ----------
        threshold
            IoU, above 0 to 1.

        """
        good = self.iou >= threshold
        pairs = sparse.csr_matrix(
            (np.ones(np.count_nonzero(good), dtype=np.int8), (self.wanted[good], self.found[good])),
            shape=(self.wanted_px.size, self.found_px.size),
        )
        # up to IoU 0.5 an object may have several partners: the largest one-to-one matching decides
        partner = csgraph.maximum_bipartite_matching(pairs, perm_type="column")
        wanted = np.flatnonzero(partner >= 0)
        return wanted, partner[wanted].astype(np.intp)


def overlaps(labels_yx: NDArray[Any], reference_yx: NDArray[Any]) -> Overlaps:
    """Count the pixels of found and reference objects.

    Parameters
    ----------
    labels_yx, reference_yx
        Object numbers (y, x), 0 background; below 0 no object either. Numbers above the count of pixels are closed up
        (:func:`training.data.weight_map.close_numbers`).

    """
    found, wanted = (close_numbers(np.maximum(plane, 0)).astype(np.int64) for plane in (labels_yx, reference_yx))
    table = contingency_table(wanted, found).tocoo()
    inside = (table.row > 0) & (table.col > 0)
    wanted_px, found_px = (np.bincount(plane.ravel()) for plane in (wanted, found))
    wanted_px[0] = found_px[0] = 0
    both_px = table.data[inside].astype(np.int64)
    return Overlaps(table.row[inside].astype(np.intp), table.col[inside].astype(np.intp), both_px, wanted_px, found_px)


def annotated_overlaps(labels_yx: NDArray[Any], reference_yx: NDArray[Any]) -> Overlaps:
    """Count as :func:`overlaps` does; pixels that are :data:`.datasets.IGNORE` belong to no found object."""
    return overlaps(np.where(reference_yx == IGNORE, 0, labels_yx), reference_yx)
