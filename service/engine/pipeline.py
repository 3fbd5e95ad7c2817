"""From an uploaded file to an encoded answer: decode, normalise, plan, run, stitch, label, encode.

What computes runs in worker threads; the event loop only passes work on.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.normalization import FittedNormalization, fit
from model.stitching import Stitcher, read_tile
from model.tiling import Tile, TilePlan
from service.engine.admission import Admission, Ticket
from service.engine.plane import (
    check_channels,
    check_output,
    empty_plane,
    label_plane,
    memory_needed,
    outline_memory,
    reduction,
    result_classes,
    select_channels,
)
from service.engine.receipt import build_receipt
from service.engine.registry import LoadedModel
from service.engine.request import Answer, SegmentRequest
from service.engine.scheduler import Job, Scheduler
from service.formats import ENCODERS, ImageReader, ReadLimits, SegmentationResult, open_image
from service.telemetry import Metrics

_T = TypeVar("_T")
_OUTLINES = frozenset({"rle", "coco", "geojson", "rois"})  # formats whose size follows the objects' edges
_MOST_SAMPLE_BYTES = 16  # per pixel: two float64 channels or eight 16-bit ones; the memory budget cuts in earlier


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What every request goes through, and the resources that all share."""

    admission: Admission
    scheduler: Scheduler
    workers: Executor
    metrics: Metrics
    max_pixels: int

    async def segment(self, source: BinaryIO, request: SegmentRequest, chosen: LoadedModel, timeout_s: float) -> Answer:
        """Segment one image or stack; see :meth:`service.engine.engine.Engine.segment`."""
        spec = chosen.package.spec
        encoder = ENCODERS[request.format]
        clock = StageClock(self.metrics)
        limits = ReadLimits(max_pixels=self.max_pixels, max_bytes=self.max_pixels * _MOST_SAMPLE_BYTES)
        with clock.stage("open"):
            reader = await self.in_worker(open_image, source, limits)
        header = reader.header
        check_channels(header, spec, request)
        check_output(encoder, header, spec, request)
        plan = chosen.planner.plan(header.size_yx)
        pixels = header.planes * plan.input_pixels
        memory = memory_needed(header, spec, request)
        with reader, self.admission.admit(chosen.throughput, pixels, memory, timeout_s) as ticket:
            work = _Work(self, reader, request, chosen, plan, ticket, clock)
            finished = [await work.plane(index) for index in range(header.planes)]
            notes = dict.fromkeys([*header.notes, *(plane.note for plane in finished if plane.note)])
            scores = tuple(plane.scores for plane in finished if plane.scores is not None)
            receipt = build_receipt(
                header,
                list(notes),
                chosen,
                plan,
                request,
                constants=[plane.normalization.constants() for plane in finished],
                objects=[len(score) for score in scores],
            )
            result = SegmentationResult(
                kind=request.output,
                planes=await self.in_worker(_stack, [plane.values for plane in finished], ticket=ticket),
                classes=result_classes(spec, request),
                stack_axes=header.stack_axes,
                stack_shape=header.stack_shape,
                pixel_size_um=request.pixel_size_um or header.pixel_size_um,
                scores=scores if request.output == "labels" else None,
                receipt=receipt,
            )
            with clock.stage("encode"):
                if request.format in _OUTLINES:
                    edges = await self.in_worker(outline_memory, result.planes, ticket=ticket)
                    self.admission.grow(ticket, edges)
                body = await self.in_worker(encoder.encode, result, ticket=ticket)
        self.metrics.pixels.labels(model=spec.reference).inc(header.planes * math.prod(header.size_yx))
        return Answer(body, encoder.media_type, encoder.extension, receipt, clock.milliseconds(), spec.reference)

    async def in_worker(
        self,
        function: Callable[..., _T],
        *arguments: Any,  # noqa: ANN401 - passed on
        ticket: Ticket | None = None,
    ) -> _T:
        """Call in a worker thread; a call that has begun cannot be stopped and keeps the ticket until it ends."""
        thread = self.workers.submit(function, *arguments)
        if ticket is not None:
            ticket.runs(thread)
        return await asyncio.wrap_future(thread)


@dataclass(frozen=True, slots=True)
class _FinishedPlane:
    values: NDArray[Any]
    normalization: FittedNormalization
    note: str | None
    scores: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class _Work:
    """One accepted request."""

    pipeline: Pipeline
    reader: ImageReader
    request: SegmentRequest
    chosen: LoadedModel
    plan: TilePlan
    ticket: Ticket
    clock: StageClock

    async def plane(self, index: int) -> _FinishedPlane:
        """Take one plane through every stage but the encoder."""
        spec = self.chosen.package.spec
        in_worker = partial(self.pipeline.in_worker, ticket=self.ticket)
        with self.clock.stage("decode"):
            decoded_yxc = await in_worker(self.reader.read_plane, index)
        with self.clock.stage("normalise"):
            image_yxc, note = await in_worker(select_channels, decoded_yxc, spec, self.request.channel)
            normalization = await in_worker(fit, spec.normalization, image_yxc)
        with self.clock.stage("inference"):
            values = await self._infer(image_yxc, normalization)
        scores = None
        if self.request.output == "labels":
            with self.clock.stage("label"):
                values, scores = await in_worker(label_plane, values, spec, self.request)
        return _FinishedPlane(values, normalization, note, scores)

    async def _infer(self, image_yxc: NDArray[Any], normalization: FittedNormalization) -> NDArray[Any]:
        spec = self.chosen.package.spec
        stitcher = Stitcher(empty_plane(self.plan.size_yx, spec, self.request), reduction(spec, self.request))

        def write(tile: Tile, output_cyx: NDArray[np.float32]) -> None:
            stitcher.write(tile, output_cyx)
            self.ticket.done(math.prod(self.plan.input_yx))

        await self.pipeline.scheduler.run(
            Job(
                key=(self.chosen, self.plan.input_yx),
                run=self.chosen.session.run,
                read=lambda tile: read_tile(image_yxc, tile, normalization),
                write=write,
                tiles=iter(self.plan),
                count=len(self.plan),
                tile_pixels=math.prod(self.plan.input_yx),
                progress=self.chosen.throughput.add,
            )
        )
        return stitcher.plane


def _stack(planes: list[NDArray[Any]]) -> NDArray[Any]:
    """One array (n, ...) of all planes; label planes of different width become the wider one."""
    return planes[0][np.newaxis] if len(planes) == 1 else np.stack(planes)


class StageClock:
    """Milliseconds of each stage of one request."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a ``with`` block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self._seconds[name] = self._seconds.get(name, 0.0) + elapsed
            self._metrics.stage_seconds.labels(stage=name).observe(elapsed)

    def milliseconds(self) -> dict[str, float]:
        """Total of each stage so far."""
        return {name: round(seconds * 1000, 2) for name, seconds in self._seconds.items()}
