"""The last stage: a result becomes an answer's body, in memory or in a file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import IO, Any

from service.engine.admission.wanted import WantedPixels
from service.engine.images.channels import channel_notes
from service.engine.images.plane import FinishedPlane, result_classes
from service.engine.images.spool import SpoolShare, spool_full
from service.engine.request import Body, SegmentRequest
from service.engine.stages.accepted import AcceptedRequest
from service.engine.stages.linking import link_notes, linked
from service.engine.stages.needs import encoder_memory
from service.engine.stages.notes import object_notes, request_notes
from service.engine.stages.receipt import build_receipt
from service.formats import ENCODERS, Encoder, SegmentationResult


async def encode(
    work: AcceptedRequest,
    request: SegmentRequest,
    planes: Sequence[FinishedPlane],
    about_scale: tuple[str, ...],
) -> tuple[Body, dict[str, Any]]:
    """Write the finished planes of one of the requests; gives its receipt, too, with notes on its scale."""
    header, spec, encoder = work.reader.header, work.chosen.package.spec, ENCODERS[request.format]
    of_planes = (note for plane in planes for note in plane.notes)
    objects = [plane.objects for plane in planes if plane.objects is not None]
    of_request = (
        *channel_notes(header, request.channel),
        *link_notes(header, request),
        *request_notes(header, spec, request),
    )
    of_objects = await work.in_worker(object_notes, objects, spec, request)
    notes = dict.fromkeys([*header.notes, *about_scale, *of_request, *of_planes, *of_objects])
    scores = tuple(of_plane.scores for of_plane in objects)
    links = await linked(work, request, objects)
    receipt = build_receipt(
        header,
        list(notes),
        work.chosen,
        work.plan,
        request,
        channel=work.channel,
        constants=[plane.normalization.constants() for plane in planes],
        objects=[len(score) for score in scores],
        linked=None if links is None else links.count,
    )
    result = SegmentationResult(
        kind=request.output,
        planes=tuple(WantedPixels(plane.values, work.ticket) for plane in planes),
        classes=result_classes(spec, request),
        stack_axes=header.stack_axes,
        stack_shape=header.stack_shape,
        pixel_size_um=request.pixel_size_um or header.pixel_size_um,
        spacing_um=header.spacing_um,
        interval_s=header.interval_s,
        scores=scores if request.output == "labels" else None,
        numbers=None if links is None else links.numbers,
        receipt=receipt,
        placement=request.placement,
        file_name=request.file_name,
    )
    with work.clock.stage("encode"):
        if more := await work.in_worker(encoder_memory, result, request.format):
            await work.grow(more)
        spool = work.spool if work.room.on_disk else None
        body = await work.in_worker(write_body, encoder, result, spool)
    return body, receipt


def write_body(encoder: Encoder, result: SegmentationResult, spool: SpoolShare | None) -> Body:
    """Encode a result into a file of ``spool``; where there is none, into memory.

    Raises
    ------
    SpoolFull
        Where the file cannot be written to its end.

    """
    if spool is None:
        return _written(encoder, result, io.BytesIO())
    try:
        return _written(encoder, result, spool.file())
    except OSError as error:
        raise spool_full("the answer is", error) from error


def _written(encoder: Encoder, result: SegmentationResult, file: IO[bytes]) -> Body:
    try:
        encoder.write(result, file)
        return Body(file)
    except BaseException:
        file.close()
        raise
