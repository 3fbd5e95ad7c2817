"""Outlines of all objects of a label image along the edges of their pixels, holes included, in one pass.

Coordinates are pixel corners: pixel (y, x) covers (x, y) to (x + 1, y + 1), so the area that the rings of a region
enclose is exactly its count of pixels (test: ``test_area_of_the_polygons_is_the_count_of_pixels``).

A region is a connected part (pixels that share an edge) of one label. Its boundary is walked with its pixels on the
right, corner to corner::

    . . . . .        At the end of a side the two pixels ahead decide:
    . > > v .          right one not of the region             turn right
    . ^ a v < .        both of the region                      turn left
    . ^ < a a .        right one only                          go straight, no corner
    . . . . .

Where two pixels of one region touch at a corner only, the walk stays with its own pixel; a walk that comes through the
same corner twice is cut in two there. So every ring is simple, rings touch at corners at most, and the polygons are
valid in the sense of OGC Simple Features.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import skimage
from numpy.typing import NDArray

from model.pixels import Pixels
from service.formats.runs import flat_nonzero

BAND_PX = 1 << 20
"""Pixels per band of rows: what NumPy looks at in one call."""
RIGHT, DOWN, LEFT, UP = range(4)


@dataclass(frozen=True, slots=True)
class Region:
    """One connected part of one label."""

    label: int
    rings_xy: tuple[NDArray[np.int64], ...]
    """Outer ring, then holes; each (n, 2) corners, not closed. In pixel coordinates (y down) the outer ring runs
    clockwise and holes run against it."""


@dataclass(frozen=True, slots=True)
class _Sides:
    """Straight pieces of boundary, as columns."""

    start: NDArray[np.int64]
    """Corner number, y * (width + 1) + x."""
    end: NDArray[np.int64]
    heading: int
    turns_right: NDArray[np.bool_]
    saddle: NDArray[np.bool_]
    """At its end two pixels of the region touch at a corner only."""
    region: NDArray[np.int64]


def regions(labels_yx: Pixels, *, by_label: bool = False) -> Iterator[Region]:
    """Trace every region of one plane, in the order of their first pixels.

    Parameters
    ----------
    labels_yx
        Unsigned integers (y, x), 0 = background.
    by_label
        Whether all regions of a label come together, in the order of labels.

    Yields
    ------
    Region
        Time grows with pixels and corners.
    """
    height, width = labels_yx.shape
    parts = np.zeros((height + 2, width + 2), dtype=np.uint32)
    # releases the interpreter's lock, unlike cc3d
    parts[1:-1, 1:-1] = skimage.measure.label(labels_yx[:, :], connectivity=1)
    flipped = np.ascontiguousarray(parts.T)
    sides = [
        _sides(parts, width, RIGHT, below=True, forward=True),
        _sides(flipped, width, DOWN, below=False, forward=True),
        _sides(parts, width, LEFT, below=False, forward=False),
        _sides(flipped, width, UP, below=True, forward=False),
    ]
    rings = _rings(sides, width + 1)
    if not len(rings.region):
        return
    order = np.lexsort((~rings.outer, rings.region))
    bounds = np.concatenate(([0], flat_nonzero(np.diff(rings.region[order]) != 0) + 1, [len(order)]))
    # The first corner of an outer ring is not always its topmost; a pixel of the region lies on the right of it.
    labels = np.fromiter((labels_yx[rings.pixel_yx(ring)] for ring in order[bounds[:-1]]), labels_yx.dtype)
    turns = np.argsort(labels, kind="stable") if by_label else np.arange(len(labels))
    # one by one: the garbage collector would go through all of them, with the interpreter's lock
    for turn in turns:
        mine = order[bounds[turn] : bounds[turn + 1]]
        found = tuple(rings.xy[rings.first[ring] : rings.first[ring + 1]] for ring in mine)
        yield Region(label=int(labels[turn]), rings_xy=found)


def _sides(parts: NDArray[np.uint32], width: int, heading: int, *, below: bool, forward: bool) -> _Sides:
    """Find the straight pieces of boundary between rows (of the image or, for DOWN and UP, of its transpose)."""
    lines, length = parts.shape[0] - 1, parts.shape[1] - 2
    step = max(1, BAND_PX // (length + 2))
    columns: list[tuple[NDArray[Any], ...]] = []
    ahead = slice(2, None) if forward else slice(0, -2)
    for top in range(0, lines, step):
        above_rows, below_rows = parts[top : min(top + step, lines)], parts[top + 1 : min(top + step, lines) + 1]
        own, other = (below_rows, above_rows) if below else (above_rows, below_rows)
        mine = own[:, 1:-1]
        at = flat_nonzero(((mine != other[:, 1:-1]) & (mine != 0)).reshape(-1))
        row, column = at // length, at % length
        region = mine[row, column]
        gone = own[:, ahead][row, column] != region
        across = other[:, ahead][row, column] == region
        turn = gone | across
        corner = flat_nonzero(turn)
        # Edges come in reading order. A side ends at its corner: its last edge forward, its first one backward.
        if forward:
            first = np.concatenate(([0], corner + 1))[: len(corner)]
            begin, end = column[first], column[corner] + 1
        else:
            first = np.concatenate((corner, [len(at)]))[1:] - 1
            begin, end = column[first] + 1, column[corner]
        line = row[corner] + top
        columns.append((line, begin, end, gone[corner], (gone & across)[corner], region[corner]))
    line, begin, end, gone, saddle, region = (np.concatenate(column) for column in zip(*columns, strict=True))
    if heading in {RIGHT, LEFT}:
        start, stop = line * (width + 1) + begin, line * (width + 1) + end
    else:
        start, stop = begin * (width + 1) + line, end * (width + 1) + line
    return _Sides(start, stop, heading, gone, saddle, region.astype(np.int64))


@dataclass(frozen=True, slots=True)
class _Rings:
    xy: NDArray[np.int64]
    first: NDArray[np.int64]
    region: NDArray[np.int64]
    outer: NDArray[np.bool_]
    heading: NDArray[np.int64]

    def pixel_yx(self, ring: int) -> tuple[int, int]:
        """Return the pixel of the region beside the first corner, on the right of the side that leaves it."""
        x, y = self.xy[self.first[ring]].tolist()
        dy, dx = {RIGHT: (0, 0), DOWN: (0, -1), LEFT: (-1, -1), UP: (-1, 0)}[int(self.heading[ring])]
        return y + dy, x + dx


def _rings(sides: list[_Sides], corners_per_row: int) -> _Rings:
    """Join the sides to rings and tell outer ones from holes by the sign of their area."""
    start = np.concatenate([side.start for side in sides])
    end = np.concatenate([side.end for side in sides])
    heading = np.concatenate([np.full(len(side.start), side.heading) for side in sides])
    right = np.concatenate([side.turns_right for side in sides])
    saddle = np.concatenate([side.saddle for side in sides])
    region = np.concatenate([side.region for side in sides])
    # A corner and a heading name one side: the pixel on its right belongs to one region.
    keys = start * 4 + heading
    wanted = end * 4 + (heading + np.where(right, 1, 3)) % 4
    following = np.empty_like(keys)
    following[np.argsort(wanted)] = np.argsort(keys)  # each side is followed by one, and follows one

    walk, lengths = _walk(following, saddle, end)
    first = np.concatenate(([0], np.cumsum(np.frombuffer(lengths, dtype=np.int64))))
    order = np.frombuffer(walk, dtype=np.int64)
    y, x = np.divmod(start[order], corners_per_row)
    _, end_x = np.divmod(end[order], corners_per_row)
    area = np.add.reduceat((x - end_x) * y, first[:-1]) if len(order) else np.zeros(0, dtype=np.int64)
    leaders = order[first[:-1]]
    return _Rings(np.stack([x, y], axis=1), first, region[leaders], area > 0, heading[leaders])


def _walk(
    following: NDArray[np.int64], saddle: NDArray[np.bool_], end: NDArray[np.int64]
) -> tuple[array[int], array[int]]:
    """Follow the sides around; returns them ring after ring, and the length of each ring."""
    seen = bytearray(len(following))
    walk, lengths = array("q"), array("q")
    next_side, at_saddle, end_corner = following.data, saddle.data, end.data  # cheap to index one by one
    for begin in range(len(following)):
        if seen[begin]:
            continue
        path: list[int] = []
        passed: dict[int, int] = {}
        side = begin
        while not seen[side]:
            seen[side] = 1
            path.append(side)
            if at_saddle[side]:
                corner = end_corner[side]
                since = passed.pop(corner, None)
                if since is None:
                    passed[corner] = len(path)
                else:
                    walk.extend(path[since:])
                    lengths.append(len(path) - since)
                    del path[since:]
            side = next_side[side]
        if path:
            walk.extend(path)
            lengths.append(len(path))
    return walk, lengths
