r"""Geometry of the overlap-tile strategy (Ronneberger et al. 2015, section 2 and figure 2), integers only.

One axis of a tile, for the paper's net (margin 92, grid 16)::

    image        0 .................................................... size
    read    start|<--- margin --->|<------- output ------->|<--- margin --->|stop
    write                         |<--- stride (16 k) --->|   clipped to the image
    crop                          0 ......... of the output that is written

* ``read`` may begin before 0 and end behind ``size``: what is missing is mirrored (:mod:`model.stitching`).
* ``write`` windows partition the image (test: ``test_write_windows_partition_the_image``).
* Every ``write.start`` is a multiple of ``grid`` = 2**depth, so that the pooling windows of every tile lie on one grid
  anchored at the image's origin. A net with ``depth`` 2x2 poolings is equivariant to such shifts only: stepping by the
  full output (388 for a 572 tile, as the paper draws it) moves that grid and changes the result; stepping by 384 does
  not (test: ``test_real_net_tiled_equals_untiled``).
* The last tile is extended by mirroring, never shifted back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from model.errors import PlanError

_MOST_SIDE = 1 << 20  # px, of a tile


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open interval ``[start, stop)`` along one axis, in pixels."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        """The span as an index."""
        return slice(self.start, self.stop)


@dataclass(frozen=True, slots=True)
class Window:
    """Rectangle of two half-open spans, row axis first."""

    y: Span
    x: Span

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return len(self.y), len(self.x)

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window as a two-dimensional index."""
        return self.y.slice, self.x.slice


@dataclass(frozen=True, slots=True)
class Tile:
    """One call of the net: read ``read`` of the mirrored image, write ``crop`` of the output to ``write``."""

    read: Window
    write: Window
    crop: Window


