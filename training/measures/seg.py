"""SEG, the segmentation measure of the Cell Tracking Challenge (Maška et al. 2014, Ulman et al. 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.measures.overlaps import overlaps


def seg_jaccards(labels_yx: NDArray[Any], reference_yx: NDArray[Any]) -> NDArray[np.float64]:
    """Jaccard index of each reference object with the one found object that covers more than half of it, else 0.

    SEG is the mean of these numbers over the reference objects of all frames. Found objects without a partner do not
    count, so frames may be scored of which only some objects are annotated.

    Parameters
    ----------
    labels_yx, reference_yx
        Object numbers (y, x), 0 background. Pixels that the reference marks :data:`.datasets.IGNORE` belong to
        no reference object; a found object keeps its whole area even so. The challenge's own evaluation does this on
        frames that are annotated in part, and a merger with an unannotated neighbour costs what it costs there. An
        object that the border of the annotated region cuts is scored too low; mark it as ignored.

    Returns
    -------
    NDArray[np.float64]
        0 to 1, in the order of the reference's numbers; empty where the reference has no object.

    """
    pairs = overlaps(labels_yx, reference_yx)
    covers = 2 * pairs.both_px > pairs.wanted_px[pairs.wanted]
    jaccards = np.zeros(pairs.wanted_px.size)
    jaccards[pairs.wanted[covers]] = pairs.iou[covers]  # at most one covers more than half
    return jaccards[pairs.wanted_px > 0]
