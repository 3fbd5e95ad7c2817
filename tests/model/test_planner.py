"""The planner: least time within memory and tile time; what it may not do whatever the cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.errors import PlanError
from model.planner import Planner, batch_room, fixed_shapes, pixels_read
from model.tiling import AxisGeometry, Geometry, valid_unet_geometry
from tests.model.test_tiling import geometries

PAPER = valid_unet_geometry(4)
sizes = st.integers(1, 400)


def power_cost(exponent: float) -> Planner:
    """A planner for the paper's net whose tiles cost their pixels to a power."""
    return Planner(PAPER, 2_000_000, lambda y, x: pixels_read(y, x) ** exponent)


@given(size_yx=st.tuples(sizes, sizes), geometry=geometries(), budget=st.integers(100, 900_000))
def test_plans_keep_within_the_budget_or_say_what_is_missing(
    size_yx: tuple[int, int], geometry: Geometry, budget: int
) -> None:
    planner = Planner(geometry, budget)
    smallest = [axis.input_for(axis.strides_for(1)[-1]) for axis in (geometry.y, geometry.x)]
    if smallest[0] * smallest[1] > budget:
        with pytest.raises(PlanError, match=f"allows {budget}; raise the memory budget"):
            planner.plan(size_yx)
    else:
        assert math.prod(planner.plan(size_yx).input_yx) <= budget


def test_an_image_that_fits_one_tile_is_one_tile() -> None:
    plan = Planner(PAPER, 900 * 900).plan((256, 256))
    assert len(plan) == 1
    assert plan.input_yx == (444, 444)


def test_the_plan_adapts_to_the_shape_of_the_image() -> None:
    plan = Planner(PAPER, 900 * 900).plan((100, 3000))
    assert plan.input_yx[0] < plan.input_yx[1]


@pytest.mark.parametrize("size_yx", [(0, 5), (5, 0)])
def test_an_empty_image_is_refused(size_yx: tuple[int, int]) -> None:
    with pytest.raises(PlanError, match="at least 1 x 1"):
        Planner(PAPER, 900 * 900).plan(size_yx)


def test_a_net_of_fixed_size_too_small_for_its_halo_is_refused() -> None:
    axis = AxisGeometry(64, 0, 0, 30, 16)
    with pytest.raises(PlanError, match="fixed size 64"):
        Planner(Geometry(axis, axis), 10**6).plan((100, 100))


@given(size_yx=st.tuples(st.integers(1, 1500), st.integers(1, 1500)), exponent=st.floats(0.8, 1.5))
def test_no_plan_costs_less_than_the_chosen_one(size_yx: tuple[int, int], exponent: float) -> None:
    planner = power_cost(exponent)
    chosen = planner.expected(planner.plan(size_yx))
    every = planner.choices(size_yx)
    assert chosen.seconds == pytest.approx(min(choice.seconds for choice in every))
    assert [choice.seconds for choice in every] == sorted(choice.seconds for choice in every)
    for choice in every[:20]:
        tiles = list(choice.plan)
        cost = math.prod(choice.plan.input_yx) ** exponent
        assert choice.seconds == pytest.approx(len(tiles) * cost)
        assert choice.tile_seconds == pytest.approx(cost)


def test_a_steep_cost_makes_tiles_small_and_a_flat_one_large() -> None:
    steep, flat = (math.prod(power_cost(exponent).plan((2048, 2048)).input_yx) for exponent in (1.5, 0.8))
    assert 3 * steep < flat


@given(
    size_yx=st.tuples(st.integers(1, 1500), st.integers(1, 1500)),
    exponent=st.floats(0.8, 1.4),
    limit_px=st.integers(200 * 200, 1_000_000),
)
def test_tiles_are_as_short_as_three_percent_allow(size_yx: tuple[int, int], exponent: float, limit_px: int) -> None:
    def cost(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        return pixels_read(y, x) ** exponent

    limit = limit_px**exponent
    planner = Planner(PAPER, 2_000_000, cost, tile_seconds=limit)
    chosen = planner.expected(planner.plan(size_yx))
    every = planner.choices(size_yx)
    affordable = [choice for choice in every if choice.seconds <= 1.03 * every[0].seconds]
    assert chosen.seconds <= 1.03 * affordable[0].seconds * (1 + 1e-9)
    short = [choice for choice in affordable if choice.tile_seconds <= limit]
    if short:
        assert chosen.tile_seconds <= limit * (1 + 1e-9)
        assert chosen.seconds == pytest.approx(short[0].seconds)
    else:
        assert chosen.tile_seconds == pytest.approx(min(choice.tile_seconds for choice in affordable))


@given(size_yx=st.tuples(st.integers(1, 3000), st.integers(1, 3000)), geometry=geometries())
def test_fixed_shapes_are_legal_and_no_others_are_used(size_yx: tuple[int, int], geometry: Geometry) -> None:
    shapes = fixed_shapes(geometry, 1_200_000)
    assert len(shapes) <= 6
    assert Planner(geometry, 1_200_000, shapes=shapes).plan(size_yx).input_yx in shapes


def test_fixed_shapes_keep_within_memory_and_hold_the_papers_tile() -> None:
    assert (572, 572) in fixed_shapes(PAPER, 10**7)
    assert all(math.prod(shape) <= 500_000 for shape in fixed_shapes(PAPER, 500_000))
    with pytest.raises(PlanError, match="raise the memory budget"):
        Planner(PAPER, 100, shapes=fixed_shapes(PAPER, 100)).plan((9, 9))


@pytest.mark.parametrize(
    ("tile", "tiles", "pixels", "room"), [(100, 8, 799, 4), (100, 8, 800, 8), (100, 7, 10**6, 4), (100, 8, 99, 1)]
)
def test_a_batch_is_a_power_of_two_within_both_limits(tile: int, tiles: int, pixels: int, room: int) -> None:
    assert batch_room(tile, tiles, pixels) == room
