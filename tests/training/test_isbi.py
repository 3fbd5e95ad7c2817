"""The errors of the ISBI 2012 challenge against cases computed by hand and against scikit-image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.metrics import adapted_rand_error

from training.data.datasets import IGNORE
from training.measures.isbi import ISBI_ERRORS, THRESHOLDS, isbi_counts, isbi_errors
from training.measures.warping import SIMPLE, Mismatches, classify_mismatches, warp

MASKS = arrays(np.bool_, (8, 9))
PROBABILITIES = arrays(np.float32, (8, 9), elements=st.sampled_from([np.float32(k) / 8 for k in range(9)]))
EIGHT = np.ones((3, 3))
RING = [(1, 2), (0, 2), (0, 1), (0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]


def certain(picture: list[str]) -> NDArray[np.float32]:
    """Probabilities 0 and 1 from rows of ``#`` (cell) and ``.``."""
    return np.array([[float(sign == "#") for sign in row] for row in picture], dtype=np.float32)


def cells(picture: list[str]) -> NDArray[np.int32]:
    return certain(picture).astype(np.int32)


def errors(found: list[str], reference: list[str]) -> dict[str, float]:
    return {name: value for name, (value, _) in isbi_errors([isbi_counts(certain(found), cells(reference))]).items()}


def remaining(reference: list[str], proposal: list[str]) -> Mismatches:
    wanted, found = certain(reference) > 0, certain(proposal) > 0
    return classify_mismatches(warp(wanted, found, np.ones(wanted.shape)), found)


def test_pixel_error_is_that_of_the_best_threshold() -> None:
    probability = np.array([[0.95, 0.55, 0.35, 0.55]], dtype=np.float32)
    reference = np.array([[1, 1, 0, 0]], dtype=np.int32)
    # above 0: 2 of 4 found; above 0.4: 2 of 3 found, F = 4 / 5; above 0.6: 1 of 2, F = 2 / 3
    error, threshold = isbi_errors([isbi_counts(probability, reference)])["pixel_error"]
    assert error == pytest.approx(1 / 5)
    assert threshold == 0.4


def test_rand_error_of_a_split_by_hand() -> None:
    # pairs: 6 + 1 in the reference; 1 + 0 + 1 found, all of them right
    assert errors(["##.#.##"], ["####.##"])["rand_error"] == pytest.approx(1 - 2 * 2 / (2 + 7))


def test_cells_are_not_joined_through_pixels_that_nobody_has_annotated() -> None:
    reference = cells(["###..###"] * 3)
    reference[:, 3:5] = IGNORE
    found = isbi_errors([isbi_counts(certain(["########"] * 3), reference)])
    assert {name: error for name, (error, _) in found.items()} == dict.fromkeys(ISBI_ERRORS, 0)


def test_rand_error_of_a_merge_by_hand() -> None:
    # pairs: 6 + 1 in the reference; 15 among its 6 cell pixels in the one found cell
    assert errors(["#######"], ["####.##"])["rand_error"] == pytest.approx(1 - 2 * 7 / (15 + 7))


def test_one_threshold_is_chosen_for_the_stack() -> None:
    reference = np.array([[1, 0]], dtype=np.int32)
    low, high = (np.array([[cell, membrane]], dtype=np.float32) for cell, membrane in ((0.25, 0.05), (0.95, 0.75)))
    alone = [isbi_errors([isbi_counts(probability, reference)])["pixel_error"] for probability in (low, high)]
    assert alone == [(0.0, 0.1), (0.0, 0.8)]
    error, threshold = isbi_errors([isbi_counts(probability, reference) for probability in (low, high)])["pixel_error"]
    assert error == pytest.approx(1 - 2 * 2 / (3 + 2))  # 2 of 3 found
    assert threshold == 0.1


@settings(max_examples=20)  # each compares two slices at ten thresholds
@given(PROBABILITIES, PROBABILITIES, MASKS, MASKS)
def test_rand_error_of_a_stack_is_that_of_scikit_image(
    first: NDArray[np.float32], second: NDArray[np.float32], one: NDArray[np.bool_], other: NDArray[np.bool_]
) -> None:
    stack = [(first, one), (second, other)]
    expected = []
    for threshold in THRESHOLDS:
        wanted, found = [], []
        for index, (probability, reference) in enumerate(stack):
            offset = 1000 * index  # slices share no label
            truth = ndimage.label(reference)[0]
            wanted.append(np.where(truth, truth + offset, 0))
            parts = ndimage.label(probability > np.float32(threshold))[0]
            alone = 100 + np.arange(parts.size).reshape(parts.shape)
            found.append(np.where(parts, parts, alone) + offset)
        with np.errstate(invalid="ignore"):  # 0 / 0 where no two pixels share a cell
            expected.append(adapted_rand_error(np.stack(wanted), np.stack(found))[0])
    counts = [isbi_counts(probability, reference.astype(np.int32)) for probability, reference in stack]
    error, threshold = isbi_errors(counts)["rand_error"]
    assert error == pytest.approx(np.nan_to_num(expected, nan=0.0).min(), abs=1e-9)
    assert threshold in THRESHOLDS


