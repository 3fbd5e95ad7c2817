"""Whether a label rule can find objects by what a scheme leaves of them: an interior in one piece, or nearly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.label_rule import LabelRule
from model.wording import counted
from training.data.weight_map import class_targets, close_numbers
from training.options import Targets

MOST_LOST = 0.02
"""Share of the objects that a scheme may lose: slips of the hand are among them."""

_ONE_PIECE = 0.75  # specks that come off cost an object little


class Lost(NamedTuple):
    """How many of so many objects a net without a fault would not find."""

    lost: int
    objects: int

    @property
    def share(self) -> float:
        """Of all objects, 0 where there are none."""
        return self.lost / max(1, self.objects)

    def __str__(self) -> str:
        return f"{self.lost} of {counted(self.objects, 'object')}"


def count_lost(masks_yx: Iterable[NDArray[np.int32]], targets: Targets, rule: LabelRule) -> Lost:
    """Count the objects that have no interior, or one in pieces none of which holds three quarters of it.

    The interior is what the rule begins with: the seeds of a watershed, each of them ``min_seed_px`` large at least, or
    all that is foreground where the rule takes components.

    Parameters
    ----------
    masks_yx
        Object numbers, int32, 0 background; negative is not annotated.
    targets
        A scheme for numbered objects: ``foreground``, ``boundary`` or ``contact``.
    rule
        Label rule for its classes.

    """
    watershed = rule.method == "watershed"
    channels, least_px = (rule.seeds, rule.min_seed_px) if watershed else (rule.foreground, 0)
    structure = ndimage.generate_binary_structure(2, rule.connectivity)
    lost = objects = 0
    for mask in masks_yx:
        cells = close_numbers(mask)
        inner = np.isin(class_targets(cells, targets.scheme, targets.boundary_px), channels)
        pieces, _ = ndimage.label(inner, structure)
        areas = np.bincount(pieces.ravel())
        owner = np.zeros(areas.size, dtype=np.int64)
        owner[pieces.ravel()] = cells.ravel()
        areas[(areas < least_px) | (owner <= 0)] = 0
        area_of = np.bincount(np.maximum(cells, 0).ravel())
        largest = np.zeros(area_of.size, dtype=np.int64)
        np.maximum.at(largest, np.maximum(owner, 0), areas)
        whole = np.bincount(np.maximum(owner, 0), areas, minlength=area_of.size)
        found = (largest > 0) & (largest >= _ONE_PIECE * whole)
        there = area_of > 0
        there[0] = False
        lost += int(np.count_nonzero(there & ~found))
        objects += int(np.count_nonzero(there))
    return Lost(lost, objects)
