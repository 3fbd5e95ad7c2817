"""The eight mirrored and turned views of an image, whose mean says a little more than one, at eight times the cost.

Ronneberger et al. scored the ISBI 2012 challenge with such a mean ("averaged over 7 rotated versions of the input
data", section 4); here it is that of the whole group of the square. It is the mean over whole images, each view with
the pooling grid that begins at its own corner, computed tile by tile: a tile of a view is read so that it lies on the
grid of that view (test: ``test_tiles_of_views_are_views_of_the_whole_image``). So it is free of seams as well, and
turning an image turns its result.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.errors import InferenceFailed, PlanError
from model.planner import Planner
from model.tiling import AxisGeometry, Geometry, Span, Tile, TilePlan, Window


@dataclass(frozen=True, slots=True)
class View:
    """A picture turned by quarters against the clock, then mirrored left to right or not."""

    quarter_turns: int
    mirrored: bool

    def of(self, picture: NDArray[Any]) -> NDArray[Any]:
        """Return this view of a picture (..., y, x)."""
        turned = np.rot90(picture, self.quarter_turns, axes=(-2, -1))
        return turned[..., ::-1] if self.mirrored else turned

    def back(self, view: NDArray[Any]) -> NDArray[Any]:
        """Return the picture (..., y, x) of which this is the view."""
        return np.rot90(view[..., ::-1] if self.mirrored else view, -self.quarter_turns, axes=(-2, -1))

    @property
    def reversed_yx(self) -> tuple[bool, bool]:
        """Whether the view begins at the last row, and at the last column, of the picture."""
        corner = int(self.of(np.arange(4).reshape(2, 2))[0, 0])
        return corner >= 2, corner % 2 == 1


ONE_VIEW = (View(0, mirrored=False),)
"""The image as it is."""


def mirrored_views(geometry: Geometry) -> tuple[View, ...]:
    """All eight views; for a net that takes rows and columns differently, the four that keep them apart."""
    turns = range(4) if geometry.y == geometry.x else (0, 2)
    return tuple(View(turn, mirrored) for turn in turns for mirrored in (False, True))


TileView: TypeAlias = tuple[Tile, View]
"""What one view needs of the image for one window: the tile's ``crop`` is of the output once it is turned back."""


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """How an image is cut for some views of it.

    Parameters
    ----------
    tiles
        The windows; for several views with room to read each on the pooling grid of any view.
    geometry
        Of the net.
    views
        Whose mean is wanted.

    """

    tiles: TilePlan
    geometry: Geometry
    views: tuple[View, ...] = ONE_VIEW

    def __len__(self) -> int:
        return len(self.tiles) * len(self.views)

    def __iter__(self) -> Iterator[TileView]:
        """All views of the first tile, then of the next."""
        for tile in self.tiles:
            for view in self.views:
                yield (tile if len(self.views) == 1 else self._seen(tile, view)), view

    def _seen(self, tile: Tile, view: View) -> Tile:
        axes = zip(
            (self.geometry.y, self.geometry.x),
            self.tiles.size_yx,
            self.tiles.input_yx,
            (tile.write.y, tile.write.x),
            view.reversed_yx,
            strict=True,
        )
        (read_y, crop_y), (read_x, crop_x) = (_on_grid(*axis) for axis in axes)
        return Tile(Window(read_y, read_x), tile.write, Window(crop_y, crop_x))


def plan_views(planner: Planner, size_yx: tuple[int, int], *, mirror: bool) -> ViewPlan:
    """Plan an image of ``size_yx`` pixels for one view, or for the mean of all, in square tiles where any is turned.

    Raises
    ------
    PlanError
        As for :meth:`model.planner.Planner.plan`.

    """
    geometry = planner.geometry
    if not mirror:
        return ViewPlan(planner.plan(size_yx), geometry)
    return ViewPlan(planner_of_views(planner).plan(size_yx), geometry, mirrored_views(geometry))


def planner_of_views(planner: Planner) -> Planner:
    """Return the planner of tiles with room to read each on the pooling grid of any of the mirrored views.

    Raises
    ------
    PlanError
        Where no tile within the memory budget has that room.

    """
    geometry, shapes = planner.geometry, planner.shapes
    y, x = (replace(axis, halo=axis.halo + axis.grid // 2) for axis in (geometry.y, geometry.x))
    if shapes is not None:
        shapes = tuple(shape for shape in shapes if y.stride_of(shape[0]) and x.stride_of(shape[1]))
        if not shapes:
            raise PlanError(
                "no tile within the memory budget has room for mirrored views; raise it, or ask for one view"
            )
    turned = any(view.quarter_turns % 2 for view in mirrored_views(geometry))
    return replace(planner, geometry=Geometry(y, x), shapes=shapes, square=turned)


@dataclass(slots=True)
class _Sum:
    """Of the outputs of a window's views so far, in the order of the views; later ones wait for their turn."""

    total: NDArray[np.float32] = field(default_factory=lambda: np.zeros((), dtype=np.float32))
    added: int = 0
    waiting: dict[View, NDArray[np.float32]] = field(default_factory=dict)

    def add_up(self, views: tuple[View, ...]) -> None:
        """Add the outputs whose turn it is."""
        for view in views[self.added :]:
            if view not in self.waiting:
                return
            self.total = self.total + self.waiting.pop(view)
            self.added += 1


class MeanOfViews:
    """Receives the outputs of a plan's tiles in any order and thread, and hands on the mean over each tile's views.

    The mean does not depend on that order, to the last bit.

    Parameters
    ----------
    views
        Whose mean is wanted; with one, everything passes through as it is.
    write
        Told a tile and its output (c, y, x).

    """

    def __init__(self, views: tuple[View, ...], write: Callable[[Tile, NDArray[np.float32]], None]) -> None:
        self._views = views
        self._write = write
        self._sums: dict[Window, _Sum] = {}
        self._lock = threading.Lock()

    def write(self, part: TileView, output_cyx: NDArray[np.float32]) -> None:
        """Take the output (c, y, x) of one view of a tile.

        Raises
        ------
        InferenceFailed
            Where it does not cover the tile.

        """
        tile, view = part
        if len(self._views) == 1:
            self._write(tile, output_cyx)
            return
        cropped = view.back(output_cyx)[(slice(None), *tile.crop.slices)]
        if cropped.shape[1:] != tile.write.shape_yx:
            raise InferenceFailed(
                f"the net returned {output_cyx.shape[-2]} x {output_cyx.shape[-1]} px, of which "
                f"{tile.crop.y.stop} x {tile.crop.x.stop} are needed; the package declares a wrong output size"
            )
        with self._lock:
            so_far = self._sums.setdefault(tile.write, _Sum())
            so_far.waiting[view] = cropped
            so_far.add_up(self._views)
            if so_far.added < len(self._views):
                return
            del self._sums[tile.write]
        height, width = tile.write.shape_yx
        whole = Window(Span(0, height), Span(0, width))
        self._write(Tile(tile.read, tile.write, whole), so_far.total / np.float32(len(self._views)))


def _on_grid(axis: AxisGeometry, size: int, input_size: int, write: Span, reverse: bool) -> tuple[Span, Span]:
    """Read and crop spans for ``write``, read from the end of an axis of ``size`` pixels or from its beginning."""
    if reverse:
        from_end = (size - write.stop) // axis.grid * axis.grid
        start = size - from_end + axis.margin - input_size
    else:
        start = write.start - axis.margin
    offset = write.start - start - axis.shrink // 2
    return Span(start, start + input_size), Span(offset, offset + len(write))
