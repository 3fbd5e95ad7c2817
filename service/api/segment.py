"""``POST /segment``: an image in, its segmentation out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.access import ACCESS, Access
from service.api.dependencies import EngineOf, SettingsOf, UploadRoomOf
from service.api.invalid import refuse_repeated
from service.api.openapi import SEGMENT_BODY, SEGMENT_RESPONSES
from service.api.parameters import SegmentParameters, check_timeout, combined
from service.api.piecewise import PiecewiseResponse, unless_gone
from service.api.upload import received
from service.engine.request import Answer, SegmentRequest
from service.formats import negotiate
from service.formats.json_text import dump
from service.settings import Settings

router = APIRouter(tags=["segmentation"])

_MOST_RECEIPT_BYTES = 6000  # proxies refuse header blocks above 8 KiB
_IN_FULL_ONLY = ("normalization", "stages_ms")
_LONG_OF_INPUT = ("channel_names", "notes")


@router.post(
    "/segment",
    summary="Segment an image",
    response_class=Response,
    responses=SEGMENT_RESPONSES,
    openapi_extra={"requestBody": SEGMENT_BODY},
)
async def segment(
    request: Request,
    query: Annotated[SegmentParameters, Query()],
    engine: EngineOf,
    settings: SettingsOf,
    room: UploadRoomOf,
) -> Response:
    """Send an image as the body, or as field `image` of a multipart form; get its segmentation.

    The format of the image is recognised by its first bytes, never by a name or a content type. The answer has the
    height and width of the image, and as many planes. Header `X-UNet-Receipt` says in JSON what was decoded, how it was
    normalised and tiled, and which package ran where.
    """
    # checked before the body is read, so that a typo costs no upload
    refuse_repeated(request.query_params.multi_items())
    engine.model(query.model)
    accept = ", ".join(request.headers.getlist("accept")) or None  # lines of one list (RFC 9110, section 5.3)
    negotiate(accept, query.format)
    if query.format is not None:
        query.placement(query.format)
    with engine.arrival():
        async with received(request, settings, room) as upload:
            refuse_repeated(upload.fields)
            parameters = combined(query, dict(upload.fields))
            wanted = _wanted(parameters, accept, settings)
            access: Access = request.scope[ACCESS]
            access.format = wanted.format
            access.model = engine.model(wanted.model).package.spec.reference
            answer = await unless_gone(request, engine.segment(upload.image, wanted))
    access.fill(answer.receipt)
    return _response(answer, wanted)


def _wanted(parameters: SegmentParameters, accept: str | None, settings: Settings) -> SegmentRequest:
    check_timeout(parameters.timeout, settings)
    return parameters.request(negotiate(accept, parameters.format))


def _response(answer: Answer, wanted: SegmentRequest) -> Response:
    name = answer.model.partition("@")[0]
    stages = ", ".join(f"{stage};dur={milliseconds:.1f}" for stage, milliseconds in answer.stages_ms.items())
    headers = {
        "X-UNet-Receipt": receipt_header(answer),
        "Server-Timing": stages,
        "Vary": "Accept",
        "Content-Disposition": f'inline; filename="{name}-{wanted.output}{answer.extension}"',
    }
    return PiecewiseResponse(answer.body, media_type=answer.media_type, headers=headers)


def receipt_header(answer: Answer) -> str:
    """Return the receipt as one line of ASCII, without its longest members where it would not fit into a header."""
    full = {**answer.receipt, "stages_ms": dict(answer.stages_ms)}
    text = dump(full).decode("ascii")
    if len(text) <= _MOST_RECEIPT_BYTES:
        return text
    short = {name: value for name, value in full.items() if name not in _IN_FULL_ONLY}
    short["input"] = {name: value for name, value in full["input"].items() if name not in _LONG_OF_INPUT}
    return dump({**short, "shortened": True}).decode("ascii")
