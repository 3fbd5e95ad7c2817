"""Connected components of an image that is labelled band by band, joined exactly where bands meet.

Every band is labelled on its own; its numbers go on where those of the band above ended. Numbers that meet at a seam
are one component, which bears the smallest of them: that of its first pixel in reading order. So components have the
same order as if the image had been labelled whole, whatever the bands (test: ``test_labels_do_not_depend_on_bands``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from model.pixels import Pixels


def label_components(
    mask_of: Callable[[slice], NDArray[np.bool_]],
    bands: Iterator[slice],
    into: Pixels,
    connectivity: int,
    tell: Callable[[int], None],
) -> NDArray[np.int32]:
    """Number the components of a mask.

    Parameters
    ----------
    mask_of
        Gives the mask (y, x) of some rows.
    bands
        Rows that cover the image, from top to bottom.
    into
        Takes the provisional number of each pixel: (y, x) int32, 0 outside the mask.
    connectivity
        1: pixels that share an edge are connected; 2: a corner is enough.
    tell
        Told after each band how many provisional numbers there are.

    Returns
    -------
    NDArray[np.int32]
        For each provisional number, from 0 on, the one that its component bears.

    """
    structure = scipy.ndimage.generate_binary_structure(2, connectivity)
    count = 0
    above: NDArray[np.int32] | None = None
    pairs: list[NDArray[np.int32]] = []
    for rows in bands:
        numbers, found = scipy.ndimage.label(mask_of(rows), structure)
        np.add(numbers, count, out=numbers, where=numbers > 0)
        count += found
        tell(count)
        if above is not None:
            pairs.append(pairs_at_seam(above, numbers[0], connectivity))
        above = numbers[-1].copy()
        into[rows] = numbers
    return smallest_of_joined(count, pairs)


def pairs_at_seam(above: NDArray[Any], below: NDArray[Any], connectivity: int) -> NDArray[Any]:
    """Pairs (n, 2) of numbers other than 0 that touch where one row lies on another, each once."""
    width = len(above)
    found = []
    for shift in (0,) if connectivity == 1 else (-1, 0, 1):
        upper = above[max(0, -shift) : width - max(0, shift)]
        lower = below[max(0, shift) : width - max(0, -shift)]
        both = (upper != 0) & (lower != 0)
        found.append(np.stack([upper[both], lower[both]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def smallest_of_joined(count: int, pairs: list[NDArray[Any]]) -> NDArray[np.int32]:
    """For each number from 0 to ``count``, the smallest of those that ``pairs`` join to it, itself included."""
    smallest = np.arange(count + 1, dtype=np.int32)
    joined = np.concatenate([np.zeros((0, 2), dtype=np.int32), *pairs])
    numbers, ends = np.unique(joined, return_inverse=True)
    if len(numbers):
        first, second = ends.reshape(-1, 2).T
        graph = scipy.sparse.coo_array(
            (np.ones(len(first), dtype=bool), (first, second)), shape=(len(numbers), len(numbers))
        )
        groups, group = scipy.sparse.csgraph.connected_components(graph, directed=False)
        lowest = np.full(groups, count, dtype=np.int64)
        np.minimum.at(lowest, group, numbers)
        smallest[numbers] = lowest[group]
    return smallest


def present_objects(
    owner: NDArray[np.int32], objects: int
) -> tuple[slice | NDArray[np.int32], NDArray[np.int32] | NDArray[np.intp]]:
    """Which of so many objects to count in a band, and for each of its pixels its object's place among them."""
    if objects > owner.size:  # sorting the band's pixels is quicker than to go through all objects
        return np.unique(owner, return_inverse=True)
    return slice(None), owner
