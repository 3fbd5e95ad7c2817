"""Figures against cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from training.data.datasets import IGNORE
from training.measures.foreground import foreground_overlap
from training.measures.objects import Matches, match_objects
from training.measures.seg import seg_jaccards

LABELS = arrays(np.int32, (8, 9), elements=st.integers(0, 5))


def test_iou_and_dice_of_two_of_four_pixels() -> None:
    overlap = foreground_overlap(np.array([[1, 1, 1, 0]]), np.array([[0, 1, 1, 1]]))
    assert overlap.iou == pytest.approx(2 / 4)
    assert overlap.dice == pytest.approx(4 / 6)


def test_two_empty_masks_agree() -> None:
    nothing = np.zeros((3, 3), dtype=np.int32)
    assert foreground_overlap(nothing, nothing).iou == 1
    assert match_objects(nothing, nothing)[0].ap == 1


def test_unannotated_pixels_count_on_neither_side() -> None:
    reference = np.array([[1, 1, IGNORE, IGNORE, 0]])
    found = np.array([[7, 7, 7, 9, 0]])
    assert foreground_overlap(found, reference).iou == 1
    assert match_objects(found, reference, [0.9])[0] == Matches(1, 0, 0)


def test_objects_by_hand() -> None:
    # object 1: 8 of 10 px found (IoU 0.8); object 2: found as two halves (0.5 each); one object from nothing
    reference = np.array([[1] * 10 + [2] * 4 + [0] * 4])
    found = np.array([[5] * 8 + [0] * 2 + [6] * 2 + [7] * 2 + [0] * 2 + [8] * 2])
    at_half, at_seven, at_nine = match_objects(found, reference, [0.5, 0.7, 0.9])
    assert at_half == Matches(true_positives=2, false_positives=2, false_negatives=0)
    assert at_half.ap == pytest.approx(2 / 4)
    assert at_seven == Matches(1, 3, 1)
    assert at_nine == Matches(0, 4, 2)


@given(LABELS)
def test_an_object_map_matches_itself(labels_yx: NDArray[np.int32]) -> None:
    assert [matches.ap for matches in match_objects(labels_yx, labels_yx, [0.5, 1.0])] == [1.0, 1.0]


@given(LABELS, LABELS, st.permutations(range(1, 6)))
def test_numbers_of_objects_do_not_matter(
    found_yx: NDArray[np.int32], reference_yx: NDArray[np.int32], order: list[int]
) -> None:
    renumbered = np.array([0, *order], dtype=np.int32)[found_yx]
    assert match_objects(renumbered, reference_yx) == match_objects(found_yx, reference_yx)


def test_numbers_far_above_the_size_of_the_image_take_no_tables_of_their_length() -> None:
    # a table by number would take 16 GB
    reference = np.array([[1] * 10 + [2] * 4 + [0] * 2 + [4] * 2 + [IGNORE]]) * np.int64(500_000_000)
    reference[0, -1] = IGNORE
    found = np.array([[5] * 8 + [0] * 2 + [6] * 2 + [7] * 2 + [0] * 2 + [8] * 2 + [9]]) * np.int64(200_000_000)
    assert match_objects(found, reference, [0.5, 0.7]) == [Matches(3, 1, 0), Matches(2, 2, 1)]
    assert seg_jaccards(found, reference).tolist() == pytest.approx([0.8, 0.0, 1.0])


@given(LABELS, LABELS)
def test_counts_add_up(found_yx: NDArray[np.int32], reference_yx: NDArray[np.int32]) -> None:
    for matches in match_objects(found_yx, reference_yx):
        assert matches.true_positives + matches.false_positives == np.unique(found_yx[found_yx > 0]).size
        assert matches.true_positives + matches.false_negatives == np.unique(reference_yx[reference_yx > 0]).size


def test_seg_by_hand() -> None:
    # 8 of 10 px found: 0.8; two halves, none more than half: 0; all of 2 px in an object of 5 px: 0.4; missed: 0
    reference = np.array([[1] * 10 + [2] * 4 + [4] * 2 + [0] * 3 + [9] * 2])
    found = np.array([[5] * 8 + [0] * 2 + [6] * 2 + [7] * 2 + [8] * 5 + [0] * 2])
    assert seg_jaccards(found, reference).tolist() == pytest.approx([0.8, 0.0, 0.4, 0.0])


def test_seg_ignores_what_was_found_without_a_partner() -> None:
    reference = np.array([[1, 1, 0, 0, 0]])
    assert seg_jaccards(np.array([[1, 1, 0, 2, 3]]), reference).tolist() == [1.0]
    assert seg_jaccards(np.array([[1, 1, 0, 2, 3]]), np.zeros((1, 5), dtype=np.int32)).size == 0


def test_unannotated_pixels_are_no_object_of_seg_and_shrink_none() -> None:
    reference = np.array([[1, 1, IGNORE, IGNORE, 0]])
    assert seg_jaccards(np.array([[1, 1, 0, 0, 0]]), reference).tolist() == [1.0]
    assert seg_jaccards(np.array([[1, 1, 1, 1, 0]]), reference).tolist() == [0.5]


@given(LABELS, LABELS)
def test_seg_is_the_best_overlap_where_it_is_more_than_half(
    found_yx: NDArray[np.int32], reference_yx: NDArray[np.int32]
) -> None:
    expected = []
    for number in np.unique(reference_yx[reference_yx > 0]):
        wanted = reference_yx == number
        jaccards = [0.0]
        for other in np.unique(found_yx[found_yx > 0]):
            found = found_yx == other
            if (found & wanted).sum() > wanted.sum() / 2:
                jaccards.append((found & wanted).sum() / (found | wanted).sum())
        expected.append(max(jaccards))
    assert seg_jaccards(found_yx, reference_yx).tolist() == pytest.approx(expected)
