"""Signs that the values of a mask are not what they are taken for: shades, classes, or a mark for what is unknown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label

from training.data.object_sizes import SPECK_PX
from training.data.weight_map import contact
from training.options import Data

MOST_PIECES = 5
_FEWEST_SHADES, _MOST_WIDE, _FEWEST_BESIDE = 8, 0.3, 0.8
_MARKS = (255, 65_535, 2**31 - 1)  # the highest values of the types that masks have
_HUGE = 4.0


def unknown_mark(labels_yx: NDArray[np.int32], data: Data) -> int:
    """Value that seems to mark what nobody has annotated: the highest of its type, apart from all others; 0 if none is.

    Numbered objects: the one of this number has four times the others' median area, and none has the number below.
    Classes: the other values are 0, 1 and on without a gap.

    Parameters
    ----------
    labels_yx
        Object numbers or class indexes, int32; negative is known to be not annotated.
    data
        How they were read.

    """
    if data.kind == "semantic":
        *others, last = data.class_values or (0,)
        apart = last in _MARKS and len(others) > 1 and others == list(range(len(others)))
        return last if apart and bool((labels_yx == len(others)).any()) else 0
    highest = int(labels_yx.max(initial=0))
    if highest not in _MARKS:
        return 0
    numbers, areas = np.unique(labels_yx[labels_yx > 0], return_counts=True)
    apart = numbers.size > 1 and numbers[-2] < highest - 1
    return highest if apart and areas[-1] >= _HUGE * np.median(areas[:-1]) else 0


def is_soft(cells_yx: NDArray[np.int32], areas: NDArray[np.int64]) -> bool:
    """Whether numbers are shades, as smoothing leaves them: next to one another, and none two pixels wide."""
    if np.count_nonzero(areas) < _FEWEST_SHADES:
        return False
    shades = (cells_yx > 0) & (cells_yx != 1 + areas.argmax())  # all but the value of the objects themselves
    alike = (ndimage.maximum_filter(cells_yx, 2) == ndimage.minimum_filter(cells_yx, 2)) & shades
    wide = ndimage.binary_dilation(alike, np.ones((2, 2), dtype=bool), origin=-1)  # the squares of 2 x 2 px as a whole
    count = int(np.count_nonzero(shades))
    if np.count_nonzero(wide & shades) > _MOST_WIDE * count:
        return False
    return int(np.count_nonzero(contact(cells_yx, 1) & shades)) >= _FEWEST_BESIDE * count


def scattered(cells_yx: NDArray[np.int32]) -> int:
    """Objects that fall into many pieces; of an image's only one, several that are no specks are too many."""
    pieces, count = label(cells_yx, background=0, connectivity=2, return_num=True)
    owner = np.zeros(count + 1, dtype=np.int64)
    owner[pieces.ravel()] = cells_yx.ravel()
    each = np.bincount(owner[1:])[1:]
    if np.count_nonzero(each) == 1 and np.count_nonzero(np.bincount(pieces.ravel())[1:] >= SPECK_PX) > 1:
        return 1
    return int(np.count_nonzero(each >= MOST_PIECES))
