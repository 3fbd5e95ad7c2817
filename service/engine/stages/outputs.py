"""Several outputs of one image: by one run of the net where there is room for all of them, else one after the other."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import permutations
from typing import BinaryIO

from model.images import ImageReader
from service.engine.admission.admission import Admission
from service.engine.admission.series import Series
from service.engine.errors import Overloaded, SpoolFull, TooLargeForMemory
from service.engine.packages.loading import LoadedModel
from service.engine.request import Answer, SegmentRequest
from service.engine.stages.auto_scale import ScaledRequest, all_at_scale, by_pixel_size
from service.engine.stages.demand import Demand
from service.engine.stages.pipeline import Pipeline
from service.engine.stages.progress import Progress
from service.formats import ENCODERS, OutputKind

# what takes most beside its own answer, of a single plane, first: answers stay until all are there
_IN_TURN: tuple[OutputKind, ...] = ("labels", "probabilities", "mask")


async def segment_outputs(
    pipeline: Pipeline,
    source: BinaryIO,
    requests: Sequence[SegmentRequest],
    chosen: LoadedModel,
    timeout_s: float,
    *,
    progress: Progress,
) -> list[Answer]:
    """Answer requests for one image, equal but for their outputs.

    What does not fit together is made in turn, and so is what has no room together now, also where the objects found
    show it. The answers are the same. ``progress`` is told their scale.

    Raises
    ------
    TooLargeForMemory
        Where one of them could never fit beside those before it, or alone.
    Overloaded
        Where one of them has no room now beside those before it.
    DeadlineExceeded
        Where there is no time for all in turn.

    """
    began = asyncio.get_running_loop().time()
    try:
        return await pipeline.segment(source, requests, chosen, timeout_s, progress)
    except (TooLargeForMemory, SpoolFull):  # alone each may fit, or do without files
        if len(requests) == 1:
            raise
    except Overloaded as error:
        if len(requests) == 1 or error.reason == "backlog":
            raise
    return await _in_turn(pipeline, source, requests, chosen, timeout_s, first=progress, began=began)


async def _in_turn(
    pipeline: Pipeline,
    source: BinaryIO,
    requests: Sequence[SegmentRequest],
    chosen: LoadedModel,
    timeout_s: float,
    *,
    first: Progress,
    began: float,
) -> list[Answer]:
    series = Series(runs=len(requests), owner=object())
    with await pipeline.opened(source, requests[0].axes) as reader:
        so_far = replace(series, seconds=asyncio.get_running_loop().time() - began)
        demands = partial(_demands, pipeline, reader, chosen, timeout_s=timeout_s, series=so_far, scaled=first.scaled)
        try:
            in_turn = _order(requests, demands, pipeline.admission)
        except Overloaded:
            largest = max(demands(requests), key=lambda asked: asked.room.memory_bytes + asked.series.memory_bytes)
            if not largest.waits(pipeline.admission, chosen.throughput):
                raise
            await largest.wait_for_room(pipeline.admission, chosen.throughput)
            in_turn = _order(requests, demands, pipeline.admission)
    answers: dict[OutputKind, Answer] = {}
    with ExitStack() as bodies:
        for request in in_turn:
            series = replace(series, seconds=asyncio.get_running_loop().time() - began)
            progress = Progress(first.scaled)
            (answer,) = await pipeline.segment(source, [request], chosen, timeout_s, progress, series=series)
            first.scaled = progress.scaled
            bodies.callback(answer.body.close)
            series = replace(series.plus(answer.body.size, in_memory=answer.body.in_memory), runs=1)
            answers[request.output] = answer
        bodies.pop_all()
    return [answers[request.output] for request in requests]


def _order(
    requests: Sequence[SegmentRequest],
    demands: Callable[[Sequence[SegmentRequest]], Sequence[Demand]],
    admission: Admission,
) -> Sequence[SegmentRequest]:
    """Return an order in which each has room now beside the answers before it; what has none in any is refused.

    Answers are taken to be as small as they can be, and the scale to be 1 where it is not known: others take more.

    Raises
    ------
    TooLargeForMemory
        Where no order has room though nobody else were there.
    Overloaded
        Where one has.

    """
    refusals: list[TooLargeForMemory | Overloaded] = []
    for order in permutations(sorted(requests, key=lambda request: _IN_TURN.index(request.output))):
        try:
            asked_for = demands(order)
            for asked in asked_for:
                asked.check_alone(admission)
            for asked in asked_for:
                asked.check_room(admission)
        except (TooLargeForMemory, Overloaded) as error:
            refusals.append(error)
        else:
            return order
    raise next((error for error in refusals if isinstance(error, Overloaded)), refusals[0])


def _demands(
    pipeline: Pipeline,
    reader: ImageReader,
    chosen: LoadedModel,
    order: Sequence[SegmentRequest],
    *,
    timeout_s: float,
    series: Series,
    scaled: ScaledRequest | None,
) -> list[Demand]:
    """Say what each asks for with the answers before it ready."""
    header, spec = reader.header, chosen.package.spec
    pixels = header.planes * math.prod(header.size_yx)
    scaled = scaled or by_pixel_size(order[0], header, spec) or (order[0], ())
    demands: list[Demand] = []
    for request in all_at_scale(order, scaled):
        asked = pipeline.demand(header, [request], chosen, reader.part_bytes, timeout_s, series=series)
        least = ENCODERS[request.format].least_bytes(request.output, pixels, len(spec.classes))
        series = series.plus(least, in_memory=not asked.room.on_disk)
        demands.append(asked)
    return demands
