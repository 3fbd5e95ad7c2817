"""Several outputs of one image: by one run of the net where there is room for all of them, else one after the other."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import BinaryIO

from service.engine.auto_scale import ScaledRequest, all_at_scale, by_pixel_size
from service.engine.clock import seconds_until
from service.engine.errors import Overloaded, SpoolFull, TooLargeForMemory
from service.engine.loading import LoadedModel
from service.engine.needs import NOTHING
from service.engine.pipeline import Pipeline
from service.engine.progress import Progress
from service.engine.request import Answer, SegmentRequest
from service.formats import OutputKind
from service.formats.npy import NpyEncoder

# what takes most beside its own answer, of a single plane, first: answers stay until all are there
_IN_TURN: tuple[OutputKind, ...] = ("labels", "probabilities", "mask")


async def segment_outputs(
    pipeline: Pipeline, source: BinaryIO, requests: Sequence[SegmentRequest], chosen: LoadedModel, timeout_s: float
) -> list[Answer]:
    """Answer requests for one image, equal but for their outputs.

    What does not fit together is made in turn, and so is what has no room together now, also where the objects found
    show it. The answers are the same.

    Raises
    ------
    TooLargeForMemory
        Where one of them could never fit beside those before it, or alone.

    """
    until = asyncio.get_running_loop().time() + timeout_s
    progress = Progress()
    try:
        return await pipeline.segment(source, requests, chosen, timeout_s, progress)
    except (TooLargeForMemory, SpoolFull):  # alone each may fit, or do without files
        if len(requests) == 1:
            raise
    except Overloaded as error:
        if len(requests) == 1 or error.reason == "backlog":
            raise
    return await _in_turn(pipeline, source, requests, chosen, until=until, scaled=progress.scaled)


async def _in_turn(
    pipeline: Pipeline,
    source: BinaryIO,
    requests: Sequence[SegmentRequest],
    chosen: LoadedModel,
    *,
    until: float,
    scaled: ScaledRequest | None,
) -> list[Answer]:
    in_turn = sorted(requests, key=lambda request: _IN_TURN.index(request.output))
    await _check_in_turn(pipeline, source, in_turn, chosen, scaled)
    ready = NOTHING
    answers: dict[OutputKind, Answer] = {}
    with ExitStack() as bodies:
        for request in in_turn:
            left_s, progress = seconds_until(until), Progress(scaled)
            (answer,) = await pipeline.segment(source, [request], chosen, left_s, progress, ready=ready)
            scaled = progress.scaled
            bodies.callback(answer.body.close)
            ready = ready.plus(answer.body.size, in_memory=answer.body.in_memory)
            answers[request.output] = answer
        bodies.pop_all()
    return [answers[request.output] for request in requests]


async def _check_in_turn(
    pipeline: Pipeline,
    source: BinaryIO,
    in_turn: Sequence[SegmentRequest],
    chosen: LoadedModel,
    scaled: ScaledRequest | None,
) -> None:
    """Refuse what could never be made in turn before the net runs for the first.

    Answers are taken to be as small as they can be, and the scale to be 1 where it is not known: others take more.

    Raises
    ------
    TooLargeForMemory

    """
    ready, classes = NOTHING, len(chosen.package.spec.classes)
    with await pipeline.opened(source, in_turn[0].axes) as reader:
        header = reader.header
        pixels = header.planes * math.prod(header.size_yx)
        scaled = scaled or by_pixel_size(in_turn[0], header, chosen.package.spec) or (in_turn[0], ())
        for request in all_at_scale(in_turn, scaled):
            asked = pipeline.demand(header, [request], chosen, reader.part_bytes, math.inf, ready=ready)
            asked.check_alone(pipeline.admission)
            least = NpyEncoder.least_bytes(request.output, pixels, classes) if request.format == "npy" else 0
            ready = ready.plus(least, in_memory=not asked.room.on_disk)
