"""``GET /plan``: how long an image of some size will take."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from service.api.dependencies import EngineOf, SettingsOf
from service.api.invalid import refuse_repeated
from service.api.openapi import problem_responses
from service.api.parameters import PlanParameters, numbered, parse_size, seconds_allowed
from service.api.schemas import Plan
from service.engine.request import SegmentRequest
from service.engine.scaling import other_scale

router = APIRouter(tags=["segmentation"])


@router.get("/plan", summary="How long will it take?", responses=problem_responses(401, 404, 413, 422, 503))
async def plan(
    request: Request, query: Annotated[PlanParameters, Query()], engine: EngineOf, settings: SettingsOf
) -> Plan:
    """Say what an image of this size would take if it were sent now, and whether it would be accepted.

    Seconds count from its arrival; its upload, reading and writing it come on top. They are those of the replica that
    answers.
    """
    refuse_repeated(request.query_params.multi_items())
    wanted = SegmentRequest(
        model=query.model,
        output=query.output,
        format="tiff",
        mirror=query.mirror,
        channel=numbered(query.channel),
        scale=other_scale(query.scale),
        timeout_s=seconds_allowed(query.timeout, settings, background=query.respond_async),
        background=query.respond_async,
    )
    return Plan.of(engine, await engine.forecast(parse_size(query.size), query.planes, wanted))
