"""Throughput and latencies of the service under mixed load over HTTP, against a bare session over the same pixels.

    python -m benchmarks.mixed_load [--rows cpu:fp32 openvino:bf16] [--package model/zoo/nuclei | --width 32]
                                    [--clients 32] [--seconds 300] [--edges 256 512 1024 2048] [--bare-seconds 30]

So many clients each send a 16-bit TIFF, wait for its PNG mask and send the next; one process serves them all. Small
images come more often, in inverse proportion to their edge: 8 of 256 px, 4 of 512, 2 of 1024 and 1 of 2048 px make a
round, as in ``unet-service bench``, so that each size has twice the pixels of the one before.

The bare session (:mod:`benchmarks.bare_session`) runs in another process, over the tiles of the same plans, before and
after the load; throughput is compared with the mean of both. Rates are in pixels of the images, not of the tiles.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from benchmarks.bare_session import starting
from benchmarks.serving import Row, checked_receipt, row, serving, tiff
from benchmarks.speed import decided_package
from benchmarks.worker import LeftOut, Worker
from model.package import Package, read_package
from service.engine.packages.machine import this_machine

_EDGES_PX = (256, 512, 1024, 2048)
_ROWS = (Row("cpu", "fp32"),)
_MOST_PAUSE_S = 5.0
_TIMEOUT_S = 3600.0


@dataclass(slots=True)
class Load:
    """What the clients saw."""

    seconds: float = 0.0
    """From the first request to the last answer."""
    latencies: list[tuple[int, float]] = field(default_factory=list)
    """Edge in px and seconds of every image that was answered."""
    refused: Counter[int] = field(default_factory=Counter)
    """Answers that were no mask, by status; such an image is sent again."""

    @property
    def mpx_per_s(self) -> float:
        """Image pixels answered, in millions a second."""
        return mega(edge for edge, _ in self.latencies) / self.seconds

    def percentiles_ms(self, edge: int | None = None) -> tuple[float, float, float]:
        """Median, 95th and 99th percentile of the latencies of one size, or of all."""
        chosen = [seconds for found, seconds in self.latencies if edge is None or edge == found]
        p50, p95, p99 = np.percentile(chosen, (50, 95, 99)) * 1000
        return float(p50), float(p95), float(p99)


def mega(edges_px: Iterable[int]) -> float:
    """Pixels of squares, in millions."""
    return sum(edge * edge for edge in edges_px) / 1e6


def round_of(edges_px: Sequence[int]) -> list[int]:
    """Edges of the images of one round: as many of each as its edge goes into the largest, at least one."""
    largest = max(edges_px)
    return [edge for edge in sorted(set(edges_px)) for _ in range(largest // edge)]


async def put_under_load(url: httpx.URL, bodies: Mapping[int, bytes], clients: int, seconds: float) -> Load:
    """Keep ``clients`` requests in flight for about ``seconds``; those that are in flight then are waited for.

    Parameters
    ----------
    url
        Of the service.
    bodies
        An image for each edge in px.
    clients
        How many ask at once.
    seconds
        After which no client sends another; every size is sent at least once.

    """
    shuffled = np.random.default_rng(0).permutation(round_of(list(bodies))).tolist()
    order = itertools.chain(sorted(bodies), itertools.cycle(shuffled))
    load = Load()
    started = time.perf_counter()
    least = iter(range(len(bodies)))  # these are sent however short the time

    async def client(http: httpx.AsyncClient) -> None:
        while next(least, None) is not None or time.perf_counter() < started + seconds:
            edge = next(order)
            asked = time.perf_counter()
            while (answer := await http.post("/segment", content=bodies[edge])).status_code != httpx.codes.OK:
                load.refused[answer.status_code] += 1
                await asyncio.sleep(min(_MOST_PAUSE_S, float(answer.headers.get("Retry-After", _MOST_PAUSE_S))))
            load.latencies.append((edge, time.perf_counter() - asked))

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, limits=limits) as http, asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client(http))
    load.seconds = time.perf_counter() - started
    return load


def bare_mpx_per_s(bare: Worker, mix: Sequence[int], seconds: float) -> float:
    """Image pixels of a bare session, in millions a second, over whole rounds for at least ``seconds``."""
    taken: list[float] = []
    while not taken or sum(taken) < seconds:
        taken.append(bare.run())
    return mega(mix) * len(taken) / sum(taken)


def measure(package: Package, chosen: Row, arguments: argparse.Namespace, cache: str) -> None:
    """Print what one backend and precision does."""
    mix = round_of(arguments.edges)
    bodies = {edge: tiff(edge, len(package.spec.channels)) for edge in sorted(set(mix))}
    with serving(package.path, chosen, cache) as client:
        tiles_yx: dict[int, tuple[int, int]] = {}
        for edge, body in bodies.items():
            y, x = checked_receipt(client.post("/segment", content=body), chosen)["tiles"]["input_yx"]
            tiles_yx[edge] = y, x
        with starting(package.path, chosen, cache, mix, tiles_yx) as bare:
            before = bare_mpx_per_s(bare, mix, arguments.bare_seconds)
            load = asyncio.run(put_under_load(client.base_url, bodies, arguments.clients, arguments.seconds))
            after = bare_mpx_per_s(bare, mix, arguments.bare_seconds)
    for line in report(load, before, after):
        print(f"  {line}")


def report(load: Load, before: float, after: float) -> list[str]:
    """Lines for people; ``before`` and ``after`` are the bare session's millions of pixels a second."""
    bare = (before + after) / 2
    counts = Counter(edge for edge, _ in load.latencies)
    smallest = min(counts)
    refused = ", ".join(f"{count} with status {status}" for status, count in sorted(load.refused.items())) or "none"
    shares = ", ".join(f"{counts[edge]} of {edge} px" for edge in sorted(counts))
    return [
        f"load     {load.mpx_per_s:.3f} Mpx/s of images: {len(load.latencies)} in {load.seconds:.1f} s ({shares})",
        f"refused  {refused}",
        f"bare     {bare:.3f} Mpx/s: {before:.3f} before the load, {after:.3f} after it",
        f"ratio    {load.mpx_per_s / bare:.3f} ({load.mpx_per_s / before:.3f} and {load.mpx_per_s / after:.3f})",
        *(
            f"{name:<8} p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms"
            for name, (p50, p95, p99) in (
                ("all", load.percentiles_ms()),
                (f"{smallest} px", load.percentiles_ms(smallest)),
            )
        ),
    ]


