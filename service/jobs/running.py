"""A job of this process, as long as its last record is not written."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.engine.request import Answer, SegmentRequest
from service.engine.stages.progress import Progress
from service.jobs.record import JobReport, Record
from service.telemetry import REQUEST_ID


@dataclass(eq=False, slots=True)
class Running:
    """Its record, what the engine tells of it, and the task that works on it."""

    record: Record
    progress: Progress
    last: Record | None = None
    """What becomes of it; shown as :attr:`record` once it is written: another replica shall say the same."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @classmethod
    def begun(
        cls, job_id: str | None, wanted: SegmentRequest, model: str, user: str | None, progress: Progress
    ) -> Running:
        """Make a job of an accepted request, of a new id where it has none yet."""
        report = JobReport(
            id=job_id or secrets.token_hex(16),
            state="queued",
            model=model,
            output=wanted.output,
            format=wanted.format,
            pixels=progress.pixels,
            pixels_done=0,
            file_name=wanted.file_name,
            seconds_left=None,
            submitted=progress.made_at,
            started=None,
            finished=None,
            bytes=None,
            problem=None,
        )
        return cls(Record(report=report, user=user, request_id=REQUEST_ID.get()), progress)

    def current(self) -> Record:
        """Return the record with what the engine tells now."""
        if self.record.report.over or self.progress.began_at is not None:
            return self.to_write()
        before, left_s = self.progress.jobs_before, self.progress.seconds_left
        return self.record.with_report(jobs_before=before, seconds_left=left_s)

    def to_write(self) -> Record:
        """Return the same for its file: its place in the queue changes too often for that."""
        began = self.progress.began_at
        if self.record.report.over or began is None:
            return self.record
        return self.record.with_report(
            state="running",
            started=began,
            pixels_done=self.progress.pixels_done,
            seconds_left=self.progress.seconds_left,
        )

    def done(self, answer: Answer, headers: Mapping[str, str]) -> Record:
        """Return the record of the job once its result is kept."""
        report = {"state": "done", "bytes": answer.body.size, "finished": datetime.now(UTC), "seconds_left": None}
        report["pixels_done"] = self.progress.pixels
        sent = {"media_type": answer.media_type, "headers": dict(headers)}
        return self.current().with_report(**report).model_copy(update=sent)
