"""``/jobs``: what has become of requests that nobody waits for, and their answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from service.api.access import ACCESS, Access
from service.api.dependencies import JobsOf
from service.api.invalid import refuse_repeated
from service.api.middleware import HEAD
from service.api.openapi import SEGMENT_RESPONSES, problem_responses
from service.api.parameters import Parameters
from service.api.piecewise import PiecewiseResponse, unless_gone
from service.api.problems import response_of
from service.engine.request import Body
from service.jobs.files import JOB_ID
from service.jobs.owner import Jobs
from service.jobs.record import JobReport, Record, retry_after_s

router = APIRouter(prefix="/jobs", tags=["jobs"])

_CHOSEN = re.compile(rf"(?:^|,)\s*(?i:respond-async)\s*;(?:[^,]*;)?\s*(?i:id)=(?P<id>{JOB_ID.pattern})\s*(?:[;,]|$)")
_MOST_WAIT_S = 50  # below the minute after which proxies hang up


class JobParameters(Parameters):
    """What may be asked of a job."""

    wait: Annotated[float, Field(ge=0, le=_MOST_WAIT_S)] = Field(
        0, description="Most seconds to hold the answer back until the job is over."
    )


@router.get(
    "/{job_id}", summary="How far is a job?", response_model=JobReport, responses=problem_responses(401, 404, 422, 503)
)
async def describe_job(
    request: Request, job_id: str, query: Annotated[JobParameters, Query()], jobs: JobsOf
) -> Response:
    """Say how far a job is; with `wait` once it is over, that many seconds later at the latest.

    `Retry-After` says when to ask again; there is none once it is over.
    """
    access = _noted(request, job_id)
    record = await unless_gone(request, jobs.look(job_id, access.user, query.wait))
    return _report_response(record.report, 200, {})


@router.get(
    "/{job_id}/result",
    summary="Fetch the result of a job",
    response_class=Response,
    responses={**SEGMENT_RESPONSES, **problem_responses(409)},
)
async def fetch_result(
    request: Request, job_id: str, query: Annotated[JobParameters, Query()], jobs: JobsOf
) -> Response:
    """Answer as `POST /segment` would have, as often as it is asked for while the job is kept.

    Where the job failed, that is its problem, with its status. Where it is not over it is 409, which no client takes
    for a mask.
    """
    access = _noted(request, job_id)
    record, body = await unless_gone(request, jobs.result(job_id, access.user, query.wait))
    access.model, access.format, access.pixels = record.report.model, record.report.format, record.report.pixels
    if body is None:
        document = record.report.problem or {}
        access.problem = document["type"].rpartition("/")[2]
        return response_of(request.scope, document)
    return _Result(jobs, record, body)


@router.delete("/{job_id}", summary="Delete a job", status_code=204, responses=problem_responses(401, 404, 503))
async def delete_job(request: Request, job_id: str, jobs: JobsOf) -> Response:
    """End its work, if it is not over, and free its result."""
    access = _noted(request, job_id)
    await jobs.delete(job_id, access.user)
    return Response(status_code=204)


def prefers_async(request: Request) -> bool:
    """Whether a client asks by header to be answered before the work is done (RFC 7240, section 4.1)."""
    listed = ",".join(request.headers.getlist("prefer")).lower()
    return any(preference.partition(";")[0].strip() == "respond-async" for preference in listed.split(","))


def chosen_id(request: Request) -> str | None:
    """Id that a client chooses for its job in that header, ``respond-async; id=``; None where it chooses none."""
    found = _CHOSEN.search(",".join(request.headers.getlist("prefer")))
    return found["id"] if found else None


def job_accepted(request: Request, report: JobReport) -> Response:
    """Answer a request that has become a job."""
    access: Access = request.scope[ACCESS]
    access.job, access.pixels = report.id, report.pixels
    location = f"{request.scope.get('root_path', '')}/jobs/{report.id}"
    return _report_response(report, 202, {"Location": location, "Preference-Applied": "respond-async"})


class _Result(PiecewiseResponse):
    """A result; that all of it has been sent is noted."""

    def __init__(self, jobs: Jobs, record: Record, body: Body) -> None:
        super().__init__(body, record.media_type, record.headers)
        self._jobs = jobs
        self._job_id = record.report.id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await super().__call__(scope, receive, send)
        if self.whole and HEAD not in scope:
            await self._jobs.fetched(self._job_id)


def _noted(request: Request, job_id: str) -> Access:
    refuse_repeated(request.query_params.multi_items())
    access: Access = request.scope[ACCESS]
    access.job = job_id[:40]
    return access


def _report_response(report: JobReport, status: int, headers: Mapping[str, str]) -> Response:
    again = {} if report.over else {"Retry-After": str(retry_after_s(report))}
    return JSONResponse(report.model_dump(mode="json"), status, {**headers, **again})
