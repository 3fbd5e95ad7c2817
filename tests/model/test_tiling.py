"""Geometry: the write windows partition the image, on one pooling grid, within the net's legal sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import PlanError
from model.planner import Planner
from model.tiling import (
    AxisGeometry,
    Geometry,
    plan_whole,
    plan_with_stride,
    valid_unet_geometry,
)

sizes = st.integers(1, 400)
depths = st.integers(1, 4)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Geometries of unpadded, padded and fixed-size nets."""

    def axis() -> AxisGeometry:
        kind = draw(st.sampled_from(["valid", "padded", "fixed"]))
        if kind == "valid":
            return valid_unet_geometry(draw(depths)).y
        grid = 2 ** draw(depths)
        halo = draw(st.integers(0, 40))
        minimum = grid * draw(st.integers(1, 4)) + 2 * halo
        return AxisGeometry(minimum, 0 if kind == "fixed" else grid, 0, halo, grid)

    return Geometry(axis(), axis())


@given(size_yx=st.tuples(sizes, sizes), geometry=geometries(), budget=st.integers(400_000, 900_000))
def test_write_windows_partition_the_image(size_yx: tuple[int, int], geometry: Geometry, budget: int) -> None:
    plan = Planner(geometry, budget).plan(size_yx)
    written = np.zeros(size_yx, dtype=np.int32)
    for tile in plan:
        assert len(tile.write.y) > 0
        assert len(tile.write.x) > 0
        written[tile.write.slices] += 1
    assert (written == 1).all()
    assert len(plan) == sum(1 for _ in plan)


@given(size_yx=st.tuples(sizes, sizes), geometry=geometries())
def test_tiles_start_on_the_grid_and_have_legal_sizes(size_yx: tuple[int, int], geometry: Geometry) -> None:
    plan = Planner(geometry, 900_000).plan(size_yx)
    axes = (geometry.y, geometry.x)
    for tile in plan:
        for axis, write, read, crop, size in zip(
            axes, (tile.write.y, tile.write.x), (tile.read.y, tile.read.x), (tile.crop.y, tile.crop.x),
            plan.input_yx, strict=True,
        ):  # fmt: skip
            assert write.start % axis.grid == 0
            assert len(read) == size
            assert read.start == write.start - axis.margin
            assert len(crop) == len(write)
            assert crop.start == axis.halo
            assert crop.stop <= size - axis.shrink - axis.halo
            beyond = size - axis.minimum
            assert beyond == 0 if axis.step == 0 else beyond >= 0 and beyond % axis.step == 0


@pytest.mark.parametrize(("depth", "smallest"), [(1, 18), (2, 44), (3, 92), (4, 188), (5, 380)])
def test_the_papers_net_takes_16k_plus_12(depth: int, smallest: int) -> None:
    axis = valid_unet_geometry(depth).y
    assert axis.minimum == smallest
    assert axis.grid == axis.step == 2**depth


def test_572_gives_388_and_is_stepped_by_384() -> None:
    geometry = valid_unet_geometry(4)
    assert geometry.output_shape((572, 572)) == (388, 388)
    assert geometry.y.stride_of(572) == 384
    assert geometry.y.input_for(388) == 572


@given(st.integers(1, 20_000), st.integers(1, 5))
def test_strides_are_those_of_all_equal_partitions(size: int, depth: int) -> None:
    axis = valid_unet_geometry(depth).y
    smallest = max(axis.stride_of(axis.minimum), axis.grid)
    pieces = range(1, size // smallest + 2)
    expected = {max(smallest, math.ceil(size / n / axis.grid) * axis.grid) for n in pieces}
    assert axis.strides_for(size) == sorted(expected, reverse=True)


def test_a_very_long_axis_has_few_strides() -> None:
    """A header may declare it, and plans are made before anything else is known."""
    assert len(valid_unet_geometry(4).y.strides_for(2_000_000_000)) < 30_000


@pytest.mark.parametrize("size_yx", [(0, 5), (5, 0)])
def test_an_empty_image_is_refused(size_yx: tuple[int, int]) -> None:
    geometry = valid_unet_geometry(4)
    with pytest.raises(PlanError, match="at least 1 x 1"):
        plan_with_stride(size_yx, geometry, (16, 16))


@pytest.mark.parametrize("stride", [0, -16, 388])
def test_a_stride_off_the_pooling_grid_is_refused(stride: int) -> None:
    with pytest.raises(PlanError, match="multiple of 16"):
        plan_with_stride((600, 600), valid_unet_geometry(4), (384, stride))


@given(size_yx=st.tuples(sizes, sizes), depth=depths)
def test_the_whole_image_is_one_tile(size_yx: tuple[int, int], depth: int) -> None:
    (tile,) = plan_whole(size_yx, valid_unet_geometry(depth))
    assert tile.write.shape_yx == size_yx


@pytest.mark.parametrize(
    "values", [(0, 1, 0, 0, 1), (8, -1, 0, 0, 1), (8, 1, 3, 0, 1), (8, 1, 0, -1, 1), (8, 1, 0, 0, 0)]
)
def test_impossible_geometry_is_refused(values: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(PlanError, match="impossible axis geometry"):
        AxisGeometry(*values)
