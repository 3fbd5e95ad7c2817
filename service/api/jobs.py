"""``/jobs``: what has become of requests that nobody waits for, and their answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field, PlainValidator
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from service.api.access import ACCESS, Access
from service.api.dependencies import JobsOf
from service.api.invalid import refuse_repeated
from service.api.middleware import HEAD
from service.api.openapi import PART_RESPONSE, SEGMENT_RESPONSES, problem_responses
from service.api.parameters import Parameters
from service.api.piecewise import Content, PiecewiseResponse, unless_gone
from service.api.problems import response_of
from service.api.ranges import Part, asked_range
from service.api.schemas import JobLinks, JobList, ListedJob
from service.engine.request import Body
from service.jobs.errors import JobsNotListed
from service.jobs.files import JOB_ID
from service.jobs.owner import Jobs
from service.jobs.record import JobReport, Place, Record, retry_after_s
from service.request_errors import RangeNotSatisfiable

router = APIRouter(prefix="/jobs", tags=["jobs"])

_CHOSEN = re.compile(
    r"(?:^|,)\s*(?i:respond-async)\s*;(?:[^,]*;)?\s*"
    rf"""(?i:id)\s*=\s*"?(?P<id>{JOB_ID.pattern})"?\s*(?:[;,]|$)"""
)
_MOST_WAIT_S = 50  # below the minute after which proxies hang up
_MOST_LISTED = 100


def _place(text: object) -> Place:
    submitted, _, job_id = str(text).partition(",")
    try:
        place = Place(datetime.fromisoformat(submitted), job_id)
    except ValueError:
        place = None
    if place is None or place.submitted.tzinfo is None or not JOB_ID.fullmatch(job_id):
        raise ValueError("should be as next of the answer before has it: a time with its zone, a comma and an id")
    return place


class JobParameters(Parameters):
    """What may be asked of a job."""

    wait: Annotated[float, Field(ge=0, le=_MOST_WAIT_S)] = Field(
        0, description="Most seconds to hold the answer back until the job is over."
    )


class ListParameters(Parameters):
    """Which jobs are listed."""

    limit: Annotated[int, Field(ge=1, le=_MOST_LISTED)] = Field(20, description="Most jobs of one answer.")
    before: Annotated[Place, PlainValidator(_place, json_schema_input_type=str)] | None = Field(
        None, description="All are older than this one, which `next` of the answer before names."
    )


@router.get("", summary="List your jobs", responses=problem_responses(401, 403, 422, 503))
async def list_jobs(request: Request, query: Annotated[ListParameters, Query()], jobs: JobsOf) -> JobList:
    """List the jobs that came with keys of the same name, the newest first, whichever replica works on them.

    Where the service asks for no keys nothing is listed (403): whoever knows the id of a job may fetch its result.
    """
    refuse_repeated(request.query_params.multi_items())
    access: Access = request.scope[ACCESS]
    if access.user is None:
        raise JobsNotListed
    reports, older = await unless_gone(request, jobs.listed(access.user, query.before, query.limit))
    root = f"{request.scope.get('root_path', '')}/jobs"
    listed = [
        ListedJob(
            **dict(report),
            links=JobLinks(
                job=f"{root}/{report.id}", result=f"{root}/{report.id}/result" if report.state == "done" else None
            ),
        )
        for report in reports
    ]
    if older is None:
        return JobList(jobs=listed, next=None)
    place = urlencode({"limit": query.limit, "before": f"{older.submitted.isoformat()},{older.job_id}"})
    return JobList(jobs=listed, next=f"{root}?{place}")


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
    responses={**SEGMENT_RESPONSES, 206: PART_RESPONSE, **problem_responses(409, 416)},
)
async def fetch_result(
    request: Request, job_id: str, query: Annotated[JobParameters, Query()], jobs: JobsOf
) -> Response:
    """Answer as `POST /segment` would have, as often as it is asked for while the job is kept.

    Where the job failed, that is its problem, with its status. Where it is not over it is 409, which no client takes
    for a mask. A download that broke off goes on with `Range: bytes=N-`, and `If-Range` with the `ETag` of its
    beginning.
    """
    access = _noted(request, job_id)
    record, body = await unless_gone(request, jobs.result(job_id, access.user, query.wait))
    access.model, access.format, access.pixels = record.report.model, record.report.format, record.report.pixels
    if body is None:
        document = record.report.problem or {}
        access.problem = document["type"].rpartition("/")[2]
        return response_of(request.scope, document)
    return _Result.asked(request, jobs, record, body)


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
    """A result, or a part of it; how much has been sent is noted."""

    def __init__(self, jobs: Jobs, record: Record, content: Content, size: int, first: int | None = None) -> None:
        headers = {**record.headers, "ETag": _etag(record), "Accept-Ranges": "bytes"}
        if first is not None:
            headers["Content-Range"] = f"bytes {first}-{first + content.size - 1}/{size}"
        super().__init__(content, record.media_type, headers, 200 if first is None else 206)
        self._jobs = jobs
        self._job_id = record.report.id
        self._size = size
        self._first = first or 0

    @classmethod
    def asked(cls, request: Request, jobs: Jobs, record: Record, body: Body) -> _Result:
        """Return the part that a request asks for, or all."""
        try:
            asked = None if HEAD in request.scope else asked_range(request, _etag(record), body.size)
        except RangeNotSatisfiable:
            body.close()
            raise
        if asked is None:
            return cls(jobs, record, body, body.size)
        return cls(jobs, record, Part(body, asked), body.size, asked.start)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await super().__call__(scope, receive, send)
        if self.sent and HEAD not in scope:
            await self._jobs.sent(self._job_id, range(self._first, self._first + self.sent), self._size)


def _etag(record: Record) -> str:
    """Tag of a result: a client may choose the id of a job that is deleted for another one."""
    return f'"{record.report.finished:%Y%m%dT%H%M%S.%f}"'


def _noted(request: Request, job_id: str) -> Access:
    refuse_repeated(request.query_params.multi_items())
    access: Access = request.scope[ACCESS]
    access.job = job_id[:40]
    return access


def _report_response(report: JobReport, status: int, headers: Mapping[str, str]) -> Response:
    again = {} if report.over else {"Retry-After": str(retry_after_s(report))}
    return JSONResponse(report.model_dump(mode="json"), status, {**headers, **again})
