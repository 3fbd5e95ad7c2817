"""Whole requests against what others do with the same image, in the same run.

    python -m benchmarks.speed [--rows cpu:fp32 openvino:bf16] [--rivals plain monai monai-tuned bioimageio]
                               [--widths 32 64 | --package model/zoo/nuclei] [--size 2048] [--repeats 5]

The service is ``unet-service serve`` in a process of its own for each row, a backend and a precision, asked over HTTP
for the PNG mask of a 16-bit TIFF. Each rival (:mod:`benchmarks.rivals`) is a process of its own too, with all CPUs. All
are started and warmed up, then take turns in an order that changes; the figure is the median of the turns' ratios.
Rows and rivals that package or machine do not have are named and left out.

Without ``--package`` weights are random, their last bias is large: what a net answers does not change its speed, and a
net that cannot decide would agree with nobody in bf16.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.random_package import with_int8, write_package
from benchmarks.rivals import BLOCKS_PX, RIVALS, starting
from benchmarks.serving import ROWS, Row, checked_receipt, row, serving, tiff
from benchmarks.turns import Turn, median_s, ratio, take_turns
from benchmarks.worker import LeftOut
from model.label_rule import LabelRule
from model.package import Package, read_package
from model.unet import UNet
from service.commands.common import table
from service.engine.packages.machine import this_machine

_SURE = 6.0  # logits by which the first class leads


@dataclass(frozen=True, slots=True)
class Measured:
    """What takes turns: its name, what it is, and one run of it in seconds."""

    name: str
    what: str
    run: Callable[[], float]


def decided_package(folder: Path, width: int, *, integers: bool = True) -> Package:
    """Export the classic net of a base width with random weights as a package, in 8-bit integers too or not."""
    torch.manual_seed(0)
    net = UNet(in_channels=1, classes=2, base_width=width).eval()
    weight, bias = net.head.parameters()
    with torch.no_grad():
        # logits of random weights are of any size: bring them to zero mean and unit variance, and let one class lead
        logits = net(torch.rand(1, 1, 252, 252))
        weight.div_(logits.std())
        bias.sub_(logits.mean(dim=(0, 2, 3))).div_(logits.std()).add_(torch.tensor([_SURE, 0.0]))
    package = write_package(net, folder, f"random-{width}", LabelRule())
    return with_int8(package, net) if integers else package


@contextmanager
def service(package: Package, chosen: Row, body: bytes, cache: str) -> Iterator[Measured]:
    """Whole requests to a service of its own."""
    with serving(package.path, chosen, cache) as client:
        tiles = checked_receipt(client.post("/segment", content=body), chosen)["tiles"]

        def ask() -> float:
            started = time.perf_counter()
            client.post("/segment", content=body).raise_for_status()
            return time.perf_counter() - started

        input_yx = tiles["input_yx"]
        yield Measured(str(chosen), f"tiles of {input_yx[0]} x {input_yx[1]} px: {tiles['count']}", ask)


@contextmanager
def rival(name: str, package: Package, size: int, blocks_px: Sequence[int]) -> Iterator[Measured]:
    """A rival, warmed up."""
    with starting(name, package.path, size, blocks_px) as worker:
        worker.run()
        yield Measured(name, worker.what, worker.run)


def measure(package: Package, arguments: argparse.Namespace, cache: str) -> None:
    """Print the table of one package."""
    body = tiff(arguments.size, len(package.spec.channels))
    print(f"\n{package.spec.reference}", flush=True)
    with ExitStack() as stack:
        rivals: list[Measured] = []
        services: list[Measured] = []
        for name in dict.fromkeys(arguments.rivals):
            try:
                rivals.append(stack.enter_context(rival(name, package, arguments.size, arguments.blocks)))
                print(f"  {name}: {rivals[-1].what}", flush=True)
            except LeftOut as reason:
                print(f"  {name} is left out: {reason}", flush=True)
        for chosen in dict.fromkeys(arguments.rows):
            try:
                services.append(stack.enter_context(service(package, chosen, body, cache)))
            except LeftOut as reason:
                print(f"  {chosen} is left out: {reason}", flush=True)
        everyone = {measured.name: measured.run for measured in (*services, *rivals)}
        turns = take_turns(everyone, arguments.repeats) if everyone else []
    for line in lines(services, rivals, turns):
        print(f"  {line}")


def lines(services: Sequence[Measured], rivals: Sequence[Measured], turns: Sequence[Turn]) -> list[str]:
    """A table: medians in seconds, and how many times as long as each service each rival took."""
    if not turns:
        return ["nothing is left to measure"]
    header = ("", "seconds", *(f"{rival.name} takes" for rival in rivals), "")
    cells = [
        (one.name, f"{median_s(turns, one.name):.3f}", *(str(ratio(turns, other.name, one.name)) for other in rivals))
        for one in services
    ]
    alone = [(other.name, f"{median_s(turns, other.name):.3f}", *("" for _ in rivals), "") for other in rivals]
    return table([header, *((*row, one.what) for row, one in zip(cells, services, strict=True)), *alone])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    nets = parser.add_mutually_exclusive_group()
    nets.add_argument("--widths", type=int, nargs="+", default=[32, 64], help="of the first level of random nets")
    nets.add_argument("--package", type=Path, help="measure this one in place of random nets")
    parser.add_argument("--rows", type=row, nargs="+", default=ROWS, metavar="BACKEND:PRECISION")
    parser.add_argument("--rivals", nargs="*", choices=RIVALS, default=["plain"])
    parser.add_argument("--blocks", type=int, nargs="+", default=BLOCKS_PX, help="for bioimageio to choose from, px")
    parser.add_argument("--size", type=int, default=2048, help="edge of the square image, px")
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    arguments = parser.parse_args()
    for name in ("size", "repeats"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} is {getattr(arguments, name)}; use 1 or more")
    print(this_machine())
    edge, repeats = arguments.size, arguments.repeats
    print(f"{edge} x {edge} px uint16 TIFF -> PNG mask over HTTP, medians of {repeats} turn(s)")
    with tempfile.TemporaryDirectory() as folder:
        cache = str(Path(folder) / "speeds")
        if arguments.package:
            measure(read_package(arguments.package), arguments, cache)
        else:
            for width in arguments.widths:
                measure(decided_package(Path(folder), width), arguments, cache)


if __name__ == "__main__":
    main()
