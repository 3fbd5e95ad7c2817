"""A net on a GPU by itself: what provider options, batches, tile sizes and copies are worth.

    python -m benchmarks.gpu [--width 64 | --package model/zoo/nuclei] [--precision fp16] [--batches 1 4 8]
                             [--edges 572 700 956 1212] [--seconds 0.7]

Every row is a session of its own, opened as the service opens it but for the options that the row names, warmed up, and
run over one batch again and again. ``on the device`` leaves tiles and answers on the GPU: what the kernels take.
``copied`` takes an array and gives one back, as the service does; ``two at a time`` does so from two threads, as the
service does too, so that one batch is copied while the other computes. Speeds are in millions of output pixels a
second: 388 x 388 of a tile of 572 x 572 px.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed import decided_package
from model.backends import OnnxRuntimeSession
from model.errors import ModelError
from model.package import Package, read_package
from model.session import SessionOptions, resolve_backend
from service.commands.common import table
from service.engine.packages.machine import this_machine

_OPTIONS = SessionOptions(backend="cuda")
_AS_SERVED = "as served"
_VARIANTS: Mapping[str, Mapping[str, str]] = {
    _AS_SERVED: {},
    "channels first": {"prefer_nhwc": "0"},
    "channels last": {"prefer_nhwc": "1"},
    "fused bias": {"fuse_conv_bias": "1"},
    "searched": {"cudnn_conv_algo_search": "EXHAUSTIVE"},
}
_HEADER = ("", "tiles", "on the device", "copied", "two at a time")


@dataclass(frozen=True, slots=True)
class Rates:
    """Millions of output pixels a second."""

    on_device: float
    copied: float
    two_at_a_time: float


def rates(runtime: Any, device: str, tiles_bcyx: NDArray[np.float32], seconds: float) -> Rates:  # noqa: ANN401 - untyped
    """Measure one batch.

    Parameters
    ----------
    runtime
        ``onnxruntime.InferenceSession``.
    device
        Where its kernels read and write, in ONNX Runtime's words: ``cuda`` (the first one), ``cpu``.
    tiles_bcyx
        The batch.
    seconds
        About how long each of the three takes.

    """
    import onnxruntime as ort

    name, out = runtime.get_inputs()[0].name, runtime.get_outputs()[0].name
    binding = runtime.io_binding()
    binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(tiles_bcyx, device, 0))
    binding.bind_output(out, device, 0)

    def on_device() -> None:
        runtime.run_with_iobinding(binding)
        binding.synchronize_outputs()

    def copied() -> None:
        runtime.run([out], {name: tiles_bcyx})

    (answer,) = runtime.run([out], {name: tiles_bcyx})
    pixels = answer.shape[0] * answer.shape[2] * answer.shape[3] / 1e6
    return Rates(
        *(pixels / seconds_each(call, seconds, threads) for call, threads in ((on_device, 1), (copied, 1), (copied, 2)))
    )


def seconds_each(call: Callable[[], object], seconds: float, threads: int) -> float:
    """Seconds that pass for each call, made from so many threads for about ``seconds``; the first ones do not count."""

    def repeat(_: int) -> int:
        count = 0
        while not count or time.perf_counter() < end:
            call()
            count += 1
        return count

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: call(), range(threads)))
        started = time.perf_counter()
        end = started + seconds
        count = sum(pool.map(repeat, range(threads)))
        return (time.perf_counter() - started) / count


def measure(
    package: Package, precision: str, batches: Sequence[int], edges: Sequence[int], seconds: float
) -> list[str]:
    """A table: every variant with the largest batch, what is served with every batch and with tiles of every edge."""
    noise, channels, most = np.random.default_rng(0), len(package.spec.channels), max(batches)
    rows: list[tuple[str, ...]] = [_HEADER]
    for name, changed in _VARIANTS.items():
        sizes = [(most, edges[0])]
        if name == _AS_SERVED:
            # as many pixels in a call whatever the tiles
            sizes = [(batch, edges[0]) for batch in batches]
            sizes += [(max(1, round(most * (edges[0] / edge) ** 2)), edge) for edge in edges[1:]]
        for batch, edge in sizes:
            tiles = noise.random((batch, channels, edge, edge), dtype=np.float32)
            try:
                session = OnnxRuntimeSession(package, "cuda", _OPTIONS, precision, **changed)
                found = rates(session.runtime, "cuda", tiles, seconds)
            except Exception as error:
                print(f"{name}, {batch} x {edge} px, is left out: {str(error)[:300]}", flush=True)
                continue
            figures = (found.on_device, found.copied, found.two_at_a_time)
            rows.append((name, f"{batch} x {edge} px", *(f"{figure:.1f}" for figure in figures)))
    return list(table(rows))


def positive(text: str) -> int:
    """Read a number from 1; argparse tells of a ValueError."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is too few; use 1 or more")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 where there is no GPU to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    nets = parser.add_mutually_exclusive_group()
    nets.add_argument("--width", type=positive, default=64, help="of the first level of a net with random weights")
    nets.add_argument("--package", type=Path, help="measure this one in its place")
    parser.add_argument("--precision", choices=("fp16", "fp32"), default="fp16")
    parser.add_argument("--batches", type=positive, nargs="+", default=[1, 4, 8], help="tiles in one call")
    parser.add_argument("--edges", type=positive, nargs="+", default=[572, 700, 956, 1212], help="of the tiles, px")
    parser.add_argument("--seconds", type=float, default=0.7, help="of each measurement")
    options = parser.parse_args(arguments)
    try:
        resolve_backend(_OPTIONS)
        with tempfile.TemporaryDirectory() as folder:
            if options.package:
                package = read_package(options.package)
            else:
                package = decided_package(Path(folder), options.width, integers=False)
            print(this_machine())
            print(f"{package.spec.reference} in {options.precision}, millions of output pixels a second", flush=True)
            lines = measure(package, options.precision, options.batches, options.edges, options.seconds)
    except ModelError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
