"""The weight map's border term, the ridge, the boundary class."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from training.datasets import IGNORE
from training.weight_map import border_term, class_targets, inner_boundary, separating_ridge

LABELS = arrays(np.int32, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 4))


def by_definition(labels_yx: NDArray[np.int32], w0: float, sigma_px: float) -> NDArray[np.float64]:
    """Equation 2, second term: the distances to every cell, sorted."""
    numbers = [number for number in np.unique(labels_yx) if number > 0]
    if len(numbers) < 2:
        return np.zeros(labels_yx.shape)
    distances = np.sort([ndimage.distance_transform_edt(labels_yx != number) for number in numbers], axis=0)
    term: NDArray[np.float64] = w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma_px**2))
    return term


@settings(deadline=None)
@given(LABELS, st.floats(0.3, 6.0))
def test_border_term_equals_its_definition(labels_yx: NDArray[np.int32], sigma_px: float) -> None:
    expected = by_definition(labels_yx, 10.0, sigma_px)
    np.testing.assert_allclose(border_term(labels_yx, 10.0, sigma_px), expected, rtol=1e-4, atol=2e-6)


def test_between_two_cells_the_term_follows_the_gap() -> None:
    labels = np.zeros((1, 9), dtype=np.int32)
    labels[0, :2], labels[0, 7:] = 1, 2
    term = border_term(labels, 10.0, 5.0)
    assert term[0, 4] == pytest.approx(10 * np.exp(-(6.0**2) / 50))  # 3 px to either cell


def test_unannotated_pixels_are_no_cell() -> None:
    labels = np.zeros((5, 9), dtype=np.int32)
    labels[:, 0], labels[:, 8] = 1, IGNORE
    assert not border_term(labels, 10.0, 5.0).any()


def test_cost_does_not_grow_with_cells_times_pixels() -> None:
    def seconds(cells_per_side: int) -> float:
        labels = np.zeros((cells_per_side * 24,) * 2, dtype=np.int32)
        for row in range(cells_per_side):
            for column in range(cells_per_side):
                number = row * cells_per_side + column + 1
                labels[row * 24 + 4 : row * 24 + 20, column * 24 + 4 : column * 24 + 20] = number
        began = time.process_time()
        border_term(labels, 10.0, 3.0)
        return time.process_time() - began

    seconds(4)
    # 16 times the cells on 16 times the pixels: 256 times the cost by the definition, 16 times here
    assert seconds(24) < 100 * max(seconds(6), 0.01)


@given(LABELS)
def test_ridge_parts_all_touching_objects(labels_yx: NDArray[np.int32]) -> None:
    parted = np.where(separating_ridge(labels_yx), 0, labels_yx)
    components, count = ndimage.label(parted > 0, np.ones((3, 3)))
    for component in range(1, count + 1):
        assert np.unique(parted[components == component]).size == 1


@given(LABELS)
def test_ridge_takes_only_pixels_that_touch_another_object(labels_yx: NDArray[np.int32]) -> None:
    padded = np.pad(labels_yx, 1)
    for y, x in np.argwhere(separating_ridge(labels_yx)):
        around = padded[y : y + 3, x : x + 3]
        assert np.any((around > 0) & (around != labels_yx[y, x]))


def test_ridge_between_two_halves_is_one_pixel_wide() -> None:
    labels = np.repeat(np.array([[1, 1, 1, 2, 2, 2]], dtype=np.int32), 4, axis=0)
    assert separating_ridge(labels).sum(axis=1).tolist() == [1, 1, 1, 1]


def test_boundary_is_the_outermost_pixel_of_each_object_but_not_the_edge_of_the_image() -> None:
    labels = np.zeros((5, 7), dtype=np.int32)
    labels[:, :3], labels[1:4, 3:6] = 1, 2
    expected = np.array(
        [
            [0, 0, 1, 0, 0, 0, 0],
            [0, 0, 1, 1, 1, 1, 0],
            [0, 0, 1, 1, 0, 1, 0],
            [0, 0, 1, 1, 1, 1, 0],
            [0, 0, 1, 0, 0, 0, 0],
        ]
    )
    np.testing.assert_array_equal(inner_boundary(labels, 1), expected)


@pytest.mark.parametrize("scheme", ["foreground", "boundary", "contact", "classes"])
def test_unannotated_pixels_stay_unannotated(scheme: str) -> None:
    labels = np.array([[1, 1, IGNORE, 2, 0]], dtype=np.int32)
    np.testing.assert_array_equal(class_targets(labels, scheme) == IGNORE, labels == IGNORE)


def test_schemes_name_their_classes() -> None:
    labels = np.repeat(np.array([[0, 1, 1, 1, 2, 2, 2, 0]], dtype=np.int32), 3, axis=0)
    assert class_targets(labels, "foreground")[1].tolist() == [0, 1, 1, 0, 1, 1, 1, 0]
    assert class_targets(labels, "boundary")[1].tolist() == [0, 2, 1, 2, 2, 1, 2, 0]
    assert class_targets(labels, "classes")[1].tolist() == [0, 1, 1, 1, 2, 2, 2, 0]


def test_contact_is_where_an_object_is_next_to_another_one_and_nowhere_else() -> None:
    labels = np.array([[0, 1, 1, 1, 2, 2, 0, 3]] * 3, dtype=np.int32)
    assert class_targets(labels, "contact", 1)[1].tolist() == [0, 1, 1, 2, 2, 1, 0, 1]
    assert class_targets(labels, "contact", 2)[1].tolist() == [0, 1, 2, 2, 2, 2, 0, 2], "a gap of one pixel is narrow"
