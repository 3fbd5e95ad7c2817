"""What runs once packages are loaded: inference threads, scheduler, pipeline, and who looks after nets and packages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from model.errors import InferenceFailed
from model.session import GPU_BACKENDS, SessionOptions
from service.engine.admission.admission import Admission
from service.engine.errors import DeadlineExceeded, NotReady
from service.engine.images.spool import Spool
from service.engine.memory_fit import MemoryFit
from service.engine.packages.loading import LoadedModel
from service.engine.packages.planning import PlanLimits
from service.engine.packages.registry import Registry, dropped
from service.engine.packages.rescan import Rescan
from service.engine.packages.soundness import LEAST_PATIENCE_S, Soundness
from service.engine.packages.trial import Trials
from service.engine.scheduling.between import BetweenBatches
from service.engine.scheduling.scheduler import Scheduler
from service.engine.scheduling.workers import Workers
from service.engine.stages.demand import telling
from service.engine.stages.pipeline import Pipeline
from service.engine.stages.progress import Progress
from service.engine.stages.repeats import Repeats
from service.engine.stages.turns import Turns
from service.engine.watching import Watch
from service.settings import Settings
from service.telemetry import Metrics

_LOG = logging.getLogger("unet.engine")
_GPU_LANES = 4  # two batches at a time on the GPU, two that the CPU reads and stitches


@dataclass(frozen=True, slots=True)
class Running:
    """The parts, each of which has begun."""

    lanes: Executor
    pipeline: Pipeline
    soundness: Soundness
    watch: Watch

    def change_over(self, former: Registry | None, registry: Registry) -> None:
        """Fit everything to the packages of a registry, and let go of those of the former one."""
        models, metrics = registry.models, self.pipeline.metrics
        nets = {run for model in models for run in (model.session.run, model.session.evidence)}
        self.pipeline.scheduler.forget(lambda key: not isinstance(key, tuple) or key[0] not in nets)
        self.soundness.forget(lambda model: model not in models)
        metrics.serve(
            [
                {
                    "name": model.package.spec.name,
                    "version": model.package.spec.version,
                    "sha256": model.sha256,
                    "backend": model.session.backend,
                    "provider": model.session.provider,
                    "precision": model.session.precision,
                }
                for model in models
            ],
            refused=len(registry.refused),
        )
        served, refused = (former.models, former.refused) if former else ((), {})
        for outcome, count in (
            ("served", sum(model not in served for model in models)),
            ("refused", sum(refused.get(name) != reason for name, reason in registry.refused.items())),
            ("dropped", len(dropped(former, registry)) if former else 0),
        ):
            metrics.package_changes.labels(outcome=outcome).inc(count)

    @asynccontextmanager
    async def work(self, chosen: LoadedModel, timeout_s: float, progress: Progress) -> AsyncIterator[Pipeline]:
        """Keep a net for the work of a ``with`` block, which has so many seconds; what it says of the net is noted.

        ``progress`` is that of the work: what ends in it for want of time or memory names a scale that the caller never
        gave.

        Raises
        ------
        NotReady
            Where the net fails its examinations.
        DeadlineExceeded
            Where the time is over.

        """
        if reason := self.soundness.reason(chosen):
            raise NotReady(f"{reason}; try again, another replica may answer")
        try:
            with self.watch.using(chosen):
                async with asyncio.timeout(timeout_s):
                    yield self.pipeline
            if not progress.is_repeat:
                self.soundness.passed(chosen)
        except InferenceFailed as error:
            if self.watch.serves(chosen):
                self.soundness.failed(chosen, error)
            raise
        except TimeoutError:
            with telling(progress.auto_scale):
                raise DeadlineExceeded(
                    f"the answer was not ready in the {timeout_s:g} s allowed{progress.waiting}; raise the timeout or "
                    f"send less{' at a time' if progress.waiting else ''}"
                ) from None

    async def stop(self) -> None:
        """End all but the threads."""
        await self.watch.stop()  # first: a net that is being loaded needs the others
        await self.pipeline.scheduler.stop()
        await self.soundness.stop()


def begin(
    settings: Settings,
    options: SessionOptions,
    limits: PlanLimits,
    backend: str,
    registry: Registry,
    *,
    serve: Callable[[Registry], None],
    awaits: Callable[[tuple[str, ...]], None],
    admission: Admission,
    workers: Workers,
    spool: Spool,
    metrics: Metrics,
    memory_fit: MemoryFit,
    repeat_bytes: int,
) -> Running:
    """Begin, on the running event loop.

    Parameters
    ----------
    settings, options, limits, backend
        What is set, and what it means on this machine.
    registry
        What is served at first.
    serve
        Told what is served later.
    awaits
        Told which packages are loaded, or wait for memory, later.
    admission, workers, spool, metrics, memory_fit
        What is there before.
    repeat_bytes
        Memory for what the net gave for the last images.

    """
    if backend not in GPU_BACKENDS and settings.devices != "0":
        _LOG.warning("UNET_DEVICES=%s says nothing to backend %s, which runs on the CPU", settings.devices, backend)
    # while a GPU computes and copies one batch each, others are read and stitched; CPU threads gain nothing from it
    lanes = _GPU_LANES * len(options.devices) if backend in GPU_BACKENDS else 1
    threads = ThreadPoolExecutor(max_workers=lanes, thread_name_prefix="unet-inference")
    between = None if backend in GPU_BACKENDS else BetweenBatches()
    scheduler = Scheduler(
        threads,
        lanes=lanes,
        batch_tiles=settings.batch_tiles,
        observe=metrics.batch_tiles.observe,
        between=between,
    )
    scheduler.start()
    admission.busy_s = lambda: scheduler.busy_s
    turns, trials = Turns(admission.order), Trials(threads)
    repeats = Repeats(repeat_bytes)
    pipeline = Pipeline(admission, scheduler, workers, metrics, spool, settings.max_pixels, turns, trials, repeats)
    patience_s = max(settings.deadline_s, LEAST_PATIENCE_S)

    def longest() -> tuple[float, str]:
        # where a net that is being loaded runs, no batch does
        return (between and between.in_work) or (scheduler.longest_s, "a batch of tiles")

    soundness = Soundness(threads, longest, patience_s)
    rescan = Rescan(registry, settings.default_model, options, limits, between)
    watch = Watch(rescan, settings.rescan_s, serve, admission, memory_fit, awaits=awaits)
    watch.start()
    return Running(threads, pipeline, soundness, watch)
