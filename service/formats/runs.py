"""Column-major run lengths of every object of a label image, all at once.

The format is COCO's (pycocotools, ``maskApi.c``): an image is read column by column, runs of background and foreground
alternate, and the first run is background, of length 0 where the first pixel is foreground.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.pixels import Pixels, row_bands

BLOCK = 1 << 18
"""Elements per call of those NumPy functions that keep the interpreter's lock; about a millisecond each."""
COLUMNS_PX = 1 << 22
"""Pixels of the columns that are looked at together."""
MAX_GROUPS = 13  # 64 bits in groups of five


@dataclass(frozen=True, slots=True)
class ObjectRuns:
    """One object of a plane."""

    label: int
    area: int
    """Pixels."""
    bbox_xywh: tuple[int, int, int, int]
    """Left, top, width, height in pixels."""
    counts: str
    """Run lengths, as pycocotools compresses them."""


def flat_nonzero(values: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions of the true elements of a one-dimensional array, found block by block."""
    parts = [np.flatnonzero(values[at : at + BLOCK]) + at for at in range(0, len(values), BLOCK)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _foreground_runs(labels_yx: Pixels) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Start, end and label of every foreground run of the column-major image, found some columns at a time."""
    height, width = labels_yx.shape
    all_starts: list[NDArray[np.int64]] = []
    all_values: list[NDArray[Any]] = []
    for columns in row_bands(width, height, COLUMNS_PX):
        flat = np.ascontiguousarray(labels_yx[:, columns].T).reshape(-1)
        starts = np.concatenate(([0], flat_nonzero(flat[1:] != flat[:-1]) + 1))
        values = flat[starts]
        if all_values and all_values[-1][-1] == values[0]:  # the run goes on from the column before
            starts, values = starts[1:], values[1:]
        if len(values):
            all_starts.append(starts + columns.start * height)
            all_values.append(values)
    starts, values = np.concatenate(all_starts), np.concatenate(all_values)
    ends = np.concatenate((starts[1:], [height * width]))
    keep = flat_nonzero(values != 0)
    return starts[keep], ends[keep], values[keep]


def object_runs(labels_yx: Pixels) -> Iterator[ObjectRuns]:
    """Describe each object of one plane, in the order of their labels.

    Parameters
    ----------
    labels_yx
        Unsigned integers (y, x), 0 = background; at least one pixel.

    Yields
    ------
    ObjectRuns
        One per label that occurs. Time grows with pixels and runs, not with objects times pixels.
    """
    height, width = labels_yx.shape
    starts, ends, values = _foreground_runs(labels_yx)
    if not len(values):
        return
    order = np.argsort(values, kind="stable")
    starts, ends, values = starts[order], ends[order], values[order]
    first_run = np.concatenate(([0], flat_nonzero(values[1:] != values[:-1]) + 1))
    last_run = np.concatenate((first_run[1:], [len(values)])) - 1

    areas = np.add.reduceat(ends - starts, first_run)
    left, right = starts[first_run] // height, (ends[last_run] - 1) // height
    one_column = starts // height == (ends - 1) // height
    top = np.minimum.reduceat(np.where(one_column, starts % height, 0), first_run)
    bottom = np.maximum.reduceat(np.where(one_column, (ends - 1) % height, height - 1), first_run)

    counts, first_count = _counts(starts, ends, first_run, last_run, pixels=height * width)
    text, first_byte = compress(counts, first_count)
    for i, label in enumerate(values[first_run]):
        yield ObjectRuns(
            label=int(label),
            area=int(areas[i]),
            bbox_xywh=(int(left[i]), int(top[i]), int(right[i] - left[i] + 1), int(bottom[i] - top[i] + 1)),
            counts=text[first_byte[i] : first_byte[i + 1]].decode("ascii"),
        )


def _counts(
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    first_run: NDArray[np.int64],
    last_run: NDArray[np.int64],
    *,
    pixels: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Alternating counts of all objects in one array, and where each object's begin (one more entry: the end)."""
    previous_end = np.concatenate(([0], ends[:-1]))
    previous_end[first_run] = 0
    trailing = pixels - ends[last_run]
    has_trailing = trailing > 0
    lengths = 2 * (last_run - first_run + 1) + has_trailing
    first_count = np.concatenate(([0], np.cumsum(lengths)))
    run_object = np.repeat(np.arange(len(first_run)), last_run - first_run + 1)
    position = first_count[run_object] + 2 * (np.arange(len(starts)) - first_run[run_object])
    counts = np.empty(first_count[-1], dtype=np.int64)
    counts[position] = starts - previous_end
    counts[position + 1] = ends - starts
    counts[first_count[1:][has_trailing] - 1] = trailing[has_trailing]
    return counts, first_count


def compress(counts: NDArray[np.int64], first_count: NDArray[np.int64]) -> tuple[bytes, NDArray[np.int64]]:
    """``rleToString`` of maskApi.c for all objects: differences to the count before last, in signed groups of 5 bits.

    Returns the bytes, and where each object's begin (one more entry: the end).
    """
    rest = counts.copy()
    rest[2:] -= counts[:-2]
    # The first three counts of an object stand as they are.
    for i in range(3):
        head = first_count[:-1] + i
        head = head[head < first_count[1:]]
        rest[head] = counts[head]
    parts: list[bytes] = []
    sizes = np.empty(len(counts), dtype=np.int64)
    for at in range(0, len(counts), BLOCK):
        block = rest[at : at + BLOCK]
        groups = np.zeros((len(block), MAX_GROUPS), dtype=np.uint8)
        size = np.zeros(len(block), dtype=np.int64)
        active = np.arange(len(block))
        for group in range(MAX_GROUPS):
            low = block[active] & 0x1F
            block[active] >>= 5
            more = np.where(low & 0x10, block[active] != -1, block[active] != 0)
            groups[active, group] = low + 48 + (more << 5)
            size[active] = group + 1
            active = active[more]
            if not len(active):
                break
        widest = int(size.max())
        parts.append(groups[:, :widest][np.arange(widest) < size[:, np.newaxis]].tobytes())
        sizes[at : at + BLOCK] = size
    byte_ends = np.concatenate(([0], np.cumsum(sizes)))
    return b"".join(parts), byte_ends[first_count]


def empty_counts(pixels: int) -> str:
    """Compressed counts of a mask without foreground."""
    return compress(np.array([pixels], dtype=np.int64), np.array([0, 1]))[0].decode("ascii")
