"""``POST /segment``: an image in, its segmentation out."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.access import ACCESS, Access
from service.api.dependencies import EngineOf, JobsOf, SettingsOf, UploadRoomOf
from service.api.invalid import refuse_repeated
from service.api.jobs import chosen_id, job_accepted, prefers_async
from service.api.openapi import JOB_RESPONSE, SEGMENT_BODY, SEGMENT_RESPONSES, problem_responses
from service.api.parameters import SegmentParameters, combined, seconds_allowed
from service.api.piecewise import PiecewiseResponse, unless_gone
from service.api.upload import received
from service.engine.request import Answer, SegmentRequest
from service.formats import negotiate
from service.formats.json_text import dump
from service.jobs.errors import JobsOff

router = APIRouter(tags=["segmentation"])

_MOST_RECEIPT_BYTES = 6000  # proxies refuse header blocks above 8 KiB
_PLANES_OF_HEADER = 4  # normalisation of the first ones, where that of all does not fit
_IN_FULL_ONLY = ("normalization", "stages_ms")
_LONG_OF_INPUT = ("channel_names", "notes")


@router.post(
    "/segment",
    summary="Segment an image",
    response_class=Response,
    responses={**SEGMENT_RESPONSES, 202: JOB_RESPONSE, **problem_responses(409, 501)},
    openapi_extra={"requestBody": SEGMENT_BODY},
)
async def segment(
    request: Request,
    *,
    query: Annotated[SegmentParameters, Query()],
    engine: EngineOf,
    settings: SettingsOf,
    room: UploadRoomOf,
    jobs: JobsOf,
) -> Response:
    """Send an image as the body, or as field `image` of a multipart form; get its segmentation.

    The format of the image is recognised by its first bytes, never by a name or a content type. The answer has the
    height and width of the image, and as many planes. Header `X-UNet-Receipt` says in JSON what was decoded, how it was
    normalised and tiled, and which package ran where.

    With `Prefer: respond-async` (RFC 7240) it becomes a job once it is accepted: 202, and where to ask for the result.
    """
    # checked before the body is read, so that a typo costs no upload
    refuse_repeated(request.query_params.multi_items())
    engine.model(query.model)
    accept = ", ".join(request.headers.getlist("accept")) or None  # lines of one list (RFC 9110, section 5.3)
    negotiate(accept, query.format)
    if query.format is not None:
        query.placement(query.format)
    if (query.respond_async or prefers_async(request)) and not settings.jobs_mb:
        raise JobsOff
    async with AsyncExitStack() as held:
        held.enter_context(engine.arrival())
        upload = await held.enter_async_context(received(request, settings, room))
        refuse_repeated(upload.fields)
        parameters = combined(query, dict(upload.fields))
        background = parameters.respond_async or prefers_async(request)
        if background and not settings.jobs_mb:
            raise JobsOff
        access: Access = request.scope[ACCESS]
        wanted = replace(
            parameters.request(negotiate(accept, parameters.format)),
            timeout_s=seconds_allowed(parameters.timeout, settings, background=background),
            background=background,
            user=access.party,
            file_name=upload.file_name,
        )
        access.format = wanted.format
        access.model = engine.model(wanted.model).package.spec.reference
        if background:
            await upload.give_to_job()
            submitted = jobs.submit(upload.image, wanted, access.model, access.user, held, job_id=chosen_id(request))
            return job_accepted(request, await unless_gone(request, submitted))
        answer = await unless_gone(request, engine.segment(upload.image, wanted))
    access.fill(answer.receipt)
    return PiecewiseResponse(answer.body, media_type=answer.media_type, headers=answer_headers(answer, wanted))


def answer_headers(answer: Answer, wanted: SegmentRequest) -> dict[str, str]:
    """Headers of an answer beside its type and length."""
    name = answer.model.partition("@")[0]
    kind = f".{wanted.format}" if answer.extension == ".json" else ""  # which several formats share
    stages = ", ".join(f"{stage};dur={milliseconds:.1f}" for stage, milliseconds in answer.stages_ms.items())
    return {
        "X-UNet-Receipt": receipt_header(answer),
        "Server-Timing": stages,
        "Vary": "Accept",
        "Content-Disposition": f'inline; filename="{name}-{wanted.output}{kind}{answer.extension}"',
    }


def receipt_header(answer: Answer) -> str:
    """Return the receipt as a line of ASCII, with less of its longest members where it would not fit into a header."""
    full = {**answer.receipt, "stages_ms": dict(answer.stages_ms)}
    first = {**full, "normalization": full["normalization"][:_PLANES_OF_HEADER]}
    short = {name: value for name, value in full.items() if name not in _IN_FULL_ONLY}
    least = {**short, "input": {name: value for name, value in full["input"].items() if name not in _LONG_OF_INPUT}}
    text = dump(full)
    for shorter in (first, short, least):
        if len(text) <= _MOST_RECEIPT_BYTES:
            break
        text = dump({**shorter, "shortened": True})
    return text.decode("ascii")
