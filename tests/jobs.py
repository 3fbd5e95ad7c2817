"""Records of jobs as the service writes them."""

from __future__ import annotations

from datetime import UTC, datetime

from service.jobs.record import JobReport, JobState, Record


def job_record(job_id: str, state: JobState = "running", user: str | None = "alice") -> Record:
    """Return the record of a job of which nothing is done."""
    report = JobReport(
        id=job_id,
        state=state,
        model="tiny@1.0.0",
        output="mask",
        format="png",
        pixels=10,
        pixels_done=0,
        seconds_left=None,
        submitted=datetime.now(UTC),
        started=None,
        finished=datetime.now(UTC) if state == "done" else None,
        bytes=3 if state == "done" else None,
        problem=None,
    )
    return Record(report=report, user=user, request_id="r")
