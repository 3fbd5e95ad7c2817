"""What the settings say to the engine: how nets are opened, what plans keep within, how much memory there is."""

from __future__ import annotations

import logging
import math
from contextlib import suppress

from model.activations import Activations
from model.session import SessionOptions, gpu_count
from service.engine.cost_store import cost_store
from service.engine.finding import fingerprint, package_folders, packages_in
from service.engine.loading import net_bytes
from service.engine.planning import PlanLimits
from service.engine.resources import (
    available_cpus,
    give_memory_back,
    memory_budget,
    memory_limit,
    temporary_memory,
)
from service.settings import Settings

_LOG = logging.getLogger("unet.engine")
_TILE_SHARE = 0.4  # of the memory budget goes to the net's activations, the rest to images and results


def memory_bytes(settings: Settings) -> int:
    """Working memory of all requests together, bytes: as set, else what the container allows."""
    return memory_budget(settings.memory_budget_mb, memory_limit(), temporary_memory(), nets_bytes(settings))


def nets_bytes(settings: Settings) -> int:
    """Memory that the nets of all packages that are in the folders take once they are loaded, bytes."""
    size = 0
    for folder in package_folders(settings.models_dir):
        with suppress(OSError):
            size += sum(net_bytes(fingerprint(path)) for path in packages_in(folder, warn=_LOG.debug))
    return size


def tile_memory_bytes(settings: Settings) -> int:
    """Part of the memory budget that a batch of tiles may take while the net runs, bytes."""
    return int(memory_bytes(settings) * _TILE_SHARE)


def session_options(settings: Settings) -> SessionOptions:
    """How the settings say that nets are opened."""
    return SessionOptions(
        backend=settings.backend,
        precision=settings.precision,
        require_gpu=settings.require_gpu,
        threads=settings.threads or available_cpus(),
        devices=_devices(settings),
        gpu_mem_limit_mb=settings.gpu_mem_limit_mb,
        engine_cache=settings.engine_cache_dir,
        activations=Activations(tile_memory_bytes(settings), give_memory_back),
    )


def _devices(settings: Settings) -> tuple[int, ...]:
    if settings.devices == "all":
        return tuple(range(max(1, gpu_count())))
    return tuple(int(number) for number in settings.devices.split(","))


def plan_limits(settings: Settings) -> PlanLimits:
    """What the settings say that plans keep within."""
    return PlanLimits(
        tile_memory_bytes=tile_memory_bytes(settings),
        tile_seconds=settings.tile_ms / 1000 if settings.tile_ms else math.inf,
        batch_tiles=settings.batch_tiles,
        store=cost_store(settings.cache_dir),
    )
