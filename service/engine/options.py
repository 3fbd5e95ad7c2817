"""What the settings say to the engine: how nets are opened, what plans keep within, how much memory there is."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from dataclasses import dataclass

from model.activations import Activations
from model.session import SessionOptions, gpu_count
from service.engine.packages.cost_store import cost_store
from service.engine.packages.finding import fingerprint, package_folders, packages_in
from service.engine.packages.loading import net_bytes
from service.engine.packages.planning import PlanLimits
from service.engine.resources import (
    available_cpus,
    give_memory_back,
    memory_budget,
    memory_limit,
    temporary_memory,
)
from service.settings import Settings

_LOG = logging.getLogger("unet.engine")
_REPEAT_PART = 16  # of the memory budget at most goes to what may be asked for again
_TILE_SHARE = 0.4  # of the memory budget goes to the net's activations, the rest to images and results


@dataclass(frozen=True, slots=True)
class Budget:
    """How much memory there is, bytes; it stays what it is at the start."""

    total: int
    """Working memory of all requests together."""
    tiles: int
    """Part of it that a batch of tiles may take while the net runs."""
    repeats: int
    """Part of it for what the net gave for the last images."""
    nets: int
    """Beside it: what the nets of all packages that are in the folders take once they are loaded."""

    @property
    def images(self) -> int:
        """Part of the working memory that is for images and results."""
        return self.total - self.tiles - self.repeats


def budget_of(settings: Settings) -> Budget:
    """Say how much memory there is: as set, else what the container allows. All packages are looked at for that."""
    nets = _nets_bytes(settings)
    total = memory_budget(settings.memory_budget_mb, memory_limit(), temporary_memory(), nets)
    return Budget(total, int(total * _TILE_SHARE), min(settings.repeat_mb << 20, total // _REPEAT_PART), nets)


def _nets_bytes(settings: Settings) -> int:
    size = 0
    for folder in package_folders(settings.models_dir):
        with suppress(OSError):
            size += sum(net_bytes(fingerprint(path)) for path in packages_in(folder, warn=_LOG.debug))
    return size


def session_options(settings: Settings, budget: Budget) -> SessionOptions:
    """How the settings say that nets are opened, and how much memory there is for their tiles."""
    return SessionOptions(
        backend=settings.backend,
        precision=settings.precision,
        require_gpu=settings.require_gpu,
        threads=settings.threads or available_cpus(),
        devices=_devices(settings),
        gpu_mem_limit_mb=settings.gpu_mem_limit_mb,
        engine_cache=settings.engine_cache_dir,
        activations=Activations(budget.tiles, give_memory_back),
    )


def _devices(settings: Settings) -> tuple[int, ...]:
    if settings.devices == "all":
        return tuple(range(max(1, gpu_count())))
    return tuple(int(number) for number in settings.devices.split(","))


def plan_limits(settings: Settings, budget: Budget) -> PlanLimits:
    """What plans keep within, by the settings and the memory for tiles."""
    return PlanLimits(
        tile_memory_bytes=budget.tiles,
        tile_seconds=settings.tile_ms / 1000 if settings.tile_ms else math.inf,
        batch_tiles=settings.batch_tiles,
        store=cost_store(settings.cache_dir),
    )
