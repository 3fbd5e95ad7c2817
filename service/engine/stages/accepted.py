"""The stages of each plane of an accepted request: decode, normalise, run, stitch, label.

What computes runs in worker threads; the event loop only passes work on.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.images import ImageReader
from model.labels import BYTES_PER_OBJECT, Allocate, Objects, label_evidence
from model.normalization import FittedNormalization, fit
from model.pixels import Pixels
from model.stitching import Reduce, Run, Stitcher, read_tile
from model.views import MeanOfViews, TileView, ViewPlan
from service.engine.admission.admission import Admission
from service.engine.admission.ticket import Ticket
from service.engine.admission.wanted import WantedPixels
from service.engine.images.plane import FinishedPlane, InferredPlane, chosen_run, empty_plane, read_image
from service.engine.images.scaling import NormalisedPixels, scaled_back, scaled_image
from service.engine.images.spool import SpoolShare
from service.engine.packages.loading import LoadedModel
from service.engine.packages.planning import most_batch_pixels
from service.engine.request import SegmentRequest
from service.engine.scheduling.clock import WAIT, StageClock
from service.engine.scheduling.scheduler import Scheduler
from service.engine.scheduling.tile_job import Job
from service.engine.scheduling.workers import Workers
from service.engine.stages.needs import Needs
from service.formats import OutputKind

_T = TypeVar("_T")
_LEAST_CHARGE = 16 << 20  # bytes; the tables of a quarter of a million objects are in the working memory


@dataclass(frozen=True, slots=True)
class AcceptedRequest:
    """What one run of the net serves, accepted: requests for one image, and what its planes go through."""

    admission: Admission
    scheduler: Scheduler
    workers: Workers
    spool: SpoolShare
    reader: ImageReader
    requests: Sequence[SegmentRequest]
    """Equal but for their outputs; at least one."""
    channel: int | None
    chosen: LoadedModel
    plan: ViewPlan
    ticket: Ticket
    clock: StageClock
    room: Needs

    @property
    def _allocate(self) -> Allocate:
        return self.spool.array if self.room.on_disk else np.empty

    def _allocate_wanted(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Pixels:
        return WantedPixels(self._allocate(shape, dtype), self.ticket)

    async def in_worker(self, function: Callable[..., _T], *arguments: Any) -> _T:  # noqa: ANN401 - passed on
        """Call in a worker thread for requests of this one's size; see :meth:`.Workers.call`."""
        header = self.reader.header
        values = header.planes * max(header.channels * math.prod(header.size_yx), math.prod(self.plan.tiles.size_yx))
        return await self.workers.call(values, function, *arguments, ticket=self.ticket, clock=self.clock)

    async def finish(self, plane: InferredPlane) -> list[FinishedPlane]:
        """Take what the net gave for one plane through every stage but the encoder, for each request."""
        normalization = plane.normalization
        notes = (*((plane.note,) if plane.note else ()), *normalization.notes)
        finished: list[FinishedPlane] = []
        for request, values in zip(self.requests, plane.values, strict=True):
            if request.output != "labels":
                finished.append(FinishedPlane(values, normalization, notes, None))
                continue
            with self.clock.stage("label"):
                charge = self.charge(asyncio.get_running_loop())
                objects = await self.in_worker(self._label, request, values, charge)
            finished.append(FinishedPlane(objects.labels, normalization, notes, objects))
        return finished

    async def read(self, index: int) -> tuple[Pixels, FittedNormalization, str | None]:
        """Decode one plane (y, x, c) and fit the package's normalisation to it; a note where it was read otherwise."""
        spec = self.chosen.package.spec
        with self.clock.stage("decode"):
            image_yxc, note = await self.in_worker(
                read_image,
                self.reader,
                index,
                spec,
                self.channel,
                self._allocate_wanted if self.room.on_disk else None,
            )
        with self.clock.stage("normalise"):
            normalization = await self.in_worker(fit, spec.normalization, WantedPixels(image_yxc, self.ticket))
        return image_yxc, normalization, note

    async def infer(self, index: int) -> InferredPlane:
        """Decode one plane and send it through the net; the decoded plane is gone afterwards."""
        spec = self.chosen.package.spec
        in_worker = self.in_worker
        image_yxc, normalization, note = await self.read(index)
        run, reduces = chosen_run(self.chosen.session, spec, self.requests)
        outputs: list[OutputKind] = [request.output for request in self.requests]
        size_yx, at_scale = self.plan.tiles.size_yx, self.requests[0].scale is not None
        source: NormalisedPixels = (image_yxc, normalization)
        if at_scale:
            with self.clock.stage("scale"):
                shape = (*size_yx, image_yxc.shape[-1])
                scaled = await in_worker(self._allocate, shape, np.dtype(np.float32))
                source = await in_worker(scaled_image, WantedPixels(image_yxc, self.ticket), normalization, scaled)
        with self.clock.stage("inference"):
            kept: list[Reduce] = [lambda output_cyx: output_cyx] if at_scale else reduces
            planes = await self._empty_planes(size_yx, ["probabilities"] if at_scale else outputs)
            await self.run_tiles(source, run, Stitcher(*zip(planes, kept, strict=True)))
        if at_scale:
            with self.clock.stage("scale"):
                probabilities = WantedPixels(planes[0], self.ticket)
                planes = await self._empty_planes(self.reader.header.size_yx, outputs)
                for plane, reduce in zip(planes, reduces, strict=True):
                    await in_worker(scaled_back, probabilities, reduce, plane)
        return InferredPlane(planes, normalization, note)

    async def _empty_planes(self, size_yx: tuple[int, int], outputs: Sequence[OutputKind]) -> list[Pixels]:
        spec, allocate = self.chosen.package.spec, self._allocate
        return [await self.in_worker(empty_plane, size_yx, spec, output, allocate) for output in outputs]

    async def grow(self, memory_bytes: int) -> None:
        """See :meth:`service.engine.admission.admission.Admission.grow`; the time is nobody's work."""
        with self.clock.stage(WAIT):
            await self.admission.grow(self.ticket, memory_bytes)

    def charge(self, loop: asyncio.AbstractEventLoop) -> Callable[[int], None]:
        """Return what a worker thread tells, now and then, how many bytes its tables take: it waits for memory.

        What it is told is charged once; it raises what :meth:`Admission.grow` and :meth:`Ticket.check_wanted` do.
        """
        charged = 0

        def tell(memory_bytes: int) -> None:
            nonlocal charged
            self.ticket.check_wanted()
            more = memory_bytes - charged
            if more >= _LEAST_CHARGE:
                asyncio.run_coroutine_threadsafe(self.grow(more), loop).result()
                charged += more

        return tell

    def _label(self, request: SegmentRequest, evidence: Pixels, charge: Callable[[int], None]) -> Objects:
        rule = self.chosen.package.spec.label_rule.at_scale(request.scale or 1)
        return label_evidence(
            evidence,
            rule.with_values(threshold=request.threshold, min_area_px=request.min_area, min_score=request.min_score),
            allocate=self._allocate,
            tell=lambda objects: charge(objects * BYTES_PER_OBJECT),
            flood_window=self.room.flood_window,
        )

    async def run_tiles(self, source: NormalisedPixels, run: Run, stitcher: Stitcher) -> None:
        """Send the tiles of the plan through the net, and stitch what is kept."""
        mean = MeanOfViews(self.plan.views, stitcher.write)
        input_yx, throughput = self.plan.tiles.input_yx, self.chosen.throughput
        tile_work = self.chosen.tile_work(input_yx)

        def read(part: TileView) -> NDArray[np.float32]:
            tile, view = part
            return view.of(read_tile(source[0], tile, source[1]))

        def write(part: TileView, output_cyx: NDArray[np.float32]) -> None:
            mean.write(part, output_cyx)
            self.ticket.done(tile_work)

        def repeat(done: TileView, part: TileView) -> bool:
            # of several views none is written before the last
            repeated = len(self.plan.views) == 1 and stitcher.repeat(done[0], part[0])
            if repeated:
                self.ticket.done(tile_work)
            return repeated

        await self.scheduler.run(
            Job(
                key=(run, input_yx),
                run=run,
                read=read,
                write=write,
                repeat=repeat,
                tiles=iter(self.plan),
                count=len(self.plan),
                tile_pixels=math.prod(input_yx),
                tile_work=tile_work,
                tile_seconds=lambda: tile_work / throughput.pixels_per_second,
                batch_pixels=most_batch_pixels(self.chosen.session.backend, self.chosen.planner.max_tile_pixels),
                progress=throughput.add,
                runs=self.ticket.runs,
                background=self.requests[0].background,
            )
        )
