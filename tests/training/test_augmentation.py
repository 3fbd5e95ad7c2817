"""Random tiles: where their pixels come from, and what is done to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.normalization import ScaleLinear, fit
from training.data.augmentation import Deformation, draw_deformation, draw_grey, image_patch, inside, sample_plane
from training.options import Augmentation

STILL = np.zeros((2, 3, 3), dtype=np.float32)
EYE = np.eye(2, dtype=np.float32)
AS_IS = (ScaleLinear(),)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((height, width, 1), dtype=np.float32)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 12), st.integers(-30, 30), st.integers(-30, 30))
def test_an_undeformed_tile_is_the_mirrored_image_itself(
    height: int, width: int, size: int, top: int, left: int
) -> None:
    image = picture(height, width)
    places = Deformation((top + (size - 1) / 2, left + (size - 1) / 2), EYE, STILL).coordinates(size)
    pad = 64
    padded = np.pad(image[..., 0], pad, mode="reflect")
    expected = padded[pad + top : pad + top + size, pad + left : pad + left + size]
    np.testing.assert_allclose(image_patch(image, fit(AS_IS, image), places).read("bicubic")[0], expected, atol=2e-5)
    np.testing.assert_array_equal(sample_plane(image[..., 0], places, "nearest"), expected)
    np.testing.assert_allclose(sample_plane(image[..., 0], places, "bilinear"), expected, atol=2e-5)


def test_a_quarter_turn_turns_the_tile() -> None:
    image = picture(9, 9)
    turned = np.array([[0, -1], [1, 0]], dtype=np.float32)
    places = Deformation((4.0, 4.0), turned, STILL).coordinates(9)
    np.testing.assert_array_equal(sample_plane(image[..., 0], places, "nearest"), np.rot90(image[..., 0], -1))


def test_zoom_enlarges_what_is_in_the_middle() -> None:
    plane = np.zeros((64, 64), dtype=np.int32)
    plane[28:36, 28:36] = 1
    places = Deformation((31.5, 31.5), EYE * np.float32(0.5), STILL).coordinates(40)
    assert int(sample_plane(plane, places, "nearest").sum()) == 4 * 64


def test_one_field_moves_image_labels_and_weights() -> None:
    rng = np.random.default_rng(3)
    settings_ = Augmentation(elastic_px=10, scale=(0.7, 1.4))
    rows, columns = np.mgrid[:120, :120]
    labels = ((rows - 60) ** 2 + (columns - 60) ** 2 < 900).astype(np.int32)
    image = labels[..., None].astype(np.float32)
    places = draw_deformation(rng, settings_, (120, 120), 100).coordinates(100)
    seen = image_patch(image, fit(AS_IS, image), places).read("bicubic")[0] > 0.5
    moved = sample_plane(labels, places, "nearest") == 1
    weighed = sample_plane(labels.astype(np.float16), places, "bilinear") > 0.5
    assert 0.02 < moved.float().mean() < 0.98
    assert (seen != moved).float().mean() < 0.005
    assert (weighed != moved).float().mean() < 0.005


def test_displacements_are_those_of_the_coarse_grid_at_its_nodes() -> None:
    vectors = np.random.default_rng(0).normal(0, 10, (2, 3, 3)).astype(np.float32)
    still = Deformation((50.0, 50.0), EYE, STILL).coordinates(101)
    moved = Deformation((50.0, 50.0), EYE, vectors).coordinates(101)
    nodes = (moved - still)[:, ::50, ::50].numpy()
    np.testing.assert_allclose(nodes, vectors, atol=1e-3)


@pytest.mark.parametrize("size_yx", [(1, 1), (40, 300), (700, 90)])
@pytest.mark.parametrize("seed", range(5))
def test_drawn_tiles_show_the_image(size_yx: tuple[int, int], seed: int) -> None:
    settings_ = Augmentation(shift_px=0, elastic_px=0)
    places = draw_deformation(np.random.default_rng(seed), settings_, size_yx, 64).coordinates(64)
    assert inside(size_yx, places).any()


def test_inside_ends_half_a_pixel_beyond_the_outermost_pixels() -> None:
    places = torch.tensor([[[-0.6, -0.4, 2.4, 2.6]], [[0.0, 0.0, 0.0, 0.0]]])
    assert inside((3, 1), places).tolist() == [[False, True, True, False]]


def test_the_same_seed_draws_the_same_tile() -> None:
    first, second, other = (
        draw_deformation(np.random.default_rng(seed), Augmentation(), (256, 256), 100).coordinates(100)
        for seed in (7, 7, 8)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_grey_values_without_ranges_stay_as_they_are() -> None:
    image = torch.from_numpy(picture(16, 16)[..., 0])[None]
    assert torch.equal(draw_grey(np.random.default_rng(0), Augmentation(), image.shape).apply(image), image)


def test_grey_values_vary_and_stay_finite() -> None:
    ranges = Augmentation(gamma=(0.5, 2), contrast=(0.5, 2), brightness=0.2, noise=0.1, blur_px=2)
    image = torch.linspace(-0.2, 1.5, 400).reshape(1, 20, 20)
    for seed in range(20):
        varied = draw_grey(np.random.default_rng(seed), ranges, image.shape).apply(image)
        assert varied.shape == image.shape
        assert torch.isfinite(varied).all()
        assert not torch.equal(varied, image)
