"""The three errors of the ISBI 2012 EM segmentation challenge, as its first leader board gave them.

The challenge asked for the probability of "cell" (against membrane) of every pixel of a stack, thresholded it at 10
levels, and took for each error the best level. Sources: the challenge's page (brainiac2.mit.edu/isbi_challenge), its
scorer, Trainable Segmentation of Fiji (``PixelError``, ``RandError``, ``WarpingError`` in package
``trainableSegmentation.metrics``), and Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142, who later replaced
these errors by V_Rand and V_Info after border thinning; published rows beside the U-Net's are of the first kind.

* *Pixel error*: 1 - F of the pixels of class cell.
* *Rand error*: 1 - F of the pairs of pixels that lie in one cell, over pixels that are cell in the reference
  (foreground-restricted). Cells are connected components by edges. A cell pixel that was found to be membrane is paired
  with none. The same as :func:`skimage.metrics.adapted_rand_error` where each such pixel has a label of its own (test:
  ``test_rand_error_of_a_stack_is_that_of_scikit_image``).
* *Warping error*: the reference is warped towards the proposal (:mod:`training.measures.warping`); the pixels that
  remain as splits and merges, over all pixels ("minimum splits and mergers warping error", the published one).
  ``warping_error_all`` also counts those that remain as holes and cells made or lost (Jain et al. 2010). Read them
  together: the published error does not see lost cells, and an answer of membrane alone has none (test:
  ``test_an_answer_without_cells_has_no_split_and_no_merge``).

Counts are summed over the slices of a stack before F or the error is taken, and one level is chosen for the stack, one
for each error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import contingency_table

from training.data.datasets import IGNORE
from training.measures.warping import classify_mismatches, warp

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Cell where the probability is above one of these."""

ISBI_ERRORS = ("warping_error", "warping_error_all", "rand_error", "pixel_error")


@dataclass(frozen=True, slots=True)
class LevelCounts:
    """What one slice adds to the stack's sums at one threshold.

    Parameters
    ----------
    both_px, found_px
        Pixels that are cell on both sides, and in the proposal.
    both_pairs, found_pairs
        Pairs of pixels, cell in the reference, that lie in one cell on both sides, and in the proposal.
    split_or_merged_px, warped_px
        Pixels that remain after the warp as splits and merges, and all that remain.

    """

    both_px: int
    found_px: int
    both_pairs: int
    found_pairs: int
    split_or_merged_px: int
    warped_px: int


@dataclass(frozen=True, slots=True)
class IsbiCounts:
    """What one slice adds to the stack's sums.

    Parameters
    ----------
    known_px, cell_px, cell_pairs
        Annotated pixels, those that are cell, and the pairs of these that lie in one cell.
    levels
        One for each of :data:`THRESHOLDS`.

    """

    known_px: int
    cell_px: int
    cell_pairs: int
    levels: tuple[LevelCounts, ...]


def isbi_counts(probability_yx: NDArray[np.float32], reference_yx: NDArray[Any]) -> IsbiCounts:
    """Count one slice at every threshold.

    Parameters
    ----------
    probability_yx
        Probability of cell (y, x), 0 to 1.
    reference_yx
        0 membrane, above 0 cell (y, x); cells are its connected components, so touching cells must be parted by
        membrane. Pixels marked :data:`.datasets.IGNORE` are membrane on both sides, so that no cell is joined
        through them, and count for nothing.

    """
    known, cell = reference_yx != IGNORE, reference_yx > 0
    cells, _ = ndimage.label(cell)
    levels = []
    for threshold in THRESHOLDS:
        found = probability_yx > np.float32(threshold)
        proposal = found & known
        both_pairs, found_pairs = _pairs(cells, ndimage.label(proposal)[0])
        warped = warp(cell, proposal, np.abs(probability_yx - np.float32(threshold)))
        left = classify_mismatches(warped, proposal)
        levels.append(
            LevelCounts(
                both_px=int(np.count_nonzero(proposal & cell)),
                found_px=int(np.count_nonzero(proposal)),
                both_pairs=both_pairs,
                found_pairs=found_pairs,
                split_or_merged_px=left.splits + left.merges,
                warped_px=left.splits + left.merges + left.others,
            )
        )
    areas = np.bincount(cells.ravel())[1:]
    return IsbiCounts(int(np.count_nonzero(known)), int(areas.sum()), _count_pairs(areas), tuple(levels))


def isbi_errors(slices: Sequence[IsbiCounts]) -> dict[str, tuple[float, float]]:
    """Errors of a stack, each of :data:`ISBI_ERRORS` with its best threshold.

    Parameters
    ----------
    slices
        Counts of the stack's slices, one or more.

    """
    known, cell, pairs = (sum(getattr(one, name) for one in slices) for name in ("known_px", "cell_px", "cell_pairs"))
    errors: dict[str, list[float]] = {name: [] for name in ISBI_ERRORS}
    for level in zip(*(one.levels for one in slices), strict=True):
        errors["warping_error"].append(sum(counts.split_or_merged_px for counts in level) / max(1, known))
        errors["warping_error_all"].append(sum(counts.warped_px for counts in level) / max(1, known))
        both, found = sum(counts.both_pairs for counts in level), sum(counts.found_pairs for counts in level)
        errors["rand_error"].append(1 - _f_score(both, found, pairs))
        both, found = sum(counts.both_px for counts in level), sum(counts.found_px for counts in level)
        errors["pixel_error"].append(1 - _f_score(both, found, cell))
    return {name: min(zip(values, THRESHOLDS, strict=True)) for name, values in errors.items()}


def _pairs(cells_yx: NDArray[np.int32], found_yx: NDArray[np.int32]) -> tuple[int, int]:
    """Pairs of the reference's cell pixels in one cell on both sides, and in one found cell."""
    table = contingency_table(cells_yx, found_yx, ignore_labels=(0,))[:, 1:]  # found membrane pairs with none
    return _count_pairs(table.data), _count_pairs(np.asarray(table.sum(axis=0)))


def _count_pairs(sizes: NDArray[Any]) -> int:
    """Pairs within groups of these sizes."""
    whole = sizes.astype(np.int64)
    return int((whole * (whole - 1) // 2).sum())


def _f_score(both: int, found: int, wanted: int) -> float:
    """Harmonic mean of precision and recall; 1 where there is nothing to find and nothing was found."""
    return 2 * both / (found + wanted) if found + wanted else 1.0