@dataclass(frozen=True, slots=True)
class AxisGeometry:
    """What a net accepts and returns along one axis.

    Parameters
    ----------
    minimum, step
        Legal input sizes are ``minimum + k * step`` pixels, k >= 0; step 0 means ``minimum`` alone.
    shrink
        Input size minus output size (184 for the paper's net, 0 for a padded one); even.
    halo
        Pixels of the output's border that are not to be used, on each side (padded nets).
    grid
        Tiles may start at multiples of this only: the product of the poolings' strides.

    """

    minimum: int
    step: int
    shrink: int
    halo: int
    grid: int

    def __post_init__(self) -> None:
        sizes = (self.minimum, self.step, self.shrink, self.halo, self.grid)
        if not all(isinstance(size, int) and size <= _MOST_SIDE for size in sizes):
            raise PlanError(f"impossible axis geometry, of whole numbers up to {_MOST_SIDE} px: {str(self)[:300]}")
        if self.minimum < 1 or self.step < 0 or self.shrink < 0 or self.shrink % 2 or self.halo < 0 or self.grid < 1:
            raise PlanError(f"impossible axis geometry: {self}")

    @property
    def margin(self) -> int:
        """Context in pixels that a tile needs on each side of what it writes."""
        return self.shrink // 2 + self.halo

    def input_for(self, useful: int) -> int:
        """Smallest legal input size whose usable output holds at least ``useful`` pixels.

        Raises
        ------
        PlanError
            For a net of one fixed size that is too small.

        """
        needed = useful + 2 * self.margin
        if needed <= self.minimum:
            return self.minimum
        if self.step == 0:
            raise PlanError(f"the net takes {self.minimum} px only; {useful} px with margins need {needed} px")
        return self.minimum + math.ceil((needed - self.minimum) / self.step) * self.step

    def stride_of(self, input_size: int) -> int:
        """Largest stride on the grid that the usable output of ``input_size`` covers; 0 where there is none."""
        return max(0, (input_size - 2 * self.margin) // self.grid * self.grid)

    def strides_for(self, size: int) -> list[int]:
        """Sensible strides for an axis of ``size`` pixels, longest first: 1, 2, 3 ... equal pieces, on the grid."""
        smallest = self.stride_of(self.minimum)
        if self.step == 0:
            if smallest < 1:
                raise PlanError(
                    f"a net of fixed size {self.minimum} px has no usable output on a grid of {self.grid} px"
                )
            return [smallest]
        smallest = max(smallest, self.grid)
        strides = [max(smallest, -(-size // self.grid) * self.grid)]
        while strides[-1] > smallest:
            # the fewest pieces that are shorter: strides grow like the root of the size, pieces like the size
            pieces = -(-size // (strides[-1] - self.grid))
            strides.append(max(smallest, -(-size // (pieces * self.grid)) * self.grid))
        return strides

    def tiles(self, size: int, stride: int) -> Iterator[tuple[Span, Span, Span]]:
        """Read, write and crop spans along an axis of ``size`` pixels, in order."""
        input_size = self.input_for(stride)
        for start in range(0, size, stride):
            stop = min(start + stride, size)
            read_start = start - self.margin
            yield (
                Span(read_start, read_start + input_size),
                Span(start, stop),
                Span(self.halo, self.halo + stop - start),
            )


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a net accepts and returns: one :class:`AxisGeometry` for rows, one for columns."""

    y: AxisGeometry
    x: AxisGeometry

    @property
    def shrink_yx(self) -> tuple[int, int]:
        """Pixels by which the net's output is smaller than its input."""
        return self.y.shrink, self.x.shrink

    def output_shape(self, input_yx: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the net's output for an input of ``input_yx`` pixels."""
        return input_yx[0] - self.y.shrink, input_yx[1] - self.x.shrink


def valid_unet_geometry(depth: int, downscale: int = 1) -> Geometry:
    """Geometry of the paper's net with ``depth`` poolings and unpadded 3x3 convolutions.

    Two convolutions per level take 4 px of that level's resolution. For depth 4: inputs 16 k + 12, output = input
    - 184; the smallest input is the one whose output is not empty. A net that works on blocks of ``downscale`` pixels
    multiplies all of these.
    """
    grid = 2**depth
    shrink = 4 * sum(2**level for level in range(depth)) * 2 + 4 * grid
    smallest_output = next(out for out in range(1, 2 * grid) if _is_legal(out + shrink, depth))
    axis = AxisGeometry(
        minimum=downscale * (smallest_output + shrink),
        step=downscale * grid,
        shrink=downscale * shrink,
        halo=0,
        grid=downscale * grid,
    )
    return Geometry(axis, axis)


def _is_legal(size: int, depth: int) -> bool:
    """Whether every pooling of the paper's net sees an even, non-empty size (section 2, last paragraph)."""
    for _ in range(depth):
        size -= 4
        if size < 2 or size % 2:
            return False
        size //= 2
    return size > 4


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How an image of ``size_yx`` pixels is cut: equal tiles of ``input_yx``, ``stride_yx`` apart, row by row."""

    size_yx: tuple[int, int]
    stride_yx: tuple[int, int]
    input_yx: tuple[int, int]
    geometry: Geometry

    @property
    def grid_yx(self) -> tuple[int, int]:
        """Number of tiles down and across."""
        return math.ceil(self.size_yx[0] / self.stride_yx[0]), math.ceil(self.size_yx[1] / self.stride_yx[1])

    def __len__(self) -> int:
        return self.grid_yx[0] * self.grid_yx[1]

    def __iter__(self) -> Iterator[Tile]:
        columns = list(self.geometry.x.tiles(self.size_yx[1], self.stride_yx[1]))
        for read_y, write_y, crop_y in self.geometry.y.tiles(self.size_yx[0], self.stride_yx[0]):
            for read_x, write_x, crop_x in columns:
                yield Tile(Window(read_y, read_x), Window(write_y, write_x), Window(crop_y, crop_x))


def plan_with_stride(size_yx: tuple[int, int], geometry: Geometry, stride_yx: tuple[int, int]) -> TilePlan:
    """Plan with a given stride.

    Raises
    ------
    PlanError
        For an empty image, or a stride that is not a positive multiple of the pooling grid.

    """
    if min(size_yx) < 1:
        raise PlanError(f"the image is empty: {size_yx[0]} x {size_yx[1]} px; at least 1 x 1 is needed")
    for axis, stride in ((geometry.y, stride_yx[0]), (geometry.x, stride_yx[1])):
        if stride < 1 or stride % axis.grid:
            raise PlanError(f"a stride of {stride} px is off the pooling grid; use a positive multiple of {axis.grid}")
    return TilePlan(
        size_yx, stride_yx, (geometry.y.input_for(stride_yx[0]), geometry.x.input_for(stride_yx[1])), geometry
    )


def plan_whole(size_yx: tuple[int, int], geometry: Geometry) -> TilePlan:
    """Plan the whole image as one tile: the reference that every tiled plan must equal."""
    stride_yx = tuple(
        math.ceil(max(size, 1) / axis.grid) * axis.grid
        for size, axis in zip(size_yx, (geometry.y, geometry.x), strict=True)
    )
    return plan_with_stride(size_yx, geometry, (stride_yx[0], stride_yx[1]))
