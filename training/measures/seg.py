"""SEG, the segmentation measure of the Cell Tracking Challenge (Maška et al. 2014, Ulman et al. 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import contingency_table

from training.weight_map import close_numbers


def seg_jaccards(labels_yx: NDArray[Any], reference_yx: NDArray[Any]) -> NDArray[np.float64]:
    """Jaccard index of each reference object with the one found object that covers more than half of it, else 0.

    SEG is the mean of these numbers over the reference objects of all frames. Found objects without a partner do not
    count, so frames may be scored of which only some objects are annotated.

    Parameters
    ----------
    labels_yx, reference_yx
        Object numbers (y, x), 0 background. Pixels that the reference marks :data:`training.datasets.IGNORE` belong to
        no reference object; a found object keeps its whole area even so. The challenge's own evaluation does this on
        frames that are annotated in part, and a merger with an unannotated neighbour costs what it costs there. An
        object that the border of the annotated region cuts is scored too low; mark it as ignored.

    Returns
    -------
    NDArray[np.float64]
        0 to 1, in the order of the reference's numbers; empty where the reference has no object.

    """
    wanted, found = (close_numbers(np.maximum(plane, 0)).astype(np.int64) for plane in (reference_yx, labels_yx))
    areas_wanted, areas_found = (np.bincount(plane.ravel()) for plane in (wanted, found))
    jaccards = np.zeros(areas_wanted.size)
    table = contingency_table(wanted, found).tocoo()
    covers = (table.row > 0) & (table.col > 0) & (2 * table.data > areas_wanted[table.row])
    rows, columns, both = table.row[covers], table.col[covers], table.data[covers]
    jaccards[rows] = both / (areas_wanted[rows] + areas_found[columns] - both)  # at most one covers more than half
    there = areas_wanted > 0
    there[0] = False
    return jaccards[there]
