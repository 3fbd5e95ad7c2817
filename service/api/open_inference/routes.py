"""``/v2``: KServe's and Triton's clients ask here for what others ask of ``/segment``."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.access import ACCESS, Access
from service.api.dependencies import EngineOf, ReadinessOf, SettingsOf, UploadRoomOf
from service.api.open_inference.metadata import Health, ModelHealth, ModelMetadata, ServerMetadata
from service.api.open_inference.request import Inference, read_inference
from service.api.open_inference.response import InferenceContent, check_values, written
from service.api.openapi import INFERENCE_BODY, INFERENCE_RESPONSES, problem_responses
from service.api.parameters import seconds_allowed
from service.api.piecewise import PiecewiseResponse, unless_gone
from service.api.upload import received
from service.api.upload_room import UploadRoom
from service.engine.engine import Engine
from service.engine.errors import DeadlineExceeded, NotReady
from service.engine.packages.loading import LoadedModel
from service.request_errors import BrokenInference, InvalidParameter
from service.settings import Settings

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

_JSON_LENGTH = "Inference-Header-Content-Length"
_LEAST_S = 0.1
_MODEL, _VERSION = "/models/{name}", "/models/{name}/versions/{version}"
_UNREADY: dict[int | str, dict[str, Any]] = {503: {"model": Health, "description": "Not so; `error` says why."}}


@router.get("", summary="Describe the server", responses=problem_responses(401))
async def server_metadata() -> ServerMetadata:
    """Name, version, and extensions of the protocol that it knows."""
    return ServerMetadata()


@router.get("/health/live", summary="Is the process alive?", responses=_UNREADY)
async def live(engine: EngineOf, response: Response) -> Health:
    """Answer as `/livez` does."""
    lost = engine.lost
    response.status_code = 503 if lost else 200
    return Health(live=lost is None, ready=engine.readiness().ready, error=lost)


@router.get("/health/ready", summary="Should requests come here?", responses=_UNREADY)
async def ready(engine: EngineOf, readiness: ReadinessOf) -> Health:
    """Answer as `/readyz` does."""
    return Health(live=engine.lost is None, ready=readiness.ready, error="; ".join(readiness.reasons) or None)


@router.get(_MODEL, summary="Describe a model's tensors", responses=problem_responses(401, 404, 503))
async def model_metadata(name: str, engine: EngineOf) -> ModelMetadata:
    """Tensors of a package's highest version."""
    return ModelMetadata.of(engine, engine.model(name))


@router.get(_VERSION, summary="Describe a version's tensors", responses=problem_responses(401, 404, 503))
async def version_metadata(name: str, version: str, engine: EngineOf) -> ModelMetadata:
    """Tensors of one version of a package."""
    return ModelMetadata.of(engine, engine.model(f"{name}@{version}"))


@router.get(f"{_MODEL}/ready", summary="Is a model ready?", responses=problem_responses(401, 404, 503))
async def model_ready(name: str, engine: EngineOf) -> ModelHealth:
    """200 where the package is served and the service ready."""
    return _model_health(engine, name)


@router.get(f"{_VERSION}/ready", summary="Is a version ready?", responses=problem_responses(401, 404, 503))
async def version_ready(name: str, version: str, engine: EngineOf) -> ModelHealth:
    """200 where this version of the package is served and the service ready."""
    return _model_health(engine, f"{name}@{version}")


@router.post(
    f"{_MODEL}/infer",
    summary="Segment a tensor",
    response_class=Response,
    responses=INFERENCE_RESPONSES,
    openapi_extra={"requestBody": INFERENCE_BODY},
)
async def infer(name: str, request: Request, engine: EngineOf, settings: SettingsOf, room: UploadRoomOf) -> Response:
    """Send an image as tensor `image`; get `mask`, `labels` or `probabilities`, as `/segment` gives them.

    `parameters` of the request are those of `/segment`; they belong to all outputs, which one run of the net makes
    where there is room for all of them together.
    """
    return await _infer(name, request, engine, settings, room)


@router.post(
    f"{_VERSION}/infer",
    summary="Segment a tensor with a version",
    response_class=Response,
    responses=INFERENCE_RESPONSES,
    openapi_extra={"requestBody": INFERENCE_BODY},
)
async def infer_with_version(
    name: str, version: str, request: Request, *, engine: EngineOf, settings: SettingsOf, room: UploadRoomOf
) -> Response:
    """Do the same with one version of the package."""
    return await _infer(f"{name}@{version}", request, engine, settings, room)


def _model_health(engine: Engine, reference: str) -> ModelHealth:
    chosen = engine.model(reference)
    readiness = engine.readiness()
    if not readiness.ready:
        raise NotReady("; ".join(readiness.reasons))
    return ModelHealth(name=chosen.package.spec.name)


async def _infer(reference: str, request: Request, engine: Engine, settings: Settings, room: UploadRoom) -> Response:
    # checked before the body is read, as for /segment
    engine.model(reference)
    if request.query_params:
        raise InvalidParameter(
            f"the query has {len(request.query_params)} parameters, the limit is 0; put them into member 'parameters' "
            "of the request"
        )
    json_bytes = _json_bytes(request)
    with engine.arrival():
        async with received(request, settings, room, forms=False) as upload:
            # one for all outputs, though its package may be replaced meanwhile
            with engine.using(reference) as chosen:
                access: Access = request.scope[ACCESS]
                access.format = "oip"
                access.model = chosen.package.spec.reference
                turn = request.app.state.json_turn
                reading = read_inference(upload.image, json_bytes, reference, room, turn)
                work = _content(engine, chosen, reading, settings, user=access.party, room=room, turn=turn)
                content = await unless_gone(request, work)
    access.fill(content.receipt)
    headers = {_JSON_LENGTH: str(content.json_bytes)} if content.any_binary else {}
    media_type = "application/octet-stream" if content.any_binary else "application/json"
    return PiecewiseResponse(content, media_type, headers)


def _json_bytes(request: Request) -> int | None:
    given = request.headers.get(_JSON_LENGTH)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 16):
        raise BrokenInference(f"{_JSON_LENGTH} is {given[:40]!r}, it should be the number of bytes that are JSON")
    return int(given)


async def _content(
    engine: Engine,
    chosen: LoadedModel,
    reading: AbstractAsyncContextManager[Inference],
    settings: Settings,
    *,
    user: str | None,
    room: UploadRoom,
    turn: asyncio.Lock,
) -> InferenceContent:
    """Segment for all outputs, which together have the time of one request."""
    clock = asyncio.get_running_loop().time
    until = clock() + settings.deadline_s
    try:
        async with asyncio.timeout_at(until), reading as inference:
            allowed_s = seconds_allowed(inference.request.timeout_s, settings, background=False)
            left_s = min(allowed_s, max(_LEAST_S, round(until + allowed_s - settings.deadline_s - clock(), 1)))
            request = replace(inference.request, timeout_s=left_s, user=user)
            kinds = [output.kind for output in inference.outputs]
            if not all(output.binary for output in inference.outputs):
                header = await engine.header(inference.image, request.axes)
                check_values(inference.outputs, header, len(chosen.package.spec.classes))
            answers = await engine.segment_outputs(inference.image, request, kinds, chosen)
            return await written(inference, answers, room, turn)
    except TimeoutError:
        raise DeadlineExceeded(
            f"the answer was not ready in the {settings.deadline_s:g} s allowed; send values as binary data, or less"
        ) from None
