"""Which tiles an image is cut into: the shape that takes least time, by a cost model, within memory and tile time.

Every plan on the pooling grid gives the same answer, bit for bit (:mod:`model.tiling`), so that the choice is one of
speed alone: few pixels read twice, few pixels beyond the image, and tiles of a size that the machine runs well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.errors import PlanError
from model.tiling import Geometry, TilePlan, plan_with_stride

Cost: TypeAlias = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""Time of one tile for arrays of input heights and widths in pixels, in seconds (or any one unit)."""

_LATENCY_SLACK = 0.03
FIXED_EDGES_PX = (256, 448, 576, 832, 1088)
"""About the edges of the tiles where shapes are fixed beforehand, because the runtime pays for each new one."""


def pixels_read(input_y: NDArray[np.float64], input_x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cost of a tile where nothing better is known: the pixels that it reads."""
    return input_y * input_x


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to cut an image, and what it is expected to take."""

    plan: TilePlan
    tile_seconds: float
    """Of one tile."""
    seconds: float
    """Of the whole image."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Chooses plans for one net on one machine; the same image size always gets the same plan.

    Parameters
    ----------
    geometry
        What the net accepts.
    max_tile_pixels
        Most input pixels of one tile (height times width, margins included): the memory budget divided by the
        activation memory per pixel.
    cost
        Time of a tile.
    tile_seconds
        Most time that one tile should take, in the unit of ``cost``: whoever comes next waits for it. It is kept where
        that costs at most 3 % of the speed; else tiles come as close to it as 3 % allow.
    shapes
        The only input shapes (y, x) that may be used; None for any that the net accepts.
    square
        Whether tiles have to be square; for nets that take rows and columns alike.

    """

    geometry: Geometry
    max_tile_pixels: int
    cost: Cost = pixels_read
    tile_seconds: float = math.inf
    shapes: tuple[tuple[int, int], ...] | None = None
    square: bool = False

    def plan(self, size_yx: tuple[int, int]) -> TilePlan:
        """Choose the plan for an image of ``size_yx`` pixels.

        Raises
        ------
        PlanError
            Where not even the smallest legal tile keeps within ``max_tile_pixels``, or the image is empty.

        """
        table = self._table(size_yx)
        allowed = table.total <= table.total.min() * (1 + _LATENCY_SLACK)
        # beyond the limit a shorter tile is better, below it only the whole image's time counts; ties go to small tiles
        beyond = np.maximum(table.tile, self.tile_seconds)
        keys = (table.strides[:, 1], table.strides[:, 0], table.total, beyond, ~allowed)
        return table.choice(int(np.lexsort(keys)[0])).plan

    def choices(self, size_yx: tuple[int, int], most: int | None = None) -> list[Choice]:
        """Plans within ``max_tile_pixels``, the fastest first, whatever the time of one tile; all of them or ``most``.

        Raises
        ------
        PlanError
            As for :meth:`plan`.

        """
        table = self._table(size_yx)
        order = np.lexsort((table.strides[:, 1], table.strides[:, 0], table.total))
        return [table.choice(int(row)) for row in order[:most]]

    def expected(self, plan: TilePlan) -> Choice:
        """What a plan of any origin is expected to take."""
        tile = self._tile_cost(plan.input_yx)
        return Choice(plan, tile, len(plan) * tile)

    def pixels_like(self, typical_yx: tuple[int, int], input_yx: tuple[int, int]) -> int:
        """Input pixels of tiles of a typical shape (y, x) that take as long as one tile of ``input_yx`` pixels."""
        like = math.prod(typical_yx) * self._tile_cost(input_yx) / self._tile_cost(typical_yx)
        return max(1, round(like))

    def _tile_cost(self, input_yx: tuple[int, int]) -> float:
        return float(self.cost(*(np.array([float(edge)]) for edge in input_yx))[0])

    def _table(self, size_yx: tuple[int, int]) -> _Table:
        if min(size_yx) < 1:
            raise PlanError(f"the image is empty: {size_yx[0]} x {size_yx[1]} px; at least 1 x 1 is needed")
        strides = self._strides(size_yx)
        axes = (self.geometry.y, self.geometry.x)
        # strides repeat: of 10,000 pairs on a large image some 200 values differ
        inputs = np.empty_like(strides)
        for column, axis in enumerate(axes):
            distinct, where = np.unique(strides[:, column], return_inverse=True)
            inputs[:, column] = np.array([axis.input_for(int(stride)) for stride in distinct])[where]
        area = inputs.prod(axis=1)
        fits = area <= self.max_tile_pixels
        if not fits.any():
            smallest = inputs[area.argmin()]
            raise PlanError(
                f"the smallest legal tile is {smallest[0]} x {smallest[1]} px ({area.min()} pixels), "
                f"the memory budget allows {self.max_tile_pixels}; raise the memory budget"
            )
        strides, inputs = strides[fits], inputs[fits].astype(np.float64)
        tile = self.cost(inputs[:, 0], inputs[:, 1])
        count = -(np.array(size_yx) // -strides)
        return _Table(size_yx, self.geometry, strides, tile, count.prod(axis=1) * tile)

    def _strides(self, size_yx: tuple[int, int]) -> NDArray[np.int64]:
        """All strides (n, 2) that are worth a thought."""
        y, x = self.geometry.y, self.geometry.x
        if self.shapes is not None:
            return np.array([(y.stride_of(shape[0]), x.stride_of(shape[1])) for shape in self.shapes], dtype=np.int64)
        if self.square:
            edges = sorted({*y.strides_for(size_yx[0]), *x.strides_for(size_yx[1])})
            return np.array([(edge, edge) for edge in edges], dtype=np.int64)
        grids = np.meshgrid(y.strides_for(size_yx[0]), x.strides_for(size_yx[1]), indexing="ij")
        return np.stack([grid.ravel() for grid in grids], axis=1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Table:
    """Plans by row: strides (n, 2), time of a tile (n,), time of the image (n,)."""

    size_yx: tuple[int, int]
    geometry: Geometry
    strides: NDArray[np.int64]
    tile: NDArray[np.float64]
    total: NDArray[Any]

    def choice(self, row: int) -> Choice:
        stride_yx = int(self.strides[row, 0]), int(self.strides[row, 1])
        plan = plan_with_stride(self.size_yx, self.geometry, stride_yx)
        return Choice(plan, float(self.tile[row]), float(self.total[row]))


def fixed_shapes(geometry: Geometry, max_tile_pixels: int) -> tuple[tuple[int, int], ...]:
    """Square input shapes (y, x) for runtimes that pay for each new shape; at least the smallest legal one."""
    edges = (0, *FIXED_EDGES_PX)
    shapes = {(_legal(geometry, 0, edge), _legal(geometry, 1, edge)) for edge in edges}
    fitting = sorted(shape for shape in shapes if math.prod(shape) <= max_tile_pixels)
    return tuple(fitting) or (min(shapes),)


def _legal(geometry: Geometry, which: int, edge: int) -> int:
    """Largest input of about ``edge`` pixels whose every row is of use; the smallest useful one where it is smaller."""
    axis = (geometry.y, geometry.x)[which]
    stride = axis.stride_of(edge) if axis.step else axis.stride_of(axis.minimum)
    return axis.input_for(max(stride, axis.stride_of(axis.minimum), axis.grid))


def batch_room(tile_pixels: int, most_tiles: int, most_pixels: int) -> int:
    """Tiles of ``tile_pixels`` input pixels in one call of the net: 1, 2, 4 and so on, within both limits where it can.

    Powers of two alone, so that a runtime which pays for each new shape sees few of them.
    """
    room = min(most_tiles, max(1, most_pixels // tile_pixels))
    return 1 << (room.bit_length() - 1)
