"""Borders between neighbouring cells: the paper's weight map and the separating ridge (section 3, equation 2)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.datasets import IGNORE


def border_term(labels_yx: NDArray[np.int32], w0: float, sigma_px: float) -> NDArray[np.float32]:
    """Second term of equation 2, ``w0 exp(-(d1 + d2)^2 / (2 sigma^2))``, at every pixel.

    d1 and d2 are the Euclidean distances in pixels to the nearest and the second nearest cell (0 inside a cell).
    Each cell's distances are computed in a window around it alone, as far out as the term counts: beyond
    ``reach = sigma sqrt(2 ln 2^24)`` it is below 2^-24 w0, the rounding of float32. The cost grows with the windows'
    pixels, not with cells times pixels (test: ``test_border_term_equals_its_definition``).

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
    nearest = np.full(labels_yx.shape, np.inf, dtype=np.float32)
    second = nearest.copy()
    reach = math.ceil(sigma_px * math.sqrt(2 * math.log(2**24)))
    for number, window in enumerate(ndimage.find_objects(np.maximum(labels_yx, 0)), start=1):
        if window is None:
            continue
        around = tuple(
            slice(max(0, span.start - reach), min(size, span.stop + reach))
            for span, size in zip(window, labels_yx.shape, strict=True)
        )
        distance = ndimage.distance_transform_edt(labels_yx[around] != number).astype(np.float32)
        second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
        nearest[around] = np.minimum(nearest[around], distance)
    term: NDArray[np.float32] = np.float32(w0) * np.exp(-((nearest + second) ** 2) / np.float32(2 * sigma_px**2))
    return term


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
    """Pixels of objects within ``width_px`` (chessboard distance) of anything else; the image's edge is not."""
    size = 2 * width_px + 1
    highest = ndimage.maximum_filter(labels_yx, size=size, mode="nearest")
    lowest = ndimage.minimum_filter(labels_yx, size=size, mode="nearest")
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
        (y, x), :data:`training.datasets.IGNORE` kept.

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
