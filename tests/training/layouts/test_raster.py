"""Outlines to pixels: centres decide, holes stay open, nothing beyond the image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from tests.training.layouts.edges import distance_to_edges
from training.layouts.raster import Patch, fill_oval, fill_rings, unite

SIZE = (12, 15)


def plane(patch: Patch, size_yx: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    whole = np.zeros(size_yx, dtype=bool)
    patch.of(whole)[...] = patch.mask_yx
    return whole


def rectangle(left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def test_an_outline_along_pixel_edges_gives_the_pixels_inside() -> None:
    expected = np.zeros(SIZE, dtype=bool)
    expected[2:5, 3:9] = True
    np.testing.assert_array_equal(plane(fill_rings([rectangle(3, 2, 9, 5)], SIZE)), expected)


def test_a_closed_ring_is_as_good_as_an_open_one() -> None:
    ring = rectangle(3, 2, 9, 5)
    closed = np.concatenate((ring, ring[:1]))
    np.testing.assert_array_equal(plane(fill_rings([closed], SIZE)), plane(fill_rings([ring], SIZE)))


def test_rings_within_rings_are_holes_whichever_way_they_run() -> None:
    expected = np.zeros(SIZE, dtype=bool)
    expected[1:9, 1:9] = True
    expected[3:7, 3:7] = False
    expected[4:6, 4:6] = True
    rings = [rectangle(1, 1, 9, 9), rectangle(3, 3, 7, 7), rectangle(4, 4, 6, 6)[::-1]]
    np.testing.assert_array_equal(plane(fill_rings(rings, SIZE)), expected)


def test_neighbours_with_a_common_edge_share_no_pixel_and_leave_none_out() -> None:
    edge = [(2.5, 0.0), (9.5, 12.0)]  # through pixel centres
    left = np.array([(0, 0), *edge, (0, 12)], dtype=float)
    right = np.array([(15, 0), *edge, (15, 12)], dtype=float)
    one, other = plane(fill_rings([left], SIZE)), plane(fill_rings([right], SIZE))
    assert (one ^ other).all()


corner = st.tuples(st.floats(-6, 20, width=32), st.floats(-6, 18, width=32))


@given(st.lists(corner, min_size=3, max_size=12))
def test_one_ring_is_filled_as_skimage_fills_it(corners: list[tuple[float, float]]) -> None:
    ring = np.array(corners)
    ours = plane(fill_rings([ring], SIZE))
    reference = polygon2mask(SIZE, ring[:, ::-1] - 0.5)
    centres = np.stack(np.meshgrid(np.arange(15) + 0.5, np.arange(12) + 0.5), axis=-1)
    # skimage takes centres on an edge as inside for both neighbours; rounding decides within 1e-4
    clear = distance_to_edges(centres, ring) > 1e-4
    np.testing.assert_array_equal(ours[clear], reference[clear])


def test_what_lies_beyond_the_image_is_cut_off() -> None:
    expected = np.zeros(SIZE, dtype=bool)
    expected[10:, :2] = True
    for far in (20, 1e9, 1e300):
        np.testing.assert_array_equal(plane(fill_rings([rectangle(-far, 10, 2, far)], SIZE)), expected)


@pytest.mark.parametrize(
    "ring",
    [
        rectangle(20, 2, 25, 5),
        rectangle(-9, 2, -1, 5),
        rectangle(3, 90, 9, 99),
        rectangle(1e300, 2, 1.1e300, 5),
        rectangle(15, 2, 20, 5),  # it begins or ends at an edge of the image
        rectangle(3, 12, 9, 20),
        rectangle(-9, 2, 0, 5),
        rectangle(3, -9, 9, 0),
    ],
)
def test_a_shape_outside_of_the_image_has_an_empty_patch(ring: NDArray[np.float64]) -> None:
    assert fill_rings([ring], SIZE).mask_yx.size == 0


@pytest.mark.parametrize("ring", [rectangle(3.6, 2, 4.4, 9), rectangle(3, 2, 3, 5)])
def test_a_shape_too_thin_for_a_pixel_has_a_patch_without_one(ring: NDArray[np.float64]) -> None:
    patch = fill_rings([ring], SIZE)
    assert patch.mask_yx.size
    assert not patch.mask_yx.any()


def test_an_oval_has_the_pixels_whose_centres_lie_in_the_ellipse() -> None:
    y, x = np.mgrid[:12, :15] + 0.5
    expected = ((x - 6) / 4) ** 2 + ((y - 5) / 3) ** 2 < 1
    np.testing.assert_array_equal(plane(fill_oval(2, 2, 8, 6, SIZE)), expected)


@pytest.mark.parametrize(
    ("oval", "size"), [((30, 2, 4, 4), 0), ((15, 2, 4, 4), 0), ((3, 2, 0, 4), 1), ((3.2, 2.2, 0.2, 0.2), 1)]
)
def test_an_oval_without_pixels(oval: tuple[float, float, float, float], size: int) -> None:
    patch = fill_oval(*oval, SIZE)
    assert patch.mask_yx.size == size
    assert not patch.mask_yx.any()


def test_united_patches_have_the_pixels_of_all() -> None:
    patches = [
        fill_rings([ring], SIZE) for ring in (rectangle(1, 1, 4, 4), rectangle(3, 3, 9, 7), rectangle(50, 1, 60, 4))
    ]
    np.testing.assert_array_equal(plane(unite(patches)), np.logical_or.reduce([plane(patch) for patch in patches]))


def test_patches_outside_unite_to_one_outside() -> None:
    assert unite([fill_rings([rectangle(50, 1, 60, 4)], SIZE)] * 2).mask_yx.size == 0
