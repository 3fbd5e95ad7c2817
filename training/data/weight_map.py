"""Borders between neighbouring cells: the paper's weight map and the separating ridge (section 3, equation 2)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.datasets import IGNORE

_Window = tuple[slice, slice]


def border_term(labels_yx: NDArray[np.int32], w0: float, sigma_px: float) -> NDArray[np.float32]:
    """Second term of equation 2, ``w0 exp(-(d1 + d2)^2 / (2 sigma^2))``, at every pixel.

    d1 and d2 are the Euclidean distances in pixels to the nearest and the second nearest cell (0 inside a cell).
    Small cells are measured one by one, each in a window as far around it as the term counts: beyond
    ``reach = sigma sqrt(2 ln 2^24)`` it is below 2^-24 w0, the rounding of float32. Cells whose windows would cover the
    image again and again are measured all at once (:func:`_two_nearest_at_once`). So n cells cost at most as much as
    2 log2(n) of them would on the whole image, and most often far less; the result is that of the definition (tests:
    ``test_border_term_equals_its_definition``, ``test_large_cells_cost_the_logarithm_of_their_number``; figures:
    ``python -m benchmarks.weight_map``).

    Parameters
    ----------
    labels_yx
        Object numbers, int32, 0 background; negative pixels are no cell.
    w0
        Height of the term.
    sigma_px
        Width in pixels.

    Returns
    -------
    NDArray[np.float32]
        (y, x), 0 to ``w0``.

    """
    reach = math.ceil(sigma_px * math.sqrt(2 * math.log(2**24)))
    cells = close_numbers(np.maximum(labels_yx, 0))
    windows = [
        (number, _around(window, reach, cells.shape))
        for number, window in enumerate(ndimage.find_objects(cells), start=1)
        if window is not None
    ]
    one_by_one, at_once = _cheapest_split(windows, cells.size)
    nearest, second = _two_nearest_at_once(cells, [number for number, _ in at_once])
    for number, window in one_by_one:
        distance = ndimage.distance_transform_edt(cells[window] != number).astype(np.float32)
        second[window] = np.minimum(second[window], np.maximum(nearest[window], distance))
        nearest[window] = np.minimum(nearest[window], distance)
    term: NDArray[np.float32] = np.float32(w0) * np.exp(-((nearest + second) ** 2) / np.float32(2 * sigma_px**2))
    return term


def close_numbers(cells_yx: NDArray[np.int32]) -> NDArray[np.int32]:
    """Objects numbered anew in their order where a table by number would be longer than the image; 0 and below stay."""
    if cells_yx.max(initial=0) <= cells_yx.size:
        return cells_yx
    numbers = np.union1d(np.maximum(cells_yx, 0), 0)
    return np.where(cells_yx > 0, np.searchsorted(numbers, cells_yx), cells_yx).astype(np.int32)


def _around(window: _Window, reach: int, size_yx: tuple[int, ...]) -> _Window:
    """Window grown by ``reach`` to all sides, within the image."""
    rows, columns = (
        slice(max(0, span.start - reach), min(size, span.stop + reach))
        for span, size in zip(window, size_yx, strict=True)
    )
    return rows, columns


def _cheapest_split(
    windows: list[tuple[int, _Window]], image_px: int
) -> tuple[list[tuple[int, _Window]], list[tuple[int, _Window]]]:
    """Cells to measure one by one, and those to measure at once: the large ones, where it saves pixels."""

    def pixels(entry: tuple[int, _Window]) -> int:
        rows, columns = entry[1]  # slices of whole numbers
        return int((rows.stop - rows.start) * (columns.stop - columns.start))

    ascending = sorted(windows, key=pixels)
    alone = np.concatenate([[0], np.cumsum([pixels(entry) for entry in ascending], dtype=np.int64)])
    together = [2 * image_px * _bits(count) for count in range(len(windows), -1, -1)]
    small = int(np.argmin(alone + together))
    return ascending[:small], ascending[small:]


def _bits(count: int) -> int:
    """Binary digits that tell ``count`` cells apart."""
    return max(1, (count - 1).bit_length()) if count else 0


def _two_nearest_at_once(
    cells_yx: NDArray[np.int32], numbers: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distances to the nearest and the second nearest of some cells, in two distance transforms a binary digit.

    A digit parts the cells in two groups; one holds the nearest cell, so that the distance to the other one is no
    shorter than that to the second nearest. Two cells differ in a digit at least: there the other group holds the
    second nearest, and the distance is its own. So d1 is the smaller of the two groups' distances, at any digit, and d2
    the smallest, over all digits, of the larger one.
    """
    nearest = np.full(cells_yx.shape, np.inf, dtype=np.float32)
    second = nearest.copy()
    index = np.full(int(cells_yx.max(initial=0)) + 1, -1, dtype=np.int32)
    index[numbers] = np.arange(len(numbers), dtype=np.int32)
    index_yx = index[cells_yx]
    for digit in range(_bits(len(numbers))):
        zero, one = (_distance((index_yx >= 0) & ((index_yx >> digit) & 1 == value)) for value in (0, 1))
        np.minimum(second, np.maximum(zero, one), out=second)
        np.minimum(nearest, np.minimum(zero, one), out=nearest)
    return nearest, second


