"""Cost of the weight map over 10, 100 and 1000 cells in an image of the same size.

    python -m benchmarks.weight_map [--size 2048] [--sigma 5] [--repeats 3]

Four kinds of images: cells of one size; cells that grow as their number falls, so that they always cover the same share
of the image; the first kind with one more cell that reaches around all others; and stripes across the whole image, each
as long as the diagonal. A cost is the time of :func:`training.data.weight_map.border_term` in seconds of the processor,
the best of the repeats; beside it stands its ratio to that of 10 cells. The definition takes a distance transform of
the whole image for each cell and the two smallest distances at each pixel; it is timed for five cells, and the ratio is
to that time scaled to all of them.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.weight_map import border_term

COUNTS = (10, 100, 1000)
_TIMED_CELLS = 5
_RADIUS_PX = 16.0  # of cells that keep their size


def discs(count: int, size: int, *, scaled: bool) -> NDArray[np.int32]:
    """``count`` discs, evenly spread; of one radius, or, ``scaled``, as large as their number allows."""
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    pitch_yx = (size / rows, size / columns)
    radius = 0.42 * min(pitch_yx) if scaled else min(_RADIUS_PX, 0.42 * min(pitch_yx))
    y, x = np.indices((size, size), dtype=np.float32)
    row, column = (np.floor(axis / pitch) for axis, pitch in zip((y, x), pitch_yx, strict=True))
    away = np.hypot(y - (row + 0.5) * pitch_yx[0], x - (column + 0.5) * pitch_yx[1])
    numbers = row * columns + column + 1
    labels: NDArray[np.int32] = np.where((away <= radius) & (numbers <= count), numbers, 0).astype(np.int32)
    return labels


def with_a_large_one(count: int, size: int) -> NDArray[np.int32]:
    """``count`` discs of one radius, one cell of which surrounds all others."""
    labels = discs(count - 1, size, scaled=False)
    labels[ndimage.distance_transform_edt(labels == 0) > 6] = count
    return labels


def stripes(count: int, size: int) -> NDArray[np.int32]:
    """``count`` diagonal stripes, half as wide as their pitch; the window of most of them is most of the image."""
    y, x = np.indices((size, size))
    place, within = np.divmod((y + x) * count, 2 * size)
    labels: NDArray[np.int32] = np.where(within < size, place + 1, 0).astype(np.int32)
    return labels


def definition_seconds(labels_yx: NDArray[np.int32], count: int) -> float:
    """Processor time of the definition for all cells, scaled up from a few."""
    nearest = np.full(labels_yx.shape, np.inf, dtype=np.float32)
    second = nearest.copy()
    began = time.process_time()
    for number in range(1, _TIMED_CELLS + 1):
        distance = ndimage.distance_transform_edt(labels_yx != number).astype(np.float32)
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    return (time.process_time() - began) * count / _TIMED_CELLS


def best_seconds(work: Callable[[], object], repeats: int) -> float:
    """Shortest processor time of some turns."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="edge of the square image, px")
    parser.add_argument("--sigma", type=float, default=5.0, help="width of the term, px (5 in the paper)")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    size: int = arguments.size
    kinds: dict[str, Callable[[int], NDArray[np.int32]]] = {
        "cells of one size": lambda count: discs(count, size, scaled=False),
        "cells that fill the image": lambda count: discs(count, size, scaled=True),
        "one size, one around all": lambda count: with_a_large_one(count, size),
        "stripes across the image": lambda count: stripes(count, size),
    }
    print(f"{size} x {size} px, sigma {arguments.sigma:g} px; processor time, best of {arguments.repeats} turns")
    print(f"{'':<26} {'cells':>6} {'seconds':>8} {'over 10 cells':>14} {'definition over it':>19}")
    for name, draw in kinds.items():
        first = None
        for count in COUNTS:
            labels = draw(count)
            ours = best_seconds(lambda labels=labels: border_term(labels, 10.0, arguments.sigma), arguments.repeats)  # type: ignore[misc]
            first = first or ours
            ratio = definition_seconds(labels, count) / ours
            print(f"{name:<26} {count:>6} {ours:>8.2f} {ours / first:>14.2f} {ratio:>19.0f}")


if __name__ == "__main__":
    main()
