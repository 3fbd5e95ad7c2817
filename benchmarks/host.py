"""What the CPU does for one tile beside the net: reading it, and keeping what the request asks for.

    python -m benchmarks.host [--package model/zoo/nuclei] [--stride 896] [--repeats 25]

A net on a GPU that reduces its own output (:mod:`model.reduced`) hands over the evidence instead of all probabilities:
the last two columns are the milliseconds of either, medians of turns, on one core.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.labels import class_mask, evidence_mask, evidence_of
from model.normalization import fit
from model.package import read_package
from model.stitching import Reduce, Stitcher, read_tile
from model.tiling import plan_with_stride
from service.engine.packages.machine import this_machine


def milliseconds(steps: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median time of each step; they take turns, so that a busy machine is so to all of them."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            found[name].append(time.perf_counter() - started)
    return {name: 1000 * statistics.median(times) for name, times in found.items()}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, default=Path("model/zoo/nuclei"))
    parser.add_argument("--stride", type=int, default=896, help="output pixels of a tile's edge")
    parser.add_argument("--repeats", type=int, default=25)
    options = parser.parse_args()

    spec = read_package(options.package).spec
    rule, classes = spec.label_rule, len(spec.classes)
    rng = np.random.default_rng(0)
    size_yx = (3 * options.stride, 3 * options.stride)
    image_yxc = rng.integers(0, 1 << 16, (*size_yx, len(spec.channels)), dtype=np.uint16)
    normalization = fit(spec.normalization, image_yxc)
    plan = plan_with_stride(size_yx, spec.geometry, (options.stride, options.stride))
    tile = list(plan)[len(plan) // 2]
    probabilities = rng.dirichlet([1.0] * classes, tile.crop.shape_yx).astype(np.float32)
    probabilities_cyx = np.ascontiguousarray(np.moveaxis(probabilities, -1, 0))
    evidence_1yx = evidence_of(probabilities_cyx, rule)[np.newaxis]

    def writing(dtype: type[np.generic], output: NDArray[np.float32], reduce: Reduce) -> Callable[[], None]:
        stitcher = Stitcher((np.empty(size_yx, dtype=dtype), reduce))
        return lambda: stitcher.write(tile, output)

    found = milliseconds(
        {
            "read": lambda: read_tile(image_yxc, tile, normalization),
            "mask": writing(np.uint8, probabilities_cyx, lambda output: class_mask(output, rule)),
            "mask, reduced": writing(np.uint8, evidence_1yx, lambda output: evidence_mask(output[0], rule)),
            "labels": writing(np.float32, probabilities_cyx, lambda output: evidence_of(output, rule)),
            "labels, reduced": writing(np.float32, evidence_1yx, lambda output: output[0]),
        },
        options.repeats,
    )
    print(f"{this_machine()}\n{spec.reference}: tiles of {plan.input_yx[0]} x {plan.input_yx[1]} px")
    print(f"{'':8}{'read':>8}{'probabilities':>16}{'evidence':>10}{'all of it':>18}")
    for name in ("mask", "labels"):
        whole, reduced = found[name], found[f"{name}, reduced"]
        ratio = (found["read"] + whole) / (found["read"] + reduced)
        print(f"{name:8}{found['read']:8.2f}{whole:16.2f}{reduced:10.2f}{ratio:12.2f} : 1")


if __name__ == "__main__":
    main()
