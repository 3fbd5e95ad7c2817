"""Whole requests against a plain ONNX Runtime loop as the paper draws it, with the same weights, in the same run.

    python -m benchmarks.speed [--widths 32 64] [--size 2048] [--repeats 5]

The loop holds a session of ONNX Runtime in fp32, as it comes, and runs it over the paper's 572 px tiles, 388 px apart,
cut and normalised beforehand; its answers are thrown away. The service is ``unet-service serve`` in a process of its
own for each backend and precision that runs here, asked over HTTP for the PNG mask of a 16-bit TIFF. All take turns,
in an order that changes; the figure is the median of the turns' ratios. Weights are random, their last bias is large:
what a net answers does not change its speed, and a net that cannot decide would agree with nobody in bf16.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import tifffile
import torch
from numpy.typing import NDArray

from clients.demo import running_service
from model.labels import LabelRule
from model.normalization import FittedNormalization, ScaleRange, fit
from model.package import Package
from model.session import has_bf16
from model.spec import Person
from model.stitching import read_tile
from model.tiling import Span, Tile, Window
from model.unet import UNet
from service.bench import blobs
from service.engine.machine import this_machine
from training.export import Card, export_package

_PAPER_INPUT_PX, _PAPER_OUTPUT_PX = 572, 388
_SURE = 6.0  # logits by which the first class leads


@dataclass(frozen=True, slots=True)
class Row:
    """A service and what it was measured at."""

    backend: str
    precision: str
    ask: Callable[[], tuple[float, dict[str, Any]]]
    """One request: its seconds and its receipt."""


def write_package(folder: Path, width: int) -> Package:
    """Export the classic net of a base width with random weights as a package."""
    torch.manual_seed(0)
    net = UNet(in_channels=1, classes=2, base_width=width).eval()
    weight, bias = net.head.parameters()
    with torch.no_grad():
        # logits of random weights are of any size: bring them to zero mean and unit variance, and let one class lead
        logits = net(torch.rand(1, 1, 252, 252))
        weight.div_(logits.std())
        bias.sub_(logits.mean(dim=(0, 2, 3))).div_(logits.std()).add_(torch.tensor([_SURE, 0.0]))
    card = Card(
        name=f"random-{width}",
        version="1.0.0",
        title=f"Random weights of base width {width}",
        description="For measuring speed.",
        license="MIT",
        license_text="MIT",
        readme=f"# Random weights, base width {width}\n",
        authors=(Person(name="The benchmarks"),),
    )
    package, _ = export_package(
        net,
        card,
        channels=("grey",),
        classes=("background", "object"),
        normalization=(ScaleRange(),),
        label_rule=LabelRule(),
        image_yxc=blobs(320)[..., np.newaxis],
        out=folder / card.name,
    )
    return package


def plain_loop(package: Package, image_yxc: NDArray[Any]) -> Callable[[], float]:
    """Seconds of ONNX Runtime, as it comes, over the paper's tiles of one image."""
    session = ort.InferenceSession(package.weights(), providers=["CPUExecutionProvider"])
    normalization = fit(package.spec.normalization, image_yxc)
    tiles = list(_paper_tiles(image_yxc, normalization))

    def run() -> float:
        started = time.perf_counter()
        for tile in tiles:
            session.run(None, {package.spec.input_name: tile})
        return time.perf_counter() - started

    return run


def _paper_tiles(image_yxc: NDArray[Any], normalization: FittedNormalization) -> Iterator[NDArray[np.float32]]:
    margin = (_PAPER_INPUT_PX - _PAPER_OUTPUT_PX) // 2
    height, width = image_yxc.shape[:2]
    for top in range(0, height, _PAPER_OUTPUT_PX):
        for left in range(0, width, _PAPER_OUTPUT_PX):
            read = Window(*(Span(start - margin, start - margin + _PAPER_INPUT_PX) for start in (top, left)))
            yield read_tile(image_yxc, Tile(read, read, read), normalization)[np.newaxis]


@contextmanager
def serving(package: Package, backend: str, precision: str, body: bytes, cache: str) -> Iterator[Row]:
    """A service of its own for one backend and precision."""
    settings = {
        "UNET_MODELS_DIR": str(package.path),
        "UNET_BACKEND": backend,
        "UNET_PRECISION": precision,
        "UNET_CACHE_DIR": cache,
        "UNET_DEADLINE_S": "3600",
        "UNET_MAX_BACKLOG_S": "3600",
    }
    with running_service(**settings) as url, httpx.Client(base_url=url, timeout=3600) as client:

        def ask() -> tuple[float, dict[str, Any]]:
            started = time.perf_counter()
            answer = client.post("/segment", content=body).raise_for_status()
            return time.perf_counter() - started, json.loads(answer.headers["X-UNet-Receipt"])

        yield Row(backend, precision, ask)


def measure(width: int, size: int, repeats: int, folder: Path) -> None:
    """Print the rows of one width."""
    package = write_package(folder, width)
    image_yx = blobs(size)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image_yx)
    plain = plain_loop(package, image_yx[..., np.newaxis])
    engines = [("cpu", "fp32"), ("openvino", "fp32")] + ([("openvino", "bf16")] if has_bf16("openvino") else [])
    with ExitStack() as stack:
        rows = [
            stack.enter_context(serving(package, backend, precision, buffer.getvalue(), str(folder / "speeds")))
            for backend, precision in engines
        ]
        receipts = [row.ask()[1] for row in rows]
        plain()
        turns: list[tuple[float, list[float]]] = []
        for repeat in range(repeats):
            seconds = [0.0] * len(rows)
            loop_s = 0.0
            # whoever comes next finds the caches as the one before left them: everyone comes after everyone
            for place in range(len(rows) + 1):
                which = (place + repeat) % (len(rows) + 1)
                if which == len(rows):
                    loop_s = plain()
                else:
                    seconds[which] = rows[which].ask()[0]
            turns.append((loop_s, seconds))
    print(f"width {width}: plain loop {statistics.median(turn[0] for turn in turns):.3f} s")
    for index, (row, receipt) in enumerate(zip(rows, receipts, strict=True)):
        if (receipt["backend"], receipt["precision"]) != (row.backend, row.precision):
            raise SystemExit(f"{row.backend} {row.precision} was asked for, {receipt['provider']} ran")
        ratios = sorted(turn[0] / turn[1][index] for turn in turns)
        whole_s = statistics.median(turn[1][index] for turn in turns)
        tiles = receipt["tiles"]
        print(
            f"  {row.backend:<9} {row.precision}  {whole_s:7.3f} s  {statistics.median(ratios):5.2f}x "
            f"(from {ratios[0]:.2f} to {ratios[-1]:.2f}), {tiles['count']} tiles of "
            f"{tiles['input_yx'][0]} x {tiles['input_yx'][1]} px"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64], help="of the nets' first level")
    parser.add_argument("--size", type=int, default=2048, help="edge of the square image, px")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(this_machine())
    print(f"{arguments.size} x {arguments.size} px uint16 TIFF -> PNG mask over HTTP, {arguments.repeats} turns")
    with tempfile.TemporaryDirectory() as folder:
        for width in arguments.widths:
            measure(width, arguments.size, arguments.repeats, Path(folder))


if __name__ == "__main__":
    main()
