"""From an uploaded file to an encoded answer: decode, normalise, plan, run, stitch, label, encode.

What computes runs in worker threads; the event loop only passes work on.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from functools import partial
from io import SEEK_END
from typing import Any, BinaryIO

from model.images import ImageHeader, ImageReader, ReadLimits, open_image
from service.engine.admission.admission import Admission
from service.engine.admission.series import SINGLE, Series
from service.engine.images.channels import check_one_channel, taken_channel
from service.engine.images.plane import check_output
from service.engine.images.spool import Spool, SpoolShare
from service.engine.packages.loading import LoadedModel
from service.engine.packages.trial import Trials, tried_speed
from service.engine.request import Answer, Body, SegmentRequest
from service.engine.scheduling.clock import WAIT, StageClock
from service.engine.scheduling.scheduler import Scheduler
from service.engine.scheduling.workers import Workers
from service.engine.stages.accepted import AcceptedRequest
from service.engine.stages.auto_scale import all_at_scale, by_pixel_size, settled
from service.engine.stages.demand import Demand, demand_of, first_refusal, telling
from service.engine.stages.encoding import encode
from service.engine.stages.forecast import Forecast, usual_part_bytes
from service.engine.stages.linking import link_axis
from service.engine.stages.needs import Needs
from service.engine.stages.progress import Progress
from service.engine.stages.repeats import Repeats
from service.engine.stages.scale_search import found_scale, search_of
from service.engine.stages.turns import Turns
from service.engine.tracebacks import errors_keep_nothing
from service.formats import ENCODERS
from service.telemetry import Metrics

_MOST_SAMPLE_BYTES = 16  # per pixel: two float64 channels or eight 16-bit ones; the memory budget cuts in earlier


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What every request goes through, and the resources that all share."""

    admission: Admission
    scheduler: Scheduler
    workers: Workers
    metrics: Metrics
    spool: Spool
    max_pixels: int
    turns: Turns
    trials: Trials
    repeats: Repeats

    @errors_keep_nothing
    async def segment(
        self,
        source: BinaryIO,
        requests: Sequence[SegmentRequest],
        chosen: LoadedModel,
        timeout_s: float,
        progress: Progress,
        *,
        series: Series = SINGLE,
    ) -> list[Answer]:
        """Segment one image or stack with one run of the net; see :meth:`service.engine.engine.Engine.segment`.

        Parameters
        ----------
        source, chosen, timeout_s, progress, series
            The file, the net, who waits for how long, and what goes to the same caller.
        requests
            Equal but for their outputs; each gets an answer.

        """
        request = requests[0]  # for what they have in common
        spec, encoder = chosen.package.spec, ENCODERS[request.format]
        clock = StageClock(self.metrics)
        with clock.stage("open"):
            reader = await self.opened(source, request.axes, clock)
        header = reader.header
        channel = taken_channel(header, spec, request.channel)
        for each in requests:
            check_output(encoder, header, spec, each)
            link_axis(header, each)  # refuses what leaves it open
        async with AsyncExitStack() as held:
            held.enter_context(reader)
            accepted = partial(
                self._accepted, reader=reader, channel=channel, chosen=chosen, clock=clock, progress=progress
            )
            with clock.stage("open"):
                hashed = partial(self.workers.call, header.planes * math.prod(header.size_yx), clock=clock)
                repeat = await self.repeats.look(source, header, requests, chosen, hashed)
            if repeat.known:
                progress.is_repeat, progress.scaled = True, repeat.scaled
            at_scale = self._at_scale(
                requests, reader, chosen, accepted, timeout_s=timeout_s, progress=progress, series=series
            )
            work, about_scale = await held.enter_async_context(at_scale)
            finished = await repeat.planes(work, about_scale)
            bodies = held.enter_context(ExitStack())
            encoded: list[tuple[Body, dict[str, Any]]] = []
            for each, planes in zip(work.requests, zip(*finished, strict=True), strict=True):
                encoded.append(await encode(work, each, planes, about_scale))
                bodies.callback(encoded[-1][0].close)
            # until it is sent: a client that takes its time holds no less memory than one that waits
            for body, _ in encoded:
                held_bytes = (body.size, 0) if body.in_memory else (0, body.size)
                body.when_freed(self.admission.keep(*held_bytes, series.owner))
            bodies.pop_all()
        pixels = header.planes * math.prod(header.size_yx)
        self.metrics.pixels.labels(model=spec.reference).inc(pixels)
        if repeat.known:
            self.metrics.repeats.labels(model=spec.reference).inc()
        elif len(work.requests) == 1:
            chosen.finishing.add(work.requests[0], pixels, work.ticket.beside())
        return [
            Answer(body, encoder.media_type, encoder.extension, receipt, clock.milliseconds(), spec.reference)
            for body, receipt in encoded
        ]

    async def forecast(
        self, header: ImageHeader, request: SegmentRequest, chosen: LoadedModel, timeout_s: float
    ) -> Forecast:
        """Say what a request would take; see :meth:`service.engine.engine.Engine.forecast`."""
        self._limits.check(header)
        check_output(ENCODERS[request.format], header, chosen.package.spec, request)
        check_one_channel(chosen.package.spec, request.channel)
        speed, part_bytes = chosen.throughput, usual_part_bytes(header)
        scaled, search = by_pixel_size(request, header, chosen.package.spec), None
        if scaled is not None:
            request, _ = scaled
        else:
            search = search_of(header, request, chosen, part_bytes, timeout_s, most=self._most, series=SINGLE).asked
        room = self.demand(header, [request], chosen, part_bytes, timeout_s).room  # at no scale does it take less
        if search:  # the scale that is found for an image nobody knows before, and those of the last ones stand for it
            request = chosen.found_scales.request(request, header.size_yx, self.max_pixels)
        demand = partial(self.demand, header, [request], chosen, part_bytes, timeout_s)
        work = demand()
        await self._try_speed(search or work, chosen)
        if not self.admission.backlog_pixels:
            tiles = header.planes * len(work.plan)
            await self.trials.before_promise(speed, tiles, self._trial(work, chosen), timeout_s)
        search_s = search.pixels / speed.pixels_per_second if search else 0.0
        asked = replace(demand(series=replace(SINGLE, seconds=search_s)), room=room)
        demands = [search, asked] if search else [asked]
        pixels = sum(each.pixels for each in demands)
        compute_s = pixels / speed.pixels_per_second
        through_s = self.admission.seconds_until_done(speed, pixels, background=request.background, user=request.user)
        refusal = first_refusal(demands, self.admission, speed)
        if refusal is None:
            through_s = max(through_s, demands[0].seconds_in_line(self.admission, speed) + compute_s)
        return Forecast(
            model=chosen,
            plan=asked.plan,
            size_yx=header.size_yx,
            planes=header.planes,
            scale=request.scale or 1.0,
            compute_s=compute_s,
            search_s=search_s if search else None,
            finishing_s=asked.usual_finishing_s,
            expected_s=through_s + asked.usual_finishing_s,
            memory_bytes=max(each.room.memory_bytes for each in demands),
            disk_bytes=max(each.room.disk_bytes for each in demands),
            refusal=refusal,
        )

    @asynccontextmanager
    async def _at_scale(
        self,
        requests: Sequence[SegmentRequest],
        reader: ImageReader,
        chosen: LoadedModel,
        accepted: Callable[..., AbstractAsyncContextManager[AcceptedRequest]],
        *,
        timeout_s: float,
        progress: Progress,
        series: Series,
    ) -> AsyncIterator[tuple[AcceptedRequest, tuple[str, ...]]]:
        """Accept requests once their scale is settled, and say why it is that; by objects where nothing else tells it.

        One ticket and one turn are for the search and for the work after it.
        """
        began = asyncio.get_running_loop().time()
        request, header, spec = requests[0], reader.header, chosen.package.spec
        demand = partial(self.demand, header, chosen=chosen, part_bytes=reader.part_bytes, timeout_s=timeout_s)
        progress.scaled = scaled = progress.scaled or by_pixel_size(request, header, spec)
        if scaled is not None:
            requests = all_at_scale(requests, scaled)
            asked = demand(requests, series=series)
            if progress.is_repeat:
                asked = replace(asked, pixels=0)
            await self._try_speed(asked, chosen)
            async with accepted(requests, asked) as work:
                with telling(asked.auto_scale):
                    yield work, scaled[1]
            return
        crops, known, asked = search_of(
            header, request, chosen, reader.part_bytes, timeout_s, most=self._most, series=series
        )
        for each in requests:  # at no scale does one take less than at its own, alone
            demand([each], series=series).check_alone(self.admission)
        await self._try_speed(asked, chosen)
        async with accepted([request], asked, preparing=True) as search:
            beside = search.ticket.beside
            before_s = beside()
            progress.scaled = scaled = settled(request, *await found_scale(search, crops, known))
            searched_s = beside() - before_s
            search.ticket.beside = lambda: beside() - searched_s
            requests = all_at_scale(requests, scaled)
            seconds = series.seconds + asyncio.get_running_loop().time() - began
            asked = demand(requests, series=replace(series, seconds=seconds))
            # of several outputs each is made in turn where there is no room for all, but for a package
            patient = len(requests) == 1 or asked.waits_for_package(self.admission)
            await asked.go_on(self.admission, search.ticket, patient=patient)
            await self.turns.room(progress)
            progress.accept(header, search.ticket, self.admission, asked.usual_finishing_s)
            with telling(asked.auto_scale):
                yield replace(search, requests=requests, plan=asked.plan, room=asked.room), scaled[1]

    @asynccontextmanager
    async def _accepted(
        self,
        requests: Sequence[SegmentRequest],
        asked: Demand,
        *,
        reader: ImageReader,
        channel: int | None,
        chosen: LoadedModel,
        clock: StageClock,
        progress: Progress,
        preparing: bool = False,
    ) -> AsyncIterator[AcceptedRequest]:
        """Admit what requests for one image, or what prepares them, ask for, and wait for their turn."""
        if asked.waits(self.admission, chosen.throughput):
            with clock.stage(WAIT):
                asked = await asked.wait_for_room(self.admission, chosen.throughput)
        with asked.admit(self.admission, chosen.throughput) as ticket:
            ticket.beside = partial(clock.seconds_beside, "inference")
            progress.accept(reader.header, ticket, self.admission, asked.usual_finishing_s, preparing=preparing)
            spool = ticket.over.enter_context(closing(SpoolShare(self.spool)))
            async with self.turns.turn(progress):
                yield AcceptedRequest(
                    self.admission,
                    self.scheduler,
                    self.workers,
                    spool,
                    reader=reader,
                    requests=requests,
                    channel=channel,
                    chosen=chosen,
                    plan=asked.plan,
                    ticket=ticket,
                    clock=clock,
                    room=asked.room,
                )

    async def opened(self, source: BinaryIO, axes: str | None, clock: StageClock | None = None) -> ImageReader:
        """Read the header of an image; close what is returned."""
        size = source.seek(0, SEEK_END)
        return await self.workers.call(size, open_image, source, self._limits, axes, clock=clock)

    def demand(
        self,
        header: ImageHeader,
        requests: Sequence[SegmentRequest],
        chosen: LoadedModel,
        part_bytes: int,
        timeout_s: float,
        *,
        series: Series = SINGLE,
    ) -> Demand:
        """Say what a run of the net asks for of what there is; see :func:`service.engine.stages.demand.demand_of`."""
        most, most_pixels = self._most, self.max_pixels
        return demand_of(
            header, requests, chosen, part_bytes, timeout_s, most=most, most_pixels=most_pixels, series=series
        )

    async def _try_speed(self, asked: Demand, chosen: LoadedModel) -> None:
        """Try the net where an old speed alone would refuse what is asked for."""
        check, trial = partial(asked.check, self.admission), self._trial(asked, chosen)
        await self.trials.before_refusal(chosen.throughput, check, trial, asked.left_s)

    @staticmethod
    def _trial(asked: Demand, chosen: LoadedModel) -> Callable[[], float]:
        return partial(tried_speed, chosen, asked.plan.tiles.input_yx)

    @property
    def _most(self) -> Needs:
        return Needs(self.admission.memory_limit, self.admission.disk_limit)

    @property
    def _limits(self) -> ReadLimits:
        return ReadLimits(self.max_pixels, self.max_pixels * _MOST_SAMPLE_BYTES, "UNET_MAX_PIXELS")
