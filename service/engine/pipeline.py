"""From an uploaded file to an encoded answer: decode, normalise, plan, run, stitch, label, encode.

What computes runs in worker threads; the event loop only passes work on.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from io import SEEK_END
from typing import BinaryIO

from model.images import ImageHeader, ImageReader, ReadLimits, open_image
from service.engine.accepted import AcceptedRequest
from service.engine.admission import Admission
from service.engine.auto_scale import ScaledRequest, by_pixel_size, nothing_tells, settled
from service.engine.channels import channel_notes, check_one_channel, taken_channel
from service.engine.clock import StageClock
from service.engine.demand import Demand, demand_of
from service.engine.encoding import write_body
from service.engine.errors import EngineError
from service.engine.forecast import Forecast, usual_part_bytes
from service.engine.loading import LoadedModel
from service.engine.needs import Needs, encoder_memory
from service.engine.notes import object_notes, request_notes
from service.engine.plane import check_output, result_classes
from service.engine.progress import Progress, Turns
from service.engine.receipt import build_receipt
from service.engine.request import Answer, SegmentRequest
from service.engine.scale_search import found_scale, search_demand, search_needs, trials_of
from service.engine.scheduler import Scheduler
from service.engine.spool import Spool
from service.engine.trial import Trials, tried_speed
from service.engine.wanted import WantedPixels
from service.engine.workers import Workers
from service.formats import ENCODERS, SegmentationResult
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

    async def segment(
        self, source: BinaryIO, request: SegmentRequest, chosen: LoadedModel, timeout_s: float, progress: Progress
    ) -> Answer:
        """Segment one image or stack; see :meth:`service.engine.engine.Engine.segment`."""
        spec, encoder = chosen.package.spec, ENCODERS[request.format]
        clock = StageClock(self.metrics)
        with clock.stage("open"):
            reader = await self.workers.call(source.seek(0, SEEK_END), open_image, source, self._limits, request.axes)
        header = reader.header
        channel = taken_channel(header, spec, request.channel)
        check_output(encoder, header, spec, request)
        async with AsyncExitStack() as held:
            held.enter_context(reader)
            accepted = partial(
                self._accepted, reader=reader, channel=channel, chosen=chosen, clock=clock, progress=progress
            )
            prepared = partial(accepted, preparing=True)
            request, about_scale = await self._scaled(request, reader, chosen, timeout_s, prepared)
            asked = await self._asked(header, request, chosen, reader.part_bytes, timeout_s)
            plan, room = asked.plan, asked.room
            work = await held.enter_async_context(accepted(request, asked))
            in_worker, ticket = work.in_worker, work.ticket
            finished = [await work.plane(index) for index in range(header.planes)]
            of_planes = (note for plane in finished for note in plane.notes)
            objects = [plane.objects for plane in finished if plane.objects is not None]
            of_request = (*channel_notes(header, request.channel), *request_notes(header, spec, request))
            of_objects = await in_worker(object_notes, objects, spec, request.scale)
            notes = dict.fromkeys([*header.notes, *about_scale, *of_request, *of_planes, *of_objects])
            scores = tuple(of_plane.scores for of_plane in objects)
            receipt = build_receipt(
                header,
                list(notes),
                chosen,
                plan,
                request,
                channel=channel,
                constants=[plane.normalization.constants() for plane in finished],
                objects=[len(score) for score in scores],
            )
            result = SegmentationResult(
                kind=request.output,
                planes=tuple(WantedPixels(plane.values, ticket) for plane in finished),
                classes=result_classes(spec, request),
                stack_axes=header.stack_axes,
                stack_shape=header.stack_shape,
                pixel_size_um=request.pixel_size_um or header.pixel_size_um,
                spacing_um=header.spacing_um,
                interval_s=header.interval_s,
                scores=scores if request.output == "labels" else None,
                receipt=receipt,
                placement=request.placement,
            )
            with clock.stage("encode"):
                if more := await in_worker(encoder_memory, result, request.format):
                    await self.admission.grow(ticket, more)
                spool = self.spool if room.on_disk else None
                body = await in_worker(write_body, encoder, result, spool)
            # until it is sent: a client that takes its time holds no less memory than one that waits
            body.when_freed(self.admission.keep(*((body.size, 0) if body.in_memory else (0, body.size))))
        self.metrics.pixels.labels(model=spec.reference).inc(header.planes * math.prod(header.size_yx))
        return Answer(body, encoder.media_type, encoder.extension, receipt, clock.milliseconds(), spec.reference)

    async def forecast(
        self, header: ImageHeader, request: SegmentRequest, chosen: LoadedModel, timeout_s: float
    ) -> Forecast:
        """Say what a request would take; see :meth:`service.engine.engine.Engine.forecast`."""
        self._limits.check(header)
        check_one_channel(chosen.package.spec, request.channel)
        scaled = by_pixel_size(request, header, chosen.package.spec)
        if scaled is None:
            raise nothing_tells(request, header, chosen.package.spec, seen=False)
        request, _ = scaled
        asked, speed = (
            await self._asked(header, request, chosen, usual_part_bytes(header), timeout_s),
            chosen.throughput,
        )
        try:
            asked.check(self.admission, speed)
            refusal = None
        except EngineError as error:
            refusal = error
        return Forecast(
            model=chosen,
            plan=asked.plan,
            size_yx=header.size_yx,
            planes=header.planes,
            compute_s=asked.pixels / speed.pixels_per_second,
            expected_s=self.admission.seconds_until_done(speed, asked.pixels, background=request.background),
            memory_bytes=asked.room.memory_bytes,
            disk_bytes=asked.room.disk_bytes,
            refusal=refusal,
        )

    async def _scaled(
        self,
        request: SegmentRequest,
        reader: ImageReader,
        chosen: LoadedModel,
        timeout_s: float,
        prepared: Callable[[SegmentRequest, Demand], AbstractAsyncContextManager[AcceptedRequest]],
    ) -> ScaledRequest:
        """Settle the scale of a request, by the objects of the image where nothing else tells it."""
        header, spec = reader.header, chosen.package.spec
        scaled = by_pixel_size(request, header, spec)
        if scaled is not None:
            return scaled
        known, trials = spec.object_diameter_px, trials_of(header, chosen.planner)
        if known is None or not trials:
            raise nothing_tells(request, header, spec, seen=True)
        room = search_needs(header, request, spec, reader.part_bytes, self._most)
        asked = search_demand(trials, room, timeout_s, background=request.background)
        await self._try_speed(asked, chosen)
        async with prepared(request, asked) as work:
            return settled(request, *await found_scale(work, trials, known))

    @asynccontextmanager
    async def _accepted(
        self,
        request: SegmentRequest,
        asked: Demand,
        *,
        reader: ImageReader,
        channel: int | None,
        chosen: LoadedModel,
        clock: StageClock,
        progress: Progress,
        preparing: bool = False,
    ) -> AsyncIterator[AcceptedRequest]:
        """Admit what a request, or what prepares it, asks for, and wait for its turn."""
        with asked.admit(self.admission, chosen.throughput) as ticket:
            progress.accept(reader.header, ticket, self.admission, preparing=preparing)
            async with self.turns.turn(progress):
                yield AcceptedRequest(
                    self.admission,
                    self.scheduler,
                    self.workers,
                    self.spool,
                    reader=reader,
                    request=request,
                    channel=channel,
                    chosen=chosen,
                    plan=asked.plan,
                    ticket=ticket,
                    clock=clock,
                    room=asked.room,
                )

    async def _asked(
        self, header: ImageHeader, request: SegmentRequest, chosen: LoadedModel, part_bytes: int, timeout_s: float
    ) -> Demand:
        """What a request asks for."""
        asked = demand_of(header, request, chosen, part_bytes, timeout_s, most=self._most, most_pixels=self.max_pixels)
        await self._try_speed(asked, chosen)
        return asked

    async def _try_speed(self, asked: Demand, chosen: LoadedModel) -> None:
        """Try the net where an old speed alone would refuse what is asked for."""
        trial = partial(tried_speed, chosen, asked.plan.tiles.input_yx)
        check = partial(asked.check, self.admission)
        await self.trials.before_refusal(chosen.throughput, check, trial, asked.timeout_s)

    @property
    def _most(self) -> Needs:
        return Needs(self.admission.memory_limit, self.admission.disk_limit)

    @property
    def _limits(self) -> ReadLimits:
        return ReadLimits(self.max_pixels, self.max_pixels * _MOST_SAMPLE_BYTES, "UNET_MAX_PIXELS")
