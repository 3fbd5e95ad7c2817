"""A net on a GPU by itself: what provider options, batches, tile sizes and copies are worth.

    python -m benchmarks.gpu [--width 64 | --package model/zoo/nuclei] [--precision fp16] [--batches 1 4 8 16]
                             [--edges 572 700 956 1212] [--seconds 0.7]

Every row is a session of ONNX Runtime of its own, warmed up, then run over one batch again and again. ``device`` leaves
tiles and answers on the GPU: what the kernels take. ``copied`` takes an array and gives one back, as the service does;
``two at a time`` does so from two threads, as the service does too, so that one batch is copied while the other
computes. Speeds are in millions of output pixels a second: 388 x 388 of a tile of 572 x 572.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed import decided_package
from model.backends import PROVIDERS, provider_options
from model.half import half_graph
from model.package import Package, read_package
from model.session import SessionOptions
from service.commands.common import table
from service.engine.machine import this_machine

_VARIANTS: Mapping[str, Mapping[str, str]] = {
    "as served": {},
    "channels first": {"prefer_nhwc": "0"},
    "channels last": {"prefer_nhwc": "1"},
    "first, fused bias": {"prefer_nhwc": "0", "fuse_conv_bias": "1"},
    "last, fused bias": {"prefer_nhwc": "1", "fuse_conv_bias": "1"},
    "first, searched": {"prefer_nhwc": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"},
    "last, searched": {"prefer_nhwc": "1", "cudnn_conv_algo_search": "EXHAUSTIVE"},
}
_LANES = 2


@dataclass(frozen=True, slots=True)
class Bare:
    """A session on the GPU."""

    session: Any
    options: SessionOptions

    def rates(self, tiles_bcyx: np.ndarray[Any, np.dtype[np.float32]], seconds: float) -> tuple[float, float, float]:
        """Mpx/s of output: on the device, copied, and copied two at a time."""
        import onnxruntime as ort

        name, out = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name
        device = self.options.devices[0]
        binding = self.session.io_binding()
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(tiles_bcyx, "cuda", device))
        binding.bind_output(out, "cuda", device)

        def on_device() -> None:
            self.session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        def copied() -> None:
            self.session.run([out], {name: tiles_bcyx})

        (answer,) = self.session.run([out], {name: tiles_bcyx})
        pixels = answer.shape[0] * answer.shape[2] * answer.shape[3] / 1e6
        return (
            pixels / _each(on_device, seconds),
            pixels / _each(copied, seconds),
            pixels / _each(copied, seconds, threads=_LANES),
        )


def _each(call: Callable[[], None], seconds: float, threads: int = 1) -> float:
    """Seconds of each call over about ``seconds`` in which nothing else runs, from so many threads."""
    call()

    def repeat(_: int) -> int:
        count = 0
        while time.perf_counter() < end:
            call()
            count += 1
        return count

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: call(), range(threads)))
        started = time.perf_counter()
        end = started + seconds
        count = sum(pool.map(repeat, range(threads)))
        return (time.perf_counter() - started) / count


@contextmanager
def opened(graph: bytes, precision: str, changed: Mapping[str, str]) -> Iterator[Bare]:
    """Open a session as the service does, but for some provider options."""
    import onnxruntime as ort

    options = SessionOptions(backend="cuda")
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.enable_mem_pattern = False
    ort.preload_dlls()
    chosen = provider_options("cuda", options, precision) | dict(changed)
    session = ort.InferenceSession(graph, settings, providers=[(PROVIDERS["cuda"], chosen)])
    session.disable_fallback()
    yield Bare(session, options)


def measure(package: Package, arguments: argparse.Namespace) -> None:
    """Print a row for each variant and batch, then one for each edge with the fastest of them."""
    graph = half_graph(package.weights()) if arguments.precision == "fp16" else package.weights()
    channels, edge = len(package.spec.channels), arguments.edges[0]
    rows: list[tuple[str, ...]] = [("", "tiles", "device", "copied", f"{_LANES} at a time")]
    noise = np.random.default_rng(0)
    best, fastest = "as served", 0.0

    def row(name: str, bare: Bare, batch: int, edge: int) -> float:
        tiles = noise.random((batch, channels, edge, edge), dtype=np.float32)
        started = time.perf_counter()
        rates = bare.rates(tiles, arguments.seconds)
        rows.append((name, f"{batch} x {edge} px", *(f"{rate:.1f}" for rate in rates)))
        print(*rows[-1], f"{time.perf_counter() - started:.1f} s", sep="  ", flush=True)
        return rates[-1]

    for name, changed in _VARIANTS.items():
        batches = arguments.batches if name == "as served" else arguments.batches[-2:-1]
        try:
            with opened(graph, arguments.precision, changed) as bare:
                for batch in batches:
                    rate = row(name, bare, batch, edge)
                    if rate > fastest:
                        best, fastest = name, rate
        except Exception as error:
            print(f"{name} is left out: {str(error)[:300]}", flush=True)
    with opened(graph, arguments.precision, _VARIANTS[best]) as bare:
        for other in arguments.edges[1:]:
            row(best, bare, max(1, arguments.batches[-2] * edge**2 // other**2), other)
    print("\n".join(table(rows)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    nets = parser.add_mutually_exclusive_group()
    nets.add_argument("--width", type=int, default=64, help="of the first level of a net with random weights")
    nets.add_argument("--package", type=Path, help="measure this one in its place")
    parser.add_argument("--precision", choices=("fp16", "fp32"), default="fp16")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16], help="tiles in one call, ascending")
    parser.add_argument("--edges", type=int, nargs="+", default=[572, 700, 956, 1212], help="of the tiles, px")
    parser.add_argument("--seconds", type=float, default=0.7, help="of each measurement")
    arguments = parser.parse_args()
    print(this_machine())
    with tempfile.TemporaryDirectory() as folder:
        package = (
            read_package(arguments.package)
            if arguments.package
            else decided_package(Path(folder), arguments.width, integers=False)
        )
        print(f"{package.spec.reference} in {arguments.precision}, millions of output pixels a second", flush=True)
        measure(package, arguments)


if __name__ == "__main__":
    main()
