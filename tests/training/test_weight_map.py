"""The weight map's border term, the ridge, the boundary class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from training.data.datasets import IGNORE
from training.data.weight_map import border_term, class_targets, inner_boundary, separating_ridge

LABELS = arrays(np.int32, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 4))


def by_definition(labels_yx: NDArray[np.int32], w0: float, sigma_px: float) -> NDArray[np.float64]:
    """Equation 2, second term: the distances to every cell, sorted."""
    numbers = [number for number in np.unique(labels_yx) if number > 0]
    if len(numbers) < 2:
        return np.zeros(labels_yx.shape)
    distances = np.sort([ndimage.distance_transform_edt(labels_yx != number) for number in numbers], axis=0)
    term: NDArray[np.float64] = w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma_px**2))
    return term


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


def test_cells_of_far_numbers_without_background_are_all_cells() -> None:
    labels = np.array([[7_000_000] * 4 + [9_000_000] * 4], dtype=np.int32)
    np.testing.assert_allclose(border_term(labels, 10.0, 2.0), by_definition(labels, 10.0, 2.0), rtol=1e-4)


def measured_pixels(labels_yx: NDArray[np.int32], monkeypatch: pytest.MonkeyPatch) -> int:
    """Pixels that go through a distance transform: what the weight map costs, on whatever machine."""
    measured: list[int] = []
    transform = ndimage.distance_transform_edt

    def counted(mask_yx: NDArray[np.bool_]) -> NDArray[np.float64]:
        measured.append(mask_yx.size)
        distance: NDArray[np.float64] = transform(mask_yx)
        return distance

    with monkeypatch.context() as patch:
        patch.setattr(ndimage, "distance_transform_edt", counted)
        border_term(labels_yx, 10.0, 3.0)
    return sum(measured)


def grid_of_cells(per_side: int, pitch_px: int) -> NDArray[np.int32]:
    """Square cells, as wide as two thirds of their pitch."""
    rows, columns = np.divmod(np.arange((per_side * pitch_px) ** 2), per_side * pitch_px)
    numbers = (rows // pitch_px) * per_side + columns // pitch_px + 1
    solid = (rows % pitch_px < pitch_px * 2 // 3) & (columns % pitch_px < pitch_px * 2 // 3)
    labels: NDArray[np.int32] = np.where(solid, numbers, 0).reshape(per_side * pitch_px, -1).astype(np.int32)
    return labels


def test_small_cells_cost_the_pixels_around_them(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (measured_pixels(grid_of_cells(side, 24), monkeypatch) for side in (6, 24))
    assert few < many < 1.2 * 16 * few, "16 times the cells, 16 times the cost"


def test_a_large_cell_among_many_costs_one_image_more(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = grid_of_cells(20, 24)
    without = measured_pixels(labels, monkeypatch)
    labels[labels == 0] = 1000  # reaches around all of the others
    assert measured_pixels(labels, monkeypatch) <= without + 2 * labels.size


def stripes(count: int) -> NDArray[np.int32]:
    """Diagonal stripes two pixels wide and two apart: each one's window is most of the image."""
    rows, columns = np.indices((4 * count, 4 * count))
    place = rows + columns
    labels: NDArray[np.int32] = np.where(place % 4 < 2, place // 4 + 1, 0).astype(np.int32)
    return labels


def test_large_cells_cost_the_logarithm_of_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = stripes(40)
    assert measured_pixels(labels, monkeypatch) <= 2 * 7 * labels.size, "80 stripes: seven digits"


@pytest.mark.parametrize("large", ["stripes", "around"])
def test_cells_measured_at_once_and_one_by_one_give_the_definition(large: str) -> None:
    labels = stripes(16)
    if large == "around":
        labels = grid_of_cells(5, 12)
        labels[labels == 0] = 700_000  # a number far from the others
        labels[20:26, 20:40] = 0
    expected = by_definition(labels, 10.0, 2.0)
    np.testing.assert_allclose(border_term(labels, 10.0, 2.0), expected, rtol=1e-4, atol=2e-6)


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


@given(LABELS, st.integers(1, 3))
def test_boundary_of_what_is_wholly_annotated_is_where_anything_else_is_near(
    labels_yx: NDArray[np.int32], width_px: int
) -> None:
    padded = np.pad(labels_yx, width_px, mode="edge")
    around = sliding_window_view(padded, (2 * width_px + 1,) * 2)
    expected = (labels_yx > 0) & (around != labels_yx[..., None, None]).any(axis=(2, 3))
    np.testing.assert_array_equal(inner_boundary(labels_yx, width_px), expected)


def test_an_object_cut_by_pixels_that_nobody_has_annotated_has_no_boundary_there() -> None:
    labels = np.repeat(np.array([[0, 1, 1, 1, IGNORE, IGNORE, 2, 2, 2, 3, 3]], dtype=np.int32), 3, axis=0)
    known = [0, 2, 1, 1, IGNORE, IGNORE, 1, 1, 2, 2, 1]
    assert class_targets(labels, "boundary")[1].tolist() == known


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
