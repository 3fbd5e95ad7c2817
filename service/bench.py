"""What a backend does on this machine, through the engine that serves and beside it: for ``unet-service bench``."""

from __future__ import annotations

import asyncio
import io
import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from model.agreement import Agreement
from model.normalization import fit
from model.package import read_package
from model.precision import open_checked
from model.stitching import read_tiles
from service.engine.engine import Engine
from service.engine.errors import NotReady
from service.engine.options import budget_of, plan_limits, session_options
from service.engine.packages.loading import LoadedModel
from service.engine.packages.planning import measure_cost
from service.engine.request import SegmentRequest
from service.settings import Settings
from service.telemetry import Metrics

# many small crops beside a few fields of view; each size has twice the pixels of the one before, all together
_MIX = (256,) * 8 + (512,) * 4 + (1024,) * 2 + (2048,)
_CALIBRATION_SHARE, _SINGLE_SHARE, _LOAD_SHARE = 0.25, 0.25, 0.5


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table.

    Parameters
    ----------
    model, backend, provider, precision, agreement
        What ran.
    tile_yx
        Input of a tile for the single image, px.
    pixels_per_second
        Image pixels of single requests, file in to file out.
    overhead
        Time of such a request over a bare loop on the same tiles, median of turns.
    requests, load_pixels_per_second
        Under mixed load.
    p50_ms, p95_ms, p99_ms, smallest_p99_ms
        Latencies under mixed load, of all and of the smallest images.

    """

    model: str
    backend: str
    provider: str
    precision: str
    agreement: Agreement | None
    tile_yx: tuple[int, int]
    pixels_per_second: float
    overhead: float
    requests: int
    load_pixels_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    smallest_p99_ms: float


def measure_backend(settings: Settings, seconds: float, clients: int, size: int) -> Result:
    """Measure the one package, backend and precision that the settings name.

    Parameters
    ----------
    settings
        ``models_dir`` is the package alone; what it costs is kept in ``cache_dir``.
    seconds
        About how long it should take; slow machines take longer, since every size runs at least once.
    clients
        Requests in flight under load.
    size
        Edge of the single image, px.

    Raises
    ------
    ModelError, NotReady
        Where it cannot be served.

    """
    if settings.models_dir is None or len(settings.models_dir) != 1:
        raise NotReady(f"one package is measured, UNET_MODELS_DIR names {len(settings.models_dir or ())}; name one")
    budget = budget_of(settings)
    options, limits = session_options(settings, budget), plan_limits(settings, budget)
    opened = open_checked(read_package(*settings.models_dir), options)
    measure_cost(opened.package, opened.session, options, limits, seconds * _CALIBRATION_SHARE)
    del opened
    return asyncio.run(_through_the_engine(settings, seconds, clients, size))


async def _through_the_engine(settings: Settings, seconds: float, clients: int, size: int) -> Result:
    engine = Engine(settings, Metrics())
    await engine.start()
    try:
        loaded = engine.model(None)
        single_s, overhead = await _single(engine, loaded, size, seconds * _SINGLE_SHARE)
        elapsed, latencies = await _mixed(engine, clients, seconds * _LOAD_SHARE)
    finally:
        await engine.stop()
    every = [latency for _, latency in latencies]
    p50, p95, p99 = np.percentile(every, (50, 95, 99)) * 1000
    smallest = [latency for edge, latency in latencies if edge == min(_MIX)]
    return Result(
        model=loaded.package.spec.reference,
        backend=loaded.session.backend,
        provider=loaded.session.provider,
        precision=loaded.session.precision,
        agreement=loaded.agreement,
        tile_yx=loaded.planner.plan((size, size)).input_yx,
        pixels_per_second=size * size / single_s,
        overhead=overhead,
        requests=len(latencies),
        load_pixels_per_second=sum(edge * edge for edge, _ in latencies) / elapsed,
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        smallest_p99_ms=float(np.percentile(smallest, 99) * 1000),
    )


async def _single(engine: Engine, loaded: LoadedModel, size: int, seconds: float) -> tuple[float, float]:
    """Median seconds of a request, and the median ratio to a bare loop that took turns with it."""
    image_yx = blobs(size)
    body = _tiff(image_yx, len(loaded.package.spec.channels))
    tiles = list(_tiles(loaded, image_yx))

    def bare() -> float:
        started = time.perf_counter()
        for tile in tiles:
            loaded.session.run(tile)
        return time.perf_counter() - started

    async def whole() -> float:
        started = time.perf_counter()
        await engine.segment(io.BytesIO(body), SegmentRequest())
        return time.perf_counter() - started

    turns: list[tuple[float, float]] = []
    await whole()
    await asyncio.to_thread(bare)
    end = time.perf_counter() + seconds
    while not turns or time.perf_counter() + sum(turns[-1]) < end:
        if len(turns) % 2:
            bare_s, whole_s = await asyncio.to_thread(bare), await whole()
        else:
            whole_s, bare_s = await whole(), await asyncio.to_thread(bare)
        turns.append((bare_s, whole_s))
    return statistics.median(turn[1] for turn in turns), statistics.median(turn[1] / turn[0] for turn in turns)


async def _mixed(engine: Engine, clients: int, seconds: float) -> tuple[float, list[tuple[int, float]]]:
    """Seconds that the load lasted, and edge and latency of every request."""
    channels = len(engine.model(None).package.spec.channels)
    bodies = {edge: _tiff(blobs(edge), channels) for edge in set(_MIX)}
    order = itertools.cycle(np.random.default_rng(0).permutation(_MIX).tolist())
    first = iter(sorted(set(_MIX)))  # every size at least once, however short the time
    latencies: list[tuple[int, float]] = []
    started = time.perf_counter()

    async def client() -> None:
        while (edge := next(first, None)) or time.perf_counter() < started + seconds:
            chosen = edge or next(order)
            asked = time.perf_counter()
            await engine.segment(io.BytesIO(bodies[chosen]), SegmentRequest())
            latencies.append((chosen, time.perf_counter() - asked))

    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - started, latencies


def blobs(edge: int) -> NDArray[np.uint16]:
    """Blurred noise (y, x), 16 bit: blobs of the size of cells."""
    noise = np.random.default_rng(edge).standard_normal((edge, edge), dtype=np.float32)
    blurred = gaussian_filter(noise, 8)
    scaled: NDArray[np.float32] = (blurred - blurred.min()) / max(float(np.ptp(blurred)), 1e-6)
    return (scaled * 60_000).astype(np.uint16)


def _tiff(image_yx: NDArray[np.uint16], channels: int) -> bytes:
    buffer = io.BytesIO()
    planar: Any = {} if channels == 1 else {"photometric": "minisblack", "planarconfig": "contig"}
    image = image_yx if channels == 1 else np.repeat(image_yx[..., np.newaxis], channels, axis=-1)
    tifffile.imwrite(buffer, image, **planar)
    return buffer.getvalue()


def _tiles(loaded: LoadedModel, image_yx: NDArray[np.uint16]) -> Iterator[NDArray[np.float32]]:
    """Normalised tiles (1, c, y, x) of the plan that the engine makes for the image."""
    spec = loaded.package.spec
    image_yxc = np.repeat(image_yx[..., np.newaxis], len(spec.channels), axis=-1)
    normalization = fit(spec.normalization, image_yxc)
    plan = loaded.planner.plan((image_yxc.shape[0], image_yxc.shape[1]))
    return (read_tiles(image_yxc, [tile], normalization) for tile in plan)
