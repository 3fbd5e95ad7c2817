"""Mirrored views: there and back, on the grid of the whole image's view, and the mean whatever the order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from model.errors import InferenceFailed, PlanError
from model.normalization import ScaleRange, fit
from model.planner import Planner, fixed_shapes
from model.stitching import predict_tiled
from model.tiling import AxisGeometry, Geometry, Tile, plan_whole, valid_unet_geometry
from model.unet import UNet
from model.views import ONE_VIEW, MeanOfViews, View, ViewPlan, mirrored_views, plan_views
from tests.model.nets import random_image, run_with

PAPER = valid_unet_geometry(4)
ALL = mirrored_views(PAPER)


def test_there_are_eight_views_and_the_first_is_the_image_itself() -> None:
    picture = np.arange(6).reshape(2, 3)
    assert len({view.of(picture).tobytes() + bytes(view.of(picture).shape) for view in ALL}) == len(ALL) == 8
    assert ALL[:1] == ONE_VIEW
    assert np.array_equal(ONE_VIEW[0].of(picture), picture)


@given(picture=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=4)), view=st.sampled_from(ALL))
def test_a_view_turned_back_is_the_picture(picture: NDArray[np.uint8], view: View) -> None:
    assert np.array_equal(view.back(view.of(picture)), picture)


@settings(max_examples=20)
@given(
    size_yx=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    net=st.sampled_from([(1, 1), (2, 1), (3, 1), (2, 2)]),
    edge=st.integers(0, 60),
    batch=st.integers(1, 5),
)
@pytest.mark.slow
def test_tiles_of_views_are_views_of_the_whole_image(
    size_yx: tuple[int, int], net: tuple[int, int], edge: int, batch: int
) -> None:
    """The mean by tiles is the mean of whole turned images, each by itself, turned back."""
    torch.manual_seed(0)
    unet = UNet(base_width=4, depth=net[0], downscale=net[1], dropout=0).eval()
    geometry = valid_unet_geometry(*net)
    image_yxc = random_image(size_yx, 2)
    normalization = fit([ScaleRange()], image_yxc)
    most = (geometry.y.input_for(geometry.y.grid) + geometry.y.grid + edge) ** 2
    plan = plan_views(Planner(geometry, most), size_yx, mirror=True)
    assert plan.tiles.input_yx[0] == plan.tiles.input_yx[1]
    assert plan.tiles.input_yx[0] ** 2 <= most
    tiled = predict_tiled(image_yxc, normalization, plan, run_with(unet), batch)
    whole = []
    for view in ALL:
        turned_yxc = np.moveaxis(view.of(np.moveaxis(image_yxc, -1, 0)), 0, -1)
        cut = plan_whole((turned_yxc.shape[0], turned_yxc.shape[1]), geometry)
        whole.append(view.back(predict_tiled(turned_yxc, normalization, cut, run_with(unet))))
    np.testing.assert_allclose(tiled, np.mean(whole, axis=0), atol=1e-5, rtol=0)


def test_a_padded_nets_halo_is_left_out_in_every_view() -> None:
    """An identity net with a halo: whatever lies there is not used."""
    axis = AxisGeometry(minimum=32, step=8, shrink=0, halo=4, grid=8)

    def net(tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        spoilt = np.full_like(tiles_bcyx, np.nan)
        spoilt[..., 4:-4, 4:-4] = tiles_bcyx[..., 4:-4, 4:-4]
        return spoilt

    image_yxc = random_image((61, 47), 3)
    normalization = fit([ScaleRange()], image_yxc)
    plan = plan_views(Planner(Geometry(axis, axis), 48 * 48), (61, 47), mirror=True)
    assert len(plan) > 8
    result = predict_tiled(image_yxc, normalization, plan, net)
    np.testing.assert_allclose(result, normalization.apply(image_yxc), rtol=1e-6)


def test_nets_that_take_rows_and_columns_differently_are_not_turned_by_one_quarter() -> None:
    wide = Geometry(PAPER.y, replace(PAPER.x, minimum=PAPER.x.minimum + 16))
    plan = plan_views(Planner(wide, 10**6), (300, 900), mirror=True)
    assert [(view.quarter_turns, view.mirrored) for view in plan.views] == [
        (0, False),
        (0, True),
        (2, False),
        (2, True),
    ]
    assert len(plan) == 4 * len(plan.tiles)


def test_fixed_shapes_stay_the_only_ones_and_one_without_room_is_left_out() -> None:
    shapes = fixed_shapes(PAPER, 10**6)
    planner = Planner(PAPER, 10**6, shapes=shapes)
    used = {plan_views(planner, (size, size), mirror=True).tiles.input_yx for size in (1, 50, 300, 1000, 3000)}
    assert used <= set(shapes)
    only_smallest = Planner(PAPER, 10**6, shapes=((PAPER.y.minimum, PAPER.x.minimum),))
    with pytest.raises(PlanError, match="mirrored"):
        plan_views(only_smallest, (50, 50), mirror=True)


@pytest.mark.parametrize("threads", [1, 4])
def test_the_mean_does_not_depend_on_the_order_of_views(threads: int) -> None:
    plan = plan_views(Planner(PAPER, 300 * 300), (400, 300), mirror=True)
    parts = list(plan)
    outputs = np.random.default_rng(0).random((len(parts), 2, *PAPER.output_shape(plan.tiles.input_yx)), np.float32)

    def means(order: list[int]) -> dict[Tile, NDArray[np.float32]]:
        found: dict[Tile, NDArray[np.float32]] = {}
        mean = MeanOfViews(plan.views, found.__setitem__)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda i: mean.write(parts[i], outputs[i]), order))
        return {Tile(tile.write, tile.write, tile.crop): value for tile, value in found.items()}

    inorder = list(range(len(parts)))
    expected, shuffled = means(inorder), means(np.random.default_rng(1).permutation(inorder).tolist())
    assert len(expected) == len(plan.tiles) > 1
    assert expected.keys() == shuffled.keys()
    assert all(np.array_equal(expected[tile], shuffled[tile]) for tile in expected)


def test_an_output_that_does_not_cover_its_tile_is_refused() -> None:
    plan = plan_views(Planner(PAPER, 300 * 300), (50, 50), mirror=True)
    mean = MeanOfViews(plan.views, lambda _tile, _output: None)
    with pytest.raises(InferenceFailed, match="declares a wrong output size"):
        mean.write(next(iter(plan)), np.zeros((2, 9, 9), np.float32))


def test_one_view_passes_through() -> None:
    found = []
    tiles = plan_whole((40, 30), PAPER)
    plan = ViewPlan(tiles, PAPER)
    output = np.ones((2, 3, 4), np.float32)
    MeanOfViews(plan.views, lambda tile, value: found.append((tile, value))).write(next(iter(plan)), output)
    assert found[0][0] == next(iter(tiles))
    assert found[0][1] is output