def _distance(there: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance to the nearest pixel that is ``there``; infinite where there is none."""
    if not there.any():
        return np.full(there.shape, np.inf, dtype=np.float32)
    distance: NDArray[np.float32] = ndimage.distance_transform_edt(~there).astype(np.float32)
    return distance


def separating_ridge(labels_yx: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Pixels to turn into background so that no two objects touch, not even at a corner; one pixel wide.

    Of two neighbouring pixels of different objects the upper or left one goes (test:
    ``test_ridge_parts_all_touching_objects``).
    """
    parted = labels_yx.copy()
    # edges first: what they part needs no second ridge at its corners
    for forward_y, forward_x in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here, there = _shifted(parted, forward_y, forward_x)
        here[(here != there) & (here > 0) & (there > 0)] = 0
    ridge: NDArray[np.bool_] = parted != labels_yx
    return ridge


def _shifted(array_yx: NDArray[Any], dy: int, dx: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Views of every pixel that has a neighbour (dy, dx) away, and of those neighbours."""
    height, width = array_yx.shape
    left, right = max(0, -dx), width - max(0, dx)
    return array_yx[: height - dy, left:right], array_yx[dy:, left + dx : right + dx]


def inner_boundary(labels_yx: NDArray[np.int32], width_px: int) -> NDArray[np.bool_]:
    """Pixels of objects within ``width_px`` (chessboard distance) of anything else.

    The image's edge is nothing else, and neither are pixels that nobody has annotated: the object may go on there.
    """
    size, nobody = 2 * width_px + 1, np.iinfo(np.int32).max
    highest = ndimage.maximum_filter(labels_yx, size=size, mode="nearest")
    lowest = ndimage.minimum_filter(np.where(labels_yx == IGNORE, nobody, labels_yx), size=size, mode="nearest")
    boundary: NDArray[np.bool_] = (labels_yx > 0) & (highest != lowest)
    return boundary


def contact(labels_yx: NDArray[np.int32], width_px: int) -> NDArray[np.bool_]:
    """Pixels of objects within ``width_px`` (chessboard distance) of another object."""
    size = 2 * width_px + 1
    nobody = np.iinfo(np.int32).max
    highest = ndimage.maximum_filter(labels_yx, size=size, mode="nearest")
    lowest = ndimage.minimum_filter(np.where(labels_yx > 0, labels_yx, nobody), size=size, mode="nearest")
    touching: NDArray[np.bool_] = (labels_yx > 0) & (highest != lowest)
    return touching


def class_targets(labels_yx: NDArray[np.int32], scheme: str, boundary_px: int = 1) -> NDArray[np.int64]:
    """Class of each pixel under a scheme of :class:`training.recipe.Targets`.

    Parameters
    ----------
    labels_yx
        Class indexes (``classes``) or object numbers (all others), int32.
    scheme
        ``foreground``, ``boundary``, ``contact`` or ``classes``.
    boundary_px
        Width of the boundary or contact class.

    Returns
    -------
    NDArray[np.int64]
        (y, x), :data:`training.data.datasets.IGNORE` kept.

    """
    if scheme == "classes":
        return labels_yx.astype(np.int64)
    targets = (labels_yx > 0).astype(np.int64)
    if scheme == "foreground":
        targets[separating_ridge(labels_yx)] = 0
    else:
        third = contact if scheme == "contact" else inner_boundary
        targets[third(labels_yx, boundary_px)] = 2
    targets[labels_yx == IGNORE] = IGNORE
    return targets
