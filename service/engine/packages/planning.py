"""A planner for a package that has just been opened: its cost model out of the store, or measured now."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import numpy as np

from model.cost import Clock, CostModel, fit_cost, measure, shapes_to_measure
from model.devices import each_device
from model.package import Package
from model.planner import Planner, batch_room, fixed_shapes
from model.session import GPU_BACKENDS, InferenceSession, SessionOptions, activation_bytes_per_pixel
from service.engine.packages.cost_store import CostKey, CostStore

# fair turns are counted in seconds and earn one tile at least: a larger one would let a slide keep others waiting
_MOST_TILE_PIXELS = 1300 * 1300
_CPU_BATCH_PIXELS = 512 * 512
_MOST_DRIFT = 1.5  # kept speeds are measured anew where one tile differs by more than this factor
_CHECK_S = 0.5
_WORTH_KEEPING = 3  # shapes; fewer were all that a busy machine had time for


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """What plans keep within.

    Parameters
    ----------
    tile_memory_bytes
        Most memory of one batch of tiles while the net runs.
    tile_seconds
        Most time that a tile should take on a CPU.
    batch_tiles
        Most tiles in one call of the net.
    store
        Where measured speeds are kept.

    """

    tile_memory_bytes: int
    tile_seconds: float = math.inf
    batch_tiles: int = 1
    store: CostStore = field(default_factory=lambda: CostStore(None))


def most_batch_pixels(backend: str, max_tile_pixels: int) -> int:
    """Most input pixels of one call of the net: on a CPU batches gain nothing, and whoever comes next waits for all."""
    return max_tile_pixels if backend in GPU_BACKENDS else min(max_tile_pixels, _CPU_BATCH_PIXELS)


def make_planner(
    package: Package,
    session: InferenceSession,
    options: SessionOptions,
    limits: PlanLimits,
    calibration_s: float,
    *,
    clock: Clock = time.perf_counter,
) -> Planner:
    """Warm a session up and return the planner for it.

    Parameters
    ----------
    package, session
        What runs.
    options
        How it was opened.
    limits
        What plans keep within.
    calibration_s
        Seconds that measuring should take where the store has nothing.
    clock
        Seconds.

    Raises
    ------
    InferenceFailed
        Where the net fails on a tile of noise.

    """
    spec = package.spec
    pixels = _most_tile_pixels(package, session, limits)
    fallback = Planner(spec.geometry, pixels)
    fallback.plan((1, 1))  # says so where not even the smallest tile fits
    if session.backend in GPU_BACKENDS:
        # each shape that runs for the first time costs more than it saves: all there will ever be run now
        shapes = fixed_shapes(spec.geometry, pixels)
        channels = len(spec.channels)
        measured = [measure(device.run, channels, shapes, math.inf, clock) for device in each_device(session)]
        cost = fit_cost(measured[0])  # all that will run: nothing has to be told from anything else
        for device in each_device(session):
            _warm_batches(device, channels, shapes, limits.batch_tiles, pixels)
        return replace(fallback, cost=cost, shapes=shapes)
    kept = limits.store.load(_key(package, session, options), spec.geometry.shrink_yx)
    if kept is not None and _still_true(kept, session, len(spec.channels), clock):
        cost = kept
    else:
        cost = measure_cost(package, session, options, limits, calibration_s, clock=clock)
    return replace(fallback, cost=cost, tile_seconds=limits.tile_seconds)


def _still_true(cost: CostModel, session: InferenceSession, channels: int, clock: Clock) -> bool:
    """Whether one tile takes about as long as it did: the machine may have been busy then, or throttled now."""
    smallest = min(cost.measurements, key=lambda measured: measured.pixels).input_yx
    (now,) = measure(session.run, channels, [smallest], _CHECK_S, clock)
    return 1 / _MOST_DRIFT < now.seconds / cost.seconds(now.input_yx) < _MOST_DRIFT


def measure_cost(
    package: Package,
    session: InferenceSession,
    options: SessionOptions,
    limits: PlanLimits,
    budget_s: float,
    *,
    clock: Clock = time.perf_counter,
) -> CostModel:
    """Time tiles of a few shapes for about ``budget_s`` seconds, and keep what was found for the next start."""
    spec = package.spec
    pixels = _most_tile_pixels(package, session, limits)
    shapes = shapes_to_measure(spec.geometry, pixels)
    cost = fit_cost(measure(session.run, len(spec.channels), shapes, budget_s, clock), spec.geometry.shrink_yx)
    if len(cost.measurements) >= min(_WORTH_KEEPING, len(shapes)):
        limits.store.save(_key(package, session, options), cost.measurements)
    return cost


def _most_tile_pixels(package: Package, session: InferenceSession, limits: PlanLimits) -> int:
    return min(_MOST_TILE_PIXELS, limits.tile_memory_bytes // activation_bytes_per_pixel(package.spec, session))


def _key(package: Package, session: InferenceSession, options: SessionOptions) -> CostKey:
    variant = package.spec.variant(session.precision)
    weights = (None if variant is None else variant.weights.sha256) or package.sha256
    return CostKey(weights, session.backend, session.precision, options.threads)


def _warm_batches(
    session: InferenceSession, channels: int, shapes: tuple[tuple[int, int], ...], most_tiles: int, most_pixels: int
) -> None:
    for shape in shapes:
        batch = batch_room(math.prod(shape), most_tiles, most_pixels)
        while batch > 1:
            session.run(np.zeros((batch, channels, *shape), dtype=np.float32))
            batch //= 2
        if session.evidence is not None:
            session.evidence(np.zeros((1, channels, *shape), dtype=np.float32))
