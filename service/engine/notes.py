"""What a person should know of a result, for its receipt."""

from __future__ import annotations

from collections.abc import Sequence

from model.flooding import MARGINS
from model.labels import Objects
from model.spec import ModelSpec

MOST_COVERED = 0.9
"""Share of a plane: beyond it the ground has more often been taken for objects than they grow so densely."""


def object_notes(planes: Sequence[Objects], spec: ModelSpec) -> tuple[str, ...]:
    """Note what is doubtful about the objects of each plane."""
    doubtful = (
        f"{objects.uncertain} pixels, over {MARGINS[-1]} px from what settles their label, done in parts"
        for objects in planes
        if objects.uncertain
    )
    return (*doubtful, *_covered_note([objects.covered for objects in planes], spec))


def _covered_note(covered: Sequence[float], spec: ModelSpec) -> tuple[str, ...]:
    full = [share for share in covered if share > MOST_COVERED]
    if not full:
        return ()
    where = f", or more, in {len(full)} of {len(covered)} planes" if len(covered) > 1 else ""
    return (
        f"{100 * min(full):.1f} % of the pixels are objects{where}, over {100 * MOST_COVERED:.0f} %: is the contrast "
        f"inverted, or the image none of those that {spec.reference} is made for? Its card says which those are",
    )
