"""Diameters of the objects that a net learns: of whole objects alone, and only where the masks tell objects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.label_rule import LabelRule
from training.data.datasets import IGNORE, AnnotatedImage
from training.data.object_sizes import learnt_diameters
from training.options import Data
from training.recipe import Recipe

INSTANCES = Recipe(name="any", data=Data(kind="instances"))


def image(labels_yx: NDArray[Any]) -> AnnotatedImage:
    return AnnotatedImage("any", np.zeros((*labels_yx.shape, 1), dtype=np.uint8), labels_yx.astype(np.int32))


def squares(sides: list[int]) -> NDArray[np.int32]:
    """Numbered squares in a row, three pixels apart and away from the edge."""
    mask = np.zeros((max(sides) + 6, sum(sides) + 3 * len(sides) + 3), dtype=np.int32)
    left = 3
    for number, side in enumerate(sides, start=1):
        mask[3 : 3 + side, left : left + side] = number
        left += side + 3
    return mask


def diameter(side: int) -> float:
    return side * 2 / math.sqrt(math.pi)


def test_percentiles_are_those_of_the_objects_of_all_images() -> None:
    images = [image(squares([10] * 10)), image(squares([20] * 9)), image(np.zeros((9, 9)))]
    expected = tuple(round(diameter(side), 1) for side in (10, 10, 20))
    assert learnt_diameters(images, INSTANCES) == expected


def test_what_the_edge_cuts_and_what_nobody_has_looked_at_does_not_count() -> None:
    mask = squares([10] * 12)
    mask[:2, :30] = 13
    mask[-1, 10:] = IGNORE
    assert learnt_diameters([image(mask)], INSTANCES) == (round(diameter(10), 1),) * 3


def test_what_unannotated_pixels_cut_does_not_count() -> None:
    mask = squares([10] * 10 + [20] * 10)
    mask[21:] = IGNORE  # the larger squares end there, cut or not
    assert learnt_diameters([image(mask)], INSTANCES) == (round(diameter(10), 1),) * 3


def test_a_few_objects_tell_no_percentiles() -> None:
    assert learnt_diameters([image(squares([10] * 9))], INSTANCES) is None
    assert learnt_diameters([], INSTANCES) is None


@pytest.mark.parametrize(("foreground", "side"), [((1,), 8), ((1, 2), 12)])
def test_components_of_classes_are_objects_where_the_label_rule_takes_them(
    foreground: tuple[int, ...], side: int
) -> None:
    """Each object is 12 px wide, 2 px of its rim on each side of another class."""
    mask = np.where(squares([12] * 10) > 0, 2, 0)
    for left in range(3, 150, 15):
        mask[5:13, left + 2 : left + 10] = 1
    recipe = INSTANCES.model_copy(
        update={"data": Data(kind="semantic"), "labels": LabelRule(foreground=foreground, seeds=(1,))}
    )
    mask[0, 0] = 1  # a speck
    assert learnt_diameters([image(mask)], recipe) == (round(diameter(side), 1),) * 3


def test_a_watershed_parts_what_semantic_masks_join() -> None:
    rule = LabelRule(method="watershed")
    recipe = INSTANCES.model_copy(update={"data": Data(kind="semantic"), "labels": rule})
    assert learnt_diameters([image(squares([10] * 12) > 0)], recipe) is None
    assert learnt_diameters([image(squares([10] * 12))], INSTANCES.model_copy(update={"labels": rule})) is not None
