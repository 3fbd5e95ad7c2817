"""From an uploaded file to an encoded answer: decode, normalise, plan, run, stitch, label, encode.

What computes runs in worker threads; the event loop only passes work on.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from io import SEEK_END
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.images import ImageHeader, ImageReader, ReadLimits, open_image
from model.labels import BYTES_PER_OBJECT, Allocate, Objects, label_evidence
from model.normalization import FittedNormalization, fit
from model.pixels import Pixels
from model.stitching import Reduce, Run, Stitcher, read_tile
from model.views import MeanOfViews, TileView, ViewPlan
from service.engine.admission import Admission
from service.engine.channels import channel_notes, check_one_channel, taken_channel
from service.engine.clock import StageClock
from service.engine.demand import Demand, demand_of
from service.engine.encoding import write_body
from service.engine.errors import EngineError
from service.engine.forecast import Forecast, usual_part_bytes
from service.engine.loading import LoadedModel
from service.engine.needs import Needs, encoder_memory
from service.engine.notes import object_notes, request_notes
from service.engine.plane import (
    FinishedPlane,
    check_output,
    chosen_run,
    empty_plane,
    read_image,
    result_classes,
)
from service.engine.progress import Progress, Turns
from service.engine.receipt import build_receipt
from service.engine.request import Answer, SegmentRequest
from service.engine.scaling import NormalisedPixels, scaled_back, scaled_image
from service.engine.scheduler import Scheduler
from service.engine.spool import Spool
from service.engine.ticket import Ticket
from service.engine.tile_job import Job
from service.engine.trial import Trials, tried_speed
from service.engine.wanted import WantedPixels
from service.engine.workers import Workers
from service.formats import ENCODERS, SegmentationResult
from service.telemetry import Metrics

_T = TypeVar("_T")
_LEAST_CHARGE = 16 << 20  # bytes; the tables of a quarter of a million objects are in the working memory
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
            asked = await self._asked(header, request, chosen, reader.part_bytes, timeout_s)
            plan, room = asked.plan, asked.room
            ticket = held.enter_context(asked.admit(self.admission, chosen.throughput))
            progress.accept(header, ticket, self.admission)
            await held.enter_async_context(self.turns.turn(progress))
            work = _Work(self, reader, request, channel, chosen, plan, ticket, clock, room)
            in_worker = work.in_worker
            finished = [await work.plane(index) for index in range(header.planes)]
            of_planes = (note for plane in finished for note in plane.notes)
            objects = [plane.objects for plane in finished if plane.objects is not None]
            of_request = (*channel_notes(header, request.channel), *request_notes(header, spec, request))
            notes = dict.fromkeys([*header.notes, *of_request, *of_planes, *object_notes(objects, spec)])
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

    async def _asked(
        self, header: ImageHeader, request: SegmentRequest, chosen: LoadedModel, part_bytes: int, timeout_s: float
    ) -> Demand:
        """What a request asks for; its net is tried where an old speed alone would refuse it."""
        most = Needs(self.admission.memory_limit, self.admission.disk_limit)
        asked = demand_of(header, request, chosen, part_bytes, timeout_s, most=most, most_pixels=self.max_pixels)
        trial = partial(tried_speed, chosen, asked.plan.tiles.input_yx)
        await self.trials.before_refusal(chosen.throughput, partial(asked.check, self.admission), trial, timeout_s)
        return asked

    @property
    def _limits(self) -> ReadLimits:
        return ReadLimits(self.max_pixels, self.max_pixels * _MOST_SAMPLE_BYTES, "UNET_MAX_PIXELS")


@dataclass(frozen=True, slots=True)
class _Work:
    """One accepted request."""

    pipeline: Pipeline
    reader: ImageReader
    request: SegmentRequest
    channel: int | None
    chosen: LoadedModel
    plan: ViewPlan
    ticket: Ticket
    clock: StageClock
    room: Needs

    @property
    def _allocate(self) -> Allocate:
        return self.pipeline.spool.array if self.room.on_disk else np.empty

    def _allocate_wanted(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Pixels:
        return WantedPixels(self._allocate(shape, dtype), self.ticket)

    async def in_worker(self, function: Callable[..., _T], *arguments: Any) -> _T:  # noqa: ANN401 - passed on
        """Call in a worker thread for requests of this one's size; see :meth:`service.engine.workers.Workers.call`."""
        header = self.reader.header
        values = header.planes * max(header.channels * math.prod(header.size_yx), math.prod(self.plan.tiles.size_yx))
        return await self.pipeline.workers.call(values, function, *arguments, ticket=self.ticket)

    async def plane(self, index: int) -> FinishedPlane:
        """Take one plane through every stage but the encoder."""
        values, normalization, note = await self._infer(index)
        notes = (*((note,) if note else ()), *normalization.notes)
        if self.request.output != "labels":
            return FinishedPlane(values, normalization, notes, None)
        with self.clock.stage("label"):
            loop = asyncio.get_running_loop()
            objects = await self.in_worker(self._label, values, loop)
        return FinishedPlane(objects.labels, normalization, notes, objects)

    async def _infer(self, index: int) -> tuple[Pixels, FittedNormalization, str | None]:
        """Decode one plane and send it through the net; the decoded plane is gone afterwards."""
        spec = self.chosen.package.spec
        in_worker = self.in_worker
        with self.clock.stage("decode"):
            image_yxc, note = await in_worker(
                read_image,
                self.reader,
                index,
                spec,
                self.channel,
                self._allocate_wanted if self.room.on_disk else None,
            )
        with self.clock.stage("normalise"):
            normalization = await in_worker(fit, spec.normalization, WantedPixels(image_yxc, self.ticket))
        run, reduce = chosen_run(self.chosen.session, spec, self.request)
        size_yx, at_scale = self.plan.tiles.size_yx, self.request.scale is not None
        source: NormalisedPixels = (image_yxc, normalization)
        if at_scale:
            with self.clock.stage("scale"):
                shape = (*size_yx, image_yxc.shape[-1])
                scaled = await in_worker(self._allocate, shape, np.dtype(np.float32))
                source = await in_worker(scaled_image, WantedPixels(image_yxc, self.ticket), normalization, scaled)
        with self.clock.stage("inference"):
            output = "probabilities" if at_scale else self.request.output
            plane = await in_worker(empty_plane, size_yx, spec, output, self._allocate)
            await self._run_tiles(source, run, (lambda output_cyx: output_cyx) if at_scale else reduce, plane)
        if at_scale:
            with self.clock.stage("scale"):
                whole = await in_worker(empty_plane, image_yxc.shape[:2], spec, self.request.output, self._allocate)
                plane = await in_worker(scaled_back, WantedPixels(plane, self.ticket), reduce, whole)
        return plane, normalization, note

    def _label(self, evidence: Pixels, loop: asyncio.AbstractEventLoop) -> Objects:
        request, charged = self.request, 0

        async def charge(more: int) -> None:
            await self.pipeline.admission.grow(self.ticket, more)

        def charge_objects(objects: int) -> None:
            nonlocal charged
            self.ticket.check_wanted()
            more = objects * BYTES_PER_OBJECT - charged
            if more >= _LEAST_CHARGE:
                asyncio.run_coroutine_threadsafe(charge(more), loop).result()
                charged += more

        rule = self.chosen.package.spec.label_rule.at_scale(request.scale or 1)
        return label_evidence(
            evidence,
            rule.with_values(threshold=request.threshold, min_area_px=request.min_area, min_score=request.min_score),
            allocate=self._allocate,
            tell=charge_objects,
            flood_window=self.room.flood_window,
        )

    async def _run_tiles(self, source: NormalisedPixels, run: Run, reduce: Reduce, plane: Pixels) -> None:
        mean = MeanOfViews(self.plan.views, Stitcher(plane, reduce).write)
        input_yx = self.plan.tiles.input_yx

        def read(part: TileView) -> NDArray[np.float32]:
            tile, view = part
            return view.of(read_tile(source[0], tile, source[1]))

        def write(part: TileView, output_cyx: NDArray[np.float32]) -> None:
            mean.write(part, output_cyx)
            self.ticket.done(math.prod(input_yx))

        await self.pipeline.scheduler.run(
            Job(
                key=(run, input_yx),
                run=run,
                read=read,
                write=write,
                tiles=iter(self.plan),
                count=len(self.plan),
                tile_pixels=math.prod(input_yx),
                progress=self.chosen.throughput.add,
                background=self.request.background,
            )
        )
