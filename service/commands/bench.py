"""``unet-service bench``: pixels per second, overhead and latency of each backend and precision that runs here."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import asdict
from typing import Any

from model.errors import ModelError
from model.package import Package, read_package
from model.session import gpu_count, resolve_backend, runnable_precisions
from model.wording import counted
from service.bench import Result, measure_backend
from service.commands.common import UNHURRIED, add_local_options, fail, say, table
from service.engine.options import budget_of, session_options
from service.engine.packages.finding import locate_package
from service.engine.packages.machine import this_machine
from service.settings import Settings
from service.telemetry import configure_logging

_MOST_SIZE_PX = 8192  # of an image that is made, sent and answered within this process
_MOST_CLIENTS = 256
_HEADER = (
    "BACKEND",
    "PRECISION",
    "MPX/S",
    "OVERHEAD",
    "LOAD MPX/S",
    "P50 MS",
    "P95 MS",
    "P99 MS",
    "256 PX P99",
    "TILE",
)


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Measure each backend and precision that runs here: image pixels per second of a 16-bit TIFF to "
        "its PNG mask, overhead over a bare loop on the same tiles, and latencies under mixed load, 256 to 2048 px. "
        "The speeds of tiles that it finds are kept for later starts of the service."
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="for each line, about (default: %(default)g)")
    parser.add_argument("--clients", type=int, default=8, help="requests in flight under load (default: %(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="edge of the single image, px (default: %(default)s)")
    parser.add_argument("--model", metavar="NAME", help="name or name@version; the default model where not given")
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_local_options(parser, "threads", "tile_ms", "cache_dir")
    parser.set_defaults(run=run, defaults=UNHURRIED)


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Print one line for each backend and precision; those that the package does not agree with are named."""
    configure_logging("error", "text")
    for name, value in (("seconds", options.seconds), ("clients", options.clients), ("size", options.size)):
        if not 0 < value < math.inf:
            return fail(f"--{name} is {value}; use a number above 0", 2)
    if options.size > _MOST_SIZE_PX:
        return fail(f"--size is {options.size} px, the limit is {_MOST_SIZE_PX}; use a smaller image", 2)
    if options.clients > _MOST_CLIENTS:
        return fail(f"--clients is {options.clients}, the limit is {_MOST_CLIENTS}; use fewer", 2)
    path = locate_package(settings.models_dir, options.model or settings.default_model)
    results: list[Result] = []
    refused: dict[str, str] = {}
    machine = this_machine()
    if not options.json:
        say(f"machine  {machine}")
    with tempfile.TemporaryDirectory() as folder:
        # calibration and service share what was measured, even where nothing is to be kept
        cache_dir = folder if settings.cache_dir == "none" else settings.cache_dir
        for backend, precision in runnable(settings, read_package(path)):
            chosen = settings.model_copy(
                update={
                    "models_dir": (path,),
                    "default_model": None,
                    "backend": backend,
                    "precision": precision,
                    "cache_dir": cache_dir,
                }
            )
            try:
                results.append(measure_backend(chosen, options.seconds, options.clients, options.size))
            except ModelError as error:
                if precision in {"fp32", settings.precision}:
                    raise
                refused[f"{backend} {precision}"] = str(error)
    if options.json:
        report: dict[str, Any] = {
            "machine": machine.as_json(),
            "results": [asdict(result) for result in results],
            "refused": refused,
        }
        say(json.dumps(report, indent=2))
    else:
        _print(results, options)
    for name, reason in refused.items():
        say(f"{name} is not used: {reason}", sys.stderr)
    return 0


def runnable(settings: Settings, package: Package) -> list[tuple[str, str]]:
    """Backends and precisions to measure: what the settings name, or all that run here where they say ``auto``."""
    if settings.backend == "auto":
        candidates = (["cuda"] if gpu_count() else []) + ["openvino", "cpu"]
    else:
        candidates = [settings.backend]
    found: list[tuple[str, str]] = []
    budget = budget_of(settings)
    for backend in candidates:
        options = session_options(settings.model_copy(update={"backend": backend}), budget)
        if settings.backend == "auto":
            try:
                resolve_backend(options)
            except ModelError:
                continue
        if settings.precision != "auto":
            found.append((backend, settings.precision))
        else:
            found += [(backend, precision) for precision in reversed(runnable_precisions(package, backend))]
    return found


def _cells(result: Result) -> tuple[str, ...]:
    return (
        result.backend,
        result.precision,
        f"{result.pixels_per_second / 1e6:.2f}",
        f"{result.overhead:.3f}",
        f"{result.load_pixels_per_second / 1e6:.2f}",
        f"{result.p50_ms:.0f}",
        f"{result.p95_ms:.0f}",
        f"{result.p99_ms:.0f}",
        f"{result.smallest_p99_ms:.0f}",
        f"{result.tile_yx[0]} x {result.tile_yx[1]}",
    )


def _print(results: list[Result], options: argparse.Namespace) -> None:
    if not results:
        return
    say(f"package  {results[0].model}")
    edge = f"{options.size} x {options.size} px"
    say(f"one      {edge}, 16-bit TIFF to PNG mask; overhead over a bare loop on the same tiles")
    say(f"load     {counted(options.clients, 'request')} in flight, 256 to 2048 px")
    say("")
    for line in table([_HEADER, *(_cells(result) for result in results)]):
        say(line)
    for result in results:
        if result.agreement is not None:
            other = result.agreement
            say(f"{result.backend} {result.precision} against fp32, on the package's test input: {other}")
