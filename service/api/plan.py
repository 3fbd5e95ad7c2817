"""``GET /plan``: how long an image of some size will take."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request

from service.api.access import ACCESS, Access
from service.api.dependencies import EngineOf, JobsOf, SettingsOf
from service.api.invalid import refuse_repeated
from service.api.openapi import problem_responses
from service.api.pairs import parse_size
from service.api.parameters import PlanParameters, seconds_allowed
from service.api.schemas import Plan
from service.formats import negotiate
from service.jobs.errors import JobsOff, ResultTooLarge

router = APIRouter(tags=["segmentation"])


@router.get("/plan", summary="How long will it take?", responses=problem_responses(401, 404, 406, 413, 422, 503))
async def plan(
    request: Request, query: Annotated[PlanParameters, Query()], engine: EngineOf, settings: SettingsOf, jobs: JobsOf
) -> Plan:
    """Say what an image of this size would take if it were sent now, and whether it would be accepted.

    Seconds count from its arrival; its upload comes on top. They are those of the replica that answers. Memory is that
    of a TIFF in tiles or strips of 512 rows at most: a file that can only be decoded whole takes more, and may be
    refused (413) where the plan is not.
    """
    refuse_repeated(request.query_params.multi_items())
    access: Access = request.scope[ACCESS]
    wanted = replace(
        query.request(negotiate(None, query.format or "tiff")),
        timeout_s=seconds_allowed(query.timeout, settings, background=query.respond_async),
        background=query.respond_async,
        user=access.party,
    )
    size_yx = parse_size(query.size)
    forecast = await engine.forecast(size_yx, query.planes, wanted)
    if wanted.background and not settings.jobs_mb:
        forecast = replace(forecast, refusal=JobsOff())
    elif wanted.background:
        try:
            jobs.check_size(wanted, query.planes * math.prod(size_yx))
        except ResultTooLarge as error:
            forecast = replace(forecast, refusal=error)
    return Plan.of(engine, forecast)
