"""The engine: owner of packages, threads, scheduler and ledger, from start to drain."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

from model.errors import BackendUnavailable
from model.images import ImageHeader
from model.session import resolve_backend
from service.engine.admission.admission import Admission
from service.engine.arrivals import Arrivals
from service.engine.ending import end
from service.engine.errors import Draining, NotReady, SpoolFull
from service.engine.images.spool import Spool
from service.engine.memory_fit import MemoryFit
from service.engine.options import budget_of, plan_limits, session_options
from service.engine.packages.loading import LoadedModel
from service.engine.packages.registry import Registry, load_registry
from service.engine.request import Answer, Readiness, SegmentRequest
from service.engine.resources import available_cpus, share_one_heap
from service.engine.running import Running, begin
from service.engine.scheduling.workers import Workers
from service.engine.stages.forecast import Forecast, imagined
from service.engine.stages.outputs import segment_outputs
from service.engine.stages.progress import Progress
from service.formats import OutputKind
from service.settings import Settings
from service.telemetry import Metrics

_LOG = logging.getLogger("unet.engine")


class Engine:
    """Lives on one event loop; :meth:`start` it there, :meth:`segment` as often as wanted, :meth:`stop` it.

    Parameters
    ----------
    settings
        The service's settings.
    metrics
        Where counts and times go.

    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        share_one_heap()
        self._budget = budget_of(settings)
        self.memory_fit = MemoryFit(self._budget, is_set=settings.memory_budget_mb > 0)
        """Whether memory suffices for all that is served."""
        self._settings = settings
        self._metrics = metrics
        self._spool = Spool(settings.spool_dir or None)
        # what its disk could not hold if it were empty is refused for good, not until later
        disk = min(settings.spool_limit_mb << 20, self._spool.capacity)
        self._cpus = settings.threads or available_cpus()
        self._admission = Admission(self._budget.images, settings.max_backlog_s, disk, turns=max(2, self._cpus))
        self._workers = Workers(max(4, 2 * self._cpus))
        self._registry: Registry | None = None
        self._running: Running | None = None
        self._failure: str | None = None
        self._leaving = self._draining = False
        self._arrivals = Arrivals()
        self.loading: tuple[str, ...] = ()
        """Packages that are loaded, or wait for memory in which to be, in order, by the names of :attr:`refused`."""
        metrics.bind(
            backlog_pixels=lambda: self._admission.backlog_pixels,
            backlog_seconds=lambda: self._admission.backlog_seconds_of(background=False),
            jobs_backlog_seconds=lambda: self._admission.backlog_seconds_of(background=True),
            pixels_per_second=lambda: self.pixels_per_second,
            in_flight=lambda: self._arrivals.count,
            ready=lambda: self.readiness().ready,
        )

    async def start(self) -> None:
        """Load the packages in a thread and start the scheduler; what cannot be served is noted in ``refused``."""
        settings, options = self._settings, session_options(self._settings, self._budget)
        limits = plan_limits(settings, self._budget)
        try:
            backend = resolve_backend(options)
            for spool in (self._spool, Spool(None)):  # uploads go to the temporary folder in any case
                spool.file().close()
        except (BackendUnavailable, SpoolFull) as error:
            _LOG.error("%s", error)
            self._failure = str(error)
            return
        try:
            registry = await self._workers.call(
                math.inf, load_registry, settings.models_dir, settings.default_model, options, limits, self._left
            )
        except OSError as error:
            self._failure = f"the model packages cannot be read by user {os.getuid()}: {error}"
            raise
        self._running = begin(
            settings,
            options,
            limits,
            backend,
            registry,
            serve=self._serve,
            awaits=self._left,
            admission=self._admission,
            workers=self._workers,
            spool=self._spool,
            metrics=self._metrics,
            memory_fit=self.memory_fit,
            repeat_bytes=self._budget.repeats,
        )
        self._serve(registry)
        self._left(())

    def _left(self, names: tuple[str, ...]) -> None:
        """Note which packages are to be loaded; one thread at a time does, any may ask."""
        self.loading = names

    def _serve(self, registry: Registry) -> None:
        """Serve other packages from now on; requests in work go on with the net that they began with."""
        self._working().change_over(self._registry, registry)
        self._registry = registry

    def look_for_packages(self) -> None:
        """Look now for packages that came, changed or went, and try again those that were refused."""
        if self._running is not None:
            self._running.watch.ask()

    def retire(self) -> None:
        """Turn readiness off and change nothing else: who has not noticed yet is still served."""
        self._leaving = True

    def drain(self) -> None:
        """Turn readiness off and refuse what is new; what has arrived before goes on."""
        self._leaving = self._draining = True

    @contextmanager
    def arrival(self) -> Iterator[None]:
        """Hold the service open for a request, from before its body is read until its answer is made.

        Raises
        ------
        Draining
            Where the service is about to stop.

        """
        if self._draining:
            raise Draining("the service is about to stop and takes nothing new; try again")
        with self._arrivals.one():
            yield

    async def stop(self) -> None:
        """Wait for what has arrived, then end the threads."""
        self.drain()
        await self._arrivals.over()
        if self._running is not None:
            await self._running.stop()
        lanes = [] if self._running is None else [self._running.lanes]
        await asyncio.gather(*(end(executor) for executor in (*lanes, *self._workers.executors)))

    @property
    def models(self) -> tuple[LoadedModel, ...]:
        """What is served, by name, highest version first."""
        return self._registry.models if self._registry else ()

    @property
    def refused(self) -> Mapping[str, str]:
        """Packages that are not served, and why."""
        return self._registry.refused if self._registry else {}

    @property
    def kept(self) -> Mapping[str, str]:
        """Of what is served, by name and version, what is no longer in its folder, and why it is served."""
        return self._registry.kept if self._registry else {}

    @property
    def default_model(self) -> LoadedModel | None:
        """What serves requests that name no model."""
        return self._registry.default if self._registry else None

    def model(self, reference: str | None) -> LoadedModel:
        """Return the package for ``name``, ``name@version`` or None.

        Raises
        ------
        NotReady, UnknownModel

        """
        if self._registry is None:
            raise NotReady(self._failure or "the model packages are still being loaded; try again in a few seconds")
        return self._registry.get(reference)

    def readiness(self) -> Readiness:
        """Whether new requests should come here; takes no lock and waits for nothing."""
        reasons = ["the service is draining"] if self._leaving else []
        if self._registry is None:
            names = f": {', '.join(self.loading)}" if self.loading else ""
            reasons.append(self._failure or f"the model packages are being loaded{names}")
        elif self._registry.default is None:
            reasons.append(self._registry.problem or "no model package is served")
        elif self._running is None or not self._running.pipeline.scheduler.alive:
            reasons.append("the scheduler has stopped")
        if self._running is not None:
            reasons += self._running.soundness.reasons
        return Readiness(not reasons, tuple(reasons))

    @property
    def lost(self) -> str | None:
        """Why only a new process can help; None where it is not known to."""
        return None if self._running is None else self._running.soundness.lost

    @property
    def backlog_seconds(self) -> float:
        """Seconds that all accepted work will take at the measured throughput."""
        return self._admission.backlog_seconds

    @property
    def pixels_per_second(self) -> float:
        """Measured throughput of the default model."""
        return self.default_model.throughput.pixels_per_second if self.default_model else 0.0

    async def forecast(self, size_yx: tuple[int, int], planes: int, request: SegmentRequest) -> Forecast:
        """Say what a 16 bit image would take if it came now.

        Parameters
        ----------
        size_yx, planes
            Height and width, px, and how many planes.
        request
            What would be wanted.

        Raises
        ------
        NotReady, UnknownModel
        ImageTooLarge, UnsupportedOutput
            Where no image of this size is taken, or the format does not hold such a result.

        """
        timeout_s = request.timeout_s or self._settings.deadline_s
        with self.using(request.model) as chosen:
            header = imagined(size_yx, planes, len(chosen.package.spec.channels))
            return await self._working().pipeline.forecast(header, request, chosen, timeout_s)

    @contextmanager
    def using(self, reference: str | None) -> Iterator[LoadedModel]:
        """Keep what :meth:`model` returns for a ``with`` block, whatever becomes of its package meanwhile."""
        chosen = self.model(reference)
        with self._working().watch.using(chosen):
            yield chosen

    def _working(self) -> Running:
        if self._running is None:
            raise NotReady("the scheduler has not started; try again in a few seconds")
        return self._running

    async def segment(self, source: BinaryIO, request: SegmentRequest, progress: Progress | None = None) -> Answer:
        """Segment one image or stack; cancelling the call drops its tiles that still wait.

        Parameters
        ----------
        source
            The file, seekable; the caller closes it.
        request
            What is wanted.
        progress
            Of a request in the background: told how far it is.

        Raises
        ------
        EngineError, FormatError, ModelError
            See :mod:`service.errors` for what each becomes over HTTP.

        """
        chosen, timeout_s = self.model(request.model), request.timeout_s or self._settings.deadline_s
        progress = progress or Progress()
        async with self._working().work(chosen, timeout_s, progress) as pipeline:
            (answer,) = await pipeline.segment(source, [request], chosen, timeout_s, progress)
        return answer

    async def header(self, source: BinaryIO, axes: str | None) -> ImageHeader:
        """Read what an image declares, by the errors of :meth:`segment`."""
        with await self._working().pipeline.opened(source, axes) as reader:
            return reader.header

    async def segment_outputs(
        self, source: BinaryIO, request: SegmentRequest, outputs: Sequence[OutputKind], chosen: LoadedModel
    ) -> dict[OutputKind, Answer]:
        """Give several outputs in place of the request's own, as :meth:`segment` would give each, by the same errors.

        ``chosen`` is the package, which the caller uses; one run of its net is for all outputs that have room together.
        """
        timeout_s = request.timeout_s or self._settings.deadline_s
        requests, progress = [replace(request, output=output) for output in outputs], Progress()
        async with self._working().work(chosen, timeout_s, progress) as pipeline:
            answers = await segment_outputs(pipeline, source, requests, chosen, timeout_s, progress=progress)
        return dict(zip(outputs, answers, strict=True))
