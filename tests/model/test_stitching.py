"""Seams: tiled equals untiled, mirrored margins equal numpy.pad, an identity net gives the image back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import InferenceFailed
from model.normalization import FittedNormalization, ScaleRange, fit
from model.planner import Planner
from model.stitching import Stitcher, predict_tiled, read_tile, reflect_indices
from model.tiling import Span, Tile, Window, plan_whole, plan_with_stride, valid_unet_geometry
from model.unet import UNet
from tests.model.nets import random_image, run_with

NOTHING = FittedNormalization((), 1)


@given(size=st.integers(1, 40), before=st.integers(0, 120), after=st.integers(0, 120))
def test_mirrored_reading_equals_numpy_pad(size: int, before: int, after: int) -> None:
    values = np.arange(size)
    indices = reflect_indices(Span(-before, size + after), size)
    assert np.array_equal(values[indices], np.pad(values, (before, after), mode="reflect"))


@given(
    size_yx=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    start=st.tuples(st.integers(-50, 30), st.integers(-50, 30)),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_a_tile_is_a_window_of_the_mirrored_image(
    size_yx: tuple[int, int], start: tuple[int, int], shape: tuple[int, int]
) -> None:
    image_yxc = random_image(size_yx, 0)
    pad = 120
    padded = np.pad(image_yxc[..., 0], pad, mode="reflect")
    window = Window(Span(start[0], start[0] + shape[0]), Span(start[1], start[1] + shape[1]))
    tile = read_tile(image_yxc, Tile(window, window, window), NOTHING)
    rows, columns = slice(pad + start[0], pad + window.y.stop), slice(pad + start[1], pad + window.x.stop)
    assert tile.dtype == np.float32
    assert np.array_equal(tile[0], padded[rows, columns])


@given(
    size_yx=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    depth=st.integers(1, 3),
    budget=st.integers(100 * 100, 200 * 200),
    batch=st.integers(1, 5),
)
def test_an_identity_net_gives_the_image_back(size_yx: tuple[int, int], depth: int, budget: int, batch: int) -> None:
    geometry = valid_unet_geometry(depth)
    half = geometry.y.shrink // 2
    image_yxc = random_image(size_yx, 1)
    plan = Planner(geometry, budget).plan(size_yx)
    result = predict_tiled(image_yxc, NOTHING, plan, lambda tiles: tiles[..., half:-half, half:-half], batch)
    assert np.array_equal(result[0], image_yxc[..., 0])


@pytest.fixture(scope="module", params=[(2, 1), (3, 1), (4, 1), (2, 2), (1, 4)], ids=str)
def real_net(request: pytest.FixtureRequest) -> UNet:
    depth, downscale = request.param
    torch.manual_seed(depth)
    return UNet(base_width=4, depth=depth, dropout=0, downscale=downscale).eval()


@settings(max_examples=25)
@given(
    size_yx=st.tuples(st.integers(1, 260), st.integers(1, 260)),
    strides=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    batch=st.integers(1, 4),
)
@pytest.mark.slow
def test_real_net_tiled_equals_untiled(
    real_net: UNet, size_yx: tuple[int, int], strides: tuple[int, int], batch: int
) -> None:
    geometry = valid_unet_geometry(real_net.depth, real_net.downscale)
    grid = geometry.y.grid
    image_yxc = random_image(size_yx, 2)
    normalization = fit([ScaleRange()], image_yxc)
    # at least as many pixels a tile as keep the number of tiles small on two cores
    plan = plan_with_stride(size_yx, geometry, (grid * (strides[0] + 5), grid * (strides[1] + 5)))
    tiled = predict_tiled(image_yxc, normalization, plan, run_with(real_net), batch)
    untiled = predict_tiled(image_yxc, normalization, plan_whole(size_yx, geometry), run_with(real_net))
    np.testing.assert_allclose(tiled, untiled, atol=1e-5, rtol=0)


def test_stepping_by_the_full_output_would_move_the_pooling_grid() -> None:
    """The reason for the grid: the paper's own stride, 4 px off it, gives another answer."""
    torch.manual_seed(0)
    net = UNet(base_width=4, depth=2, dropout=0).eval()
    geometry = valid_unet_geometry(2)
    image_yxc = random_image((80, 80), 3)
    normalization = fit([ScaleRange()], image_yxc)
    untiled = predict_tiled(image_yxc, normalization, plan_whole((80, 80), geometry), run_with(net))
    margin, size = geometry.y.margin, geometry.y.input_for(40)
    off_grid = Window(Span(42 - margin, 42 - margin + size), Span(0 - margin, size - margin))
    tile = Tile(off_grid, Window(Span(42, 80), Span(0, 38)), Window(Span(0, 38), Span(0, 38)))
    output = run_with(net)(read_tile(image_yxc, tile, normalization)[np.newaxis])[0]
    assert np.abs(output[:, :38, :38] - untiled[:, 42:80, :38]).max() > 1e-3


def test_a_net_that_returns_too_little_is_reported() -> None:
    plan = plan_whole((20, 20), valid_unet_geometry(1))
    with pytest.raises(InferenceFailed, match="wrong output size"):
        predict_tiled(random_image((20, 20), 0), NOTHING, plan, lambda tiles: tiles[..., :3, :3])


def test_a_net_that_returns_nan_is_reported() -> None:
    (tile,) = plan_whole((4, 4), valid_unet_geometry(1))
    stitcher = Stitcher((np.zeros((4, 4), dtype=np.float32), lambda output_cyx: output_cyx[0]))
    output = np.full((1, 4, 4), np.nan, dtype=np.float32)
    with pytest.raises(InferenceFailed, match="NaN"):
        stitcher.write(tile, output)
