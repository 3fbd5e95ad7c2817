"""Objects that no net could find by a scheme: those without an interior, or with one in pieces."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from model.label_rule import LabelRule
from model.labels import instance_labels
from training.data.datasets import IGNORE
from training.data.interiors import Lost, count_lost
from training.data.weight_map import class_targets
from training.options import Targets

WATERSHED = LabelRule(method="watershed", foreground=(1, 2), seeds=(1,))


def targets(scheme: Literal["foreground", "boundary", "contact"], width_px: int = 1) -> Targets:
    names = ("background", "object") if scheme == "foreground" else ("background", "object", "third")
    return Targets(classes=names, scheme=scheme, boundary_px=width_px)


def strips(*widths: int) -> NDArray[np.int32]:
    """Return a mask of numbered strips 30 px long, three pixels apart."""
    mask = np.zeros((sum(widths) + 3 * len(widths) + 3, 36), dtype=np.int32)
    top = 3
    for number, width in enumerate(widths, start=1):
        mask[top : top + width, 3:33] = number
        top += width + 3
    return mask


def slanting() -> NDArray[np.int32]:
    """Return a mask of one object 3 px wide whose interior is a line of pixels that meet at corners."""
    mask = np.zeros((30, 30), dtype=np.int32)
    for place in range(3, 27):
        mask[place - 1 : place + 2, place - 1 : place + 2] = 7
    return mask


@pytest.mark.parametrize(
    ("mask", "scheme", "width", "rule", "expected"),
    [
        (strips(2, 3, 5), "boundary", 1, WATERSHED, 1),
        (strips(2, 3, 5), "boundary", 2, WATERSHED, 2),
        (strips(2, 3, 5), "contact", 2, WATERSHED, 0),
        (strips(2, 3, 5) * 700_000_000, "boundary", 1, WATERSHED, 1),
        (slanting(), "contact", 1, WATERSHED, 0),
        (strips(2, 3, 5), "foreground", 1, LabelRule(), 0),
    ],
)
def test_objects_without_an_interior_are_lost(
    mask: NDArray[np.int32],
    scheme: Literal["foreground", "boundary", "contact"],
    width: int,
    rule: LabelRule,
    expected: int,
) -> None:
    assert count_lost([mask], targets(scheme, width), rule).lost == expected


@pytest.mark.parametrize(("connectivity", "lost"), [(1, 1), (2, 0)])
def test_pieces_are_told_as_the_rule_tells_them(connectivity: Literal[1, 2], lost: int) -> None:
    rule = WATERSHED.model_copy(update={"connectivity": connectivity})
    assert count_lost([slanting()], targets("boundary"), rule) == Lost(lost, 1)


def test_a_speck_of_an_interior_loses_no_object_and_a_half_does() -> None:
    for waist, lost in ((22, 0), (16, 1)):
        mask = np.zeros((20, 40), dtype=np.int32)
        mask[5:15, 5:30] = 1
        mask[5:9, waist : waist + 2] = mask[11:15, waist : waist + 2] = 0  # two lobes, joined by a bar 2 px wide
        assert count_lost([mask], targets("boundary"), WATERSHED) == Lost(lost, 1)


def test_seeds_that_the_rule_takes_for_too_small_are_none() -> None:
    mask = strips(3, 9)  # interiors of 28 and of 196 px
    for least, lost in ((28, 0), (29, 1), (197, 2)):
        rule = WATERSHED.model_copy(update={"min_seed_px": least})
        assert count_lost([mask], targets("boundary"), rule) == Lost(lost, 2)


def test_what_nobody_has_annotated_is_no_object_and_no_end_of_one() -> None:
    mask = strips(2, 9)
    mask[:3], mask[5:8] = IGNORE, IGNORE
    assert count_lost([mask], targets("boundary"), WATERSHED) == Lost(0, 2), "the thin one may go on there"
    assert count_lost([mask * 0 + IGNORE], targets("boundary"), WATERSHED) == Lost(0, 0)
    assert Lost(0, 0).share == 0


@pytest.mark.parametrize("scheme", ["boundary", "contact"])
def test_the_rule_itself_finds_as_many_objects_in_the_targets(scheme: Literal["boundary", "contact"]) -> None:
    mask = strips(2, 3, 4, 6, 9, 2)
    classes = class_targets(mask, scheme)
    probabilities = np.stack([classes == number for number in range(3)]).astype(np.float32)
    found = np.unique(instance_labels(probabilities, WATERSHED)).size - 1
    lost, objects = count_lost([mask], targets(scheme), WATERSHED)
    assert found == objects - lost