def main() -> None:
    """Print the figures of every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    nets = parser.add_mutually_exclusive_group()
    nets.add_argument("--width", type=int, default=32, help="of the first level of a net with random weights")
    nets.add_argument("--package", type=Path, help="measure this one in its place")
    parser.add_argument("--rows", type=row, nargs="+", default=_ROWS, metavar="BACKEND:PRECISION")
    parser.add_argument("--clients", type=int, default=32, help="requests in flight")
    parser.add_argument("--seconds", type=float, default=300.0, help="of load")
    parser.add_argument("--bare-seconds", type=float, default=30.0, help="of the bare session, before and after")
    parser.add_argument("--edges", type=int, nargs="+", default=_EDGES_PX, help="of the square images, px")
    arguments = parser.parse_args()
    for name, value in (("clients", arguments.clients), ("edges", min(arguments.edges))):
        if value < 1:
            parser.error(f"--{name} is {value}; use 1 or more")
    print(this_machine())
    print(f"{arguments.clients} clients, 16-bit TIFF -> PNG mask over HTTP, {arguments.seconds:g} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.package:
            package = read_package(arguments.package)
        else:
            package = decided_package(Path(folder), arguments.width)
        for chosen in dict.fromkeys(arguments.rows):
            print(f"\n{package.spec.reference} on {chosen}", flush=True)
            try:
                measure(package, chosen, arguments, str(Path(folder) / "speeds"))
            except LeftOut as reason:
                print(f"  left out: {reason}")


if __name__ == "__main__":
    main()
