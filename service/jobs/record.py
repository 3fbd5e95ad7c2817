"""What is known of a job: what everybody is told, and what its replicas keep beside that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from service.formats import OutputKind

JobState = Literal["queued", "running", "done", "failed"]
_HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z-]*\z")]
_HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\t\x20-\x7e]*\z")]


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """Of a job among all: by when it was sent, then by its id."""

    submitted: datetime
    job_id: str


class JobReport(BaseModel):
    """How far a job is."""

    model_config = ConfigDict(frozen=True)

    id: str
    state: JobState
    model: str = Field(description="`name@version` of what runs.")
    output: OutputKind
    format: str
    pixels: int = Field(description="Of the image, all planes together.")
    pixels_done: int = Field(description="Of these, how many are through the net.")
    seconds_left: float | None = Field(
        allow_inf_nan=False,
        description="Until the result is there, by measured speeds, beside whatever else is in work. Null where it is "
        "not known: while the scale is looked for, where what comes after the net takes longer than it did lately, and "
        "in the queue of another replica than the one that answers.",
    )
    jobs_before: int | None = Field(
        default=None,
        description="While it is queued: how many others get their turn before it if no more come. Null once it has "
        "its turn, and where another replica than the one that answers is going to work on it.",
    )
    file_name: str | None = Field(default=None, description="Of the image, without folders, where the upload had one.")
    submitted: AwareDatetime
    started: AwareDatetime | None
    finished: AwareDatetime | None
    bytes: int | None = Field(description="Size of the result, once it is done.")
    problem: dict[str, Any] | None = Field(description="What the answer would have been, where it failed.")

    @model_validator(mode="after")
    def _tells_its_end(self) -> Self:
        problem = self.problem or {}
        status = problem.get("status")
        told = isinstance(problem.get("type"), str) and isinstance(status, int) and 400 <= status < 600
        if self.state == "failed" and not told:
            raise ValueError("a job that failed has a problem, with its type and status")
        if self.state == "done" and (self.finished is None or self.bytes is None):
            raise ValueError("a job that is done says when, and how large its result is")
        return self

    @property
    def over(self) -> bool:
        """Whether nothing more will become of it."""
        return self.state in {"done", "failed"}


class Record(BaseModel):
    """A job as its file holds it."""

    model_config = ConfigDict(frozen=True)

    report: JobReport
    user: str | None
    """To whom the key belongs that it came with."""
    request_id: str | None
    """Of the request that brought it."""
    media_type: _HeaderValue = ""
    headers: dict[_HeaderName, _HeaderValue] = {}
    """Of the answer, once it is done."""

    def with_report(self, **changes: Any) -> Record:  # noqa: ANN401 - fields of the report
        """Return the record with other values in its report."""
        return self.model_copy(update={"report": self.report.model_copy(update=changes)})

    def failed(self, problem: Mapping[str, Any]) -> Record:
        """Return the record of the job where it ends with a problem."""
        return self.with_report(
            state="failed",
            finished=datetime.now(UTC),
            seconds_left=None,
            problem={**problem, "request_id": self.request_id},
        )


def retry_after_s(report: JobReport) -> int:
    """Seconds after which to ask again for a job that is not over."""
    return min(30, max(1, round((report.seconds_left or 4) / 2)))