def test_unannotated_pixels_count_for_nothing() -> None:
    reference = cells(["####.##", "...#..."])
    probability = certain(["####.##", "###.###"])
    reference[1] = IGNORE
    assert {name: value for name, (value, _) in isbi_errors([isbi_counts(probability, reference)]).items()} == (
        dict.fromkeys(ISBI_ERRORS, 0.0)
    )


def test_an_empty_slice_has_no_error() -> None:
    assert errors(["...", "..."], ["...", "..."]) == dict.fromkeys(ISBI_ERRORS, 0.0)


@pytest.mark.parametrize("code", range(256))
def test_simple_pixels_have_one_part_of_each_kind_around_them(code: int) -> None:
    ring = np.zeros((3, 3), dtype=bool)
    for bit, place in enumerate(RING):
        ring[place] = code >> bit & 1
    parts, _ = ndimage.label(ring)
    touching = {parts[place] for place in RING[::2]} - {0}  # cells touch the pixel by edges
    ground = ~ring
    ground[1, 1] = False
    _, holes = ndimage.label(ground, EIGHT)
    assert bool(SIMPLE[code]) == (len(touching) == 1 and holes == 1)


def test_moved_borders_cost_nothing() -> None:
    assert remaining(["......", ".###..", ".###..", "......"], ["......", "..##..", "..####", "..####"]) == (
        Mismatches(0, 0, 0)
    )


def test_a_cell_elsewhere_is_one_lost_and_one_made() -> None:
    # the lost one shrinks to a pixel; of the new one no pixel can be made
    assert remaining(["##....", "##....", "......"], ["......", "....##", "....##"]) == Mismatches(0, 0, 1 + 4)


def test_a_lost_membrane_costs_its_length() -> None:
    assert remaining(["##.##"] * 5, ["#####"] * 5) == Mismatches(merges=5, splits=0, others=0)
    found = errors(["#####"] * 5, ["##.##"] * 5)
    assert found["warping_error"] == found["warping_error_all"] == pytest.approx(5 / 25)


def test_a_false_membrane_costs_the_last_pixel_that_holds_the_cell_together() -> None:
    assert remaining(["#####"] * 5, ["##.##"] * 5) == Mismatches(merges=0, splits=1, others=0)


def test_holes_and_single_cells_are_neither_splits_nor_merges() -> None:
    reference = ["######", "######", "######", "......", "......"]
    proposal = ["######", "#.####", "######", "......", "....#."]
    assert remaining(reference, proposal) == Mismatches(0, 0, 2)
    found = errors(proposal, reference)
    assert found["warping_error"] == 0
    assert found["warping_error_all"] == pytest.approx(2 / 30)


def test_an_answer_without_cells_has_no_split_and_no_merge() -> None:
    found = errors(["##.##", "##.##"], ["##.##", "##.##"]), errors([".....", "....."], ["##.##", "##.##"])
    assert [one["warping_error"] for one in found] == [0, 0]
    assert [one["warping_error_all"] for one in found] == [0, pytest.approx(2 / 10)]
    assert [one["rand_error"] for one in found] == [0, 1]


def test_a_ring_that_opens_is_no_split() -> None:
    ring = ["#####", "#...#", "#...#", "#####"]
    assert remaining(ring, ["##.##", "#...#", "#...#", "#####"]) == Mismatches(0, 0, 1)


@given(MASKS, MASKS, arrays(np.int8, (8, 9), elements=st.integers(0, 3)))
def test_a_warp_keeps_the_topology_and_leaves_no_simple_mismatch(
    reference: NDArray[np.bool_], proposal: NDArray[np.bool_], confidence: NDArray[np.int8]
) -> None:
    warped = warp(reference, proposal, confidence)
    before, after = np.pad(reference, 1), np.pad(warped, 1)
    assert ndimage.label(after)[1] == ndimage.label(before)[1]
    assert ndimage.label(~after, EIGHT)[1] == ndimage.label(~before, EIGHT)[1]
    assert not (warped != reference)[reference == proposal].any()
    for y, x in np.argwhere(warped != proposal):
        flipped = after.copy()
        flipped[y + 1, x + 1] ^= True
        around = flipped[y : y + 3, x : x + 3]
        code = sum(int(around[place]) << bit for bit, place in enumerate(RING))
        assert not SIMPLE[code]
    left = classify_mismatches(warped, proposal)
    assert left.merges + left.splits + left.others == np.count_nonzero(warped != proposal)


@pytest.mark.data
@pytest.mark.slow
def test_membranes_drawn_a_little_off_have_errors_of_the_published_order(data_root: Path) -> None:
    labels = np.asarray(Image.open(data_root / "em-isbi2012" / "labels" / "10.png")) > 0
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(labels.shape), 3)
    smooth = ndimage.gaussian_filter(labels.astype(np.float32), 2)
    probability = 1 / (1 + np.exp(-8 * (smooth - 0.5) - 1.2 * noise / noise.std()))
    found = isbi_errors([isbi_counts(probability.astype(np.float32), labels.astype(np.int32))])
    assert 0.00001 < found["warping_error"][0] < 0.001
    assert 0.005 < found["rand_error"][0] < 0.2
    assert 0.005 < found["pixel_error"][0] < 0.1
