"""Labels: masks, instances by either rule, areas, numbering beyond 16 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from skimage.measure import label as skimage_label

from model.label_rule import LabelRule
from model.labels import class_mask, foreground_probability, instance_labels


def two_classes(foreground_yx: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.stack([1 - foreground_yx, foreground_yx]).astype(np.float32)


@given(
    binary=hnp.arrays(np.bool_, st.tuples(st.integers(1, 30), st.integers(1, 30))),
    connectivity=st.sampled_from([1, 2]),
)
def test_components_are_those_of_skimage(binary: NDArray[np.bool_], connectivity: int) -> None:
    rule = LabelRule(connectivity=connectivity)
    labels = instance_labels(two_classes(binary.astype(np.float32)), rule)
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, skimage_label(binary, connectivity=connectivity))


@given(binary=hnp.arrays(np.bool_, (20, 20)), min_area=st.integers(0, 20))
def test_small_objects_go_and_numbers_close_up(binary: NDArray[np.bool_], min_area: int) -> None:
    labels = instance_labels(two_classes(binary.astype(np.float32)), LabelRule(min_area_px=min_area))
    areas = np.bincount(labels.ravel())
    assert (areas[1:] >= max(1, min_area)).all()
    whole = skimage_label(binary, connectivity=1)
    kept = [int(np.count_nonzero(whole == number)) for number in range(1, whole.max() + 1)]
    assert list(areas[1:]) == [area for area in kept if area >= min_area]


def test_more_than_65535_objects_become_32_bit() -> None:
    foreground = np.zeros((600, 600), dtype=np.float32)
    foreground[::2, ::2] = 1
    assert instance_labels(two_classes(foreground), LabelRule()).max() == 90_000
    assert instance_labels(two_classes(foreground), LabelRule()).dtype == np.uint32


def test_watershed_parts_touching_objects_along_falling_probability() -> None:
    foreground = np.zeros((20, 40), dtype=np.float32)
    foreground[5:15, 3:37] = 0.7
    foreground[7:13, 5:17] = foreground[7:13, 23:35] = 0.99
    rule = LabelRule(method="watershed", seed_threshold=0.9)
    labels = instance_labels(two_classes(foreground), rule)
    assert labels.max() == 2
    assert np.array_equal(labels > 0, foreground > 0.5)
    assert set(np.unique(labels[:, :18])) == {0, 1}
    assert set(np.unique(labels[:, 22:])) == {0, 2}


def test_a_seed_that_is_too_small_is_grown_over_by_another() -> None:
    foreground = np.zeros((20, 40), dtype=np.float32)
    foreground[5:15, 3:37] = 0.7
    foreground[7:13, 5:17] = foreground[8:10, 30:34] = 0.99  # 72 and 8 px
    found = [
        int(instance_labels(two_classes(foreground), rule).max())
        for rule in (
            LabelRule(method="watershed", seed_threshold=0.9, min_seed_px=least) for least in (0, 8, 9, 72, 73)
        )
    ]
    assert found == [2, 2, 1, 1, 0]


@pytest.mark.parametrize(("small", "counts"), [(8, [12, 12, 11, 11]), (5, [9, 9, 8, 3])])
def test_a_speck_in_an_object_is_no_seed_but_small_objects_beside_a_large_one_are(
    small: int, counts: list[int]
) -> None:
    """As long as the small ones hold the median of the pixels."""
    foreground = np.zeros((60, 220), dtype=np.float32)
    foreground[:40, :40] = 0.8
    foreground[5:25, 5:25] = foreground[30:33, 30:33] = 0.95  # a seed of 400 px and one of 9 in the same object
    foreground[10:13, 50:53] = 0.95  # as small a one, alone
    foreground[45:55] = 0.8  # a row of objects that touch: some of 36 px, and one of 250
    for x in range(0, 20 * small, 20):
        foreground[47:53, x : x + 6] = 0.95
    foreground[46:51, 165:215] = 0.95
    rules = [LabelRule(method="watershed", seed_threshold=0.9, min_seed_share=share) for share in (0, 0.02, 0.1, 0.2)]
    assert [int(instance_labels(two_classes(foreground), rule).max()) for rule in rules] == counts


def test_objects_of_low_probability_are_dropped() -> None:
    foreground = np.zeros((10, 30), dtype=np.float32)
    foreground[2:8, 2:8], foreground[2:8, 12:18], foreground[2:8, 22:28] = 0.6, 0.75, 0.9
    for least, count in ((0.0, 3), (0.6, 3), (0.7, 2), (0.75, 2), (0.8, 1), (0.95, 0)):
        assert instance_labels(two_classes(foreground), LabelRule(min_score=least)).max() == count


def test_boundary_class_counts_as_object_but_not_as_seed() -> None:
    probabilities = np.zeros((3, 9, 19), dtype=np.float32)
    probabilities[0] = 1
    probabilities[:, 1:8, 1:18] = np.array([0, 0.1, 0.9], dtype=np.float32)[:, None, None]
    probabilities[:, 2:7, 2:9] = probabilities[:, 2:7, 10:17] = np.array([0, 0.9, 0.1])[:, None, None]
    rule = LabelRule(method="watershed", foreground=(1, 2), seeds=(1,))
    labels = instance_labels(probabilities, rule)
    assert labels.max() == 2
    assert np.count_nonzero(labels) == 7 * 17
    assert np.allclose(foreground_probability(probabilities, rule)[1:8, 1:18], 1)


def test_holes_are_filled_only_inside_one_object() -> None:
    foreground = np.zeros((12, 12), dtype=np.float32)
    foreground[2:9, 2:9] = 1
    foreground[4:6, 4:6] = 0
    foreground[0, 0] = 1
    filled = instance_labels(two_classes(foreground), LabelRule(fill_holes=True))
    assert np.count_nonzero(filled == 2) == 49
    open_labels = instance_labels(two_classes(foreground), LabelRule())
    assert np.count_nonzero(open_labels == 2) == 45


def test_two_class_mask_obeys_the_threshold_strictly() -> None:
    probabilities = two_classes(np.array([[0.5, 0.51, 0.2]], dtype=np.float32))
    assert class_mask(probabilities, LabelRule()).tolist() == [[0, 1, 0]]
    assert class_mask(probabilities, LabelRule(), 0.1).tolist() == [[1, 1, 1]]
    assert class_mask(probabilities, LabelRule(threshold=0.1)).tolist() == [[1, 1, 1]]


def test_many_class_mask_is_the_likeliest_class() -> None:
    probabilities = np.array([[[0.5, 0.3]], [[0.3, 0.3]], [[0.2, 0.4]]], dtype=np.float32)
    rule = LabelRule(foreground=(1, 2), seeds=(1, 2))
    assert class_mask(probabilities, rule).tolist() == [[0, 2]]
    assert class_mask(probabilities, rule, 0.4).tolist() == [[1, 2]]
    assert rule.mask_classes(["background", "a", "b"]) == ("background", "a", "b")


def test_a_boundary_class_is_part_of_the_object_in_a_mask() -> None:
    probabilities = np.array([[[0.6, 0.4]], [[0.2, 0.3]], [[0.2, 0.3]]], dtype=np.float32)
    rule = LabelRule(foreground=(1, 2), seeds=(1,), object_name="nucleus")
    assert class_mask(probabilities, rule).tolist() == [[0, 1]]
    assert rule.mask_classes(["background", "interior", "boundary"]) == ("background", "nucleus")


def test_one_channel_is_the_foreground_itself() -> None:
    rule = LabelRule(foreground=(0,), seeds=(0,))
    assert class_mask(np.array([[[0.2, 0.8]]], dtype=np.float32), rule).tolist() == [[0, 1]]
    assert rule.mask_classes(["cell"]) == ("background", "cell")


@pytest.mark.parametrize("values", [{"threshold": 0.0}, {"threshold": 1.0}, {"min_area_px": -1}, {"method": "magic"}])
def test_impossible_rules_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        LabelRule.model_validate(values)
