"""Work on the jobs of this process: signs of life, results and last records."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack, closing
from typing import Any

from service.engine.errors import Draining
from service.engine.request import Answer, SegmentRequest
from service.jobs.errors import JobError, UnknownJob
from service.jobs.folder import JobsFolder
from service.jobs.running import Running
from service.jobs.threads import Threads, call_in
from service.settings import Settings
from service.telemetry import Metrics, fields

_LOG = logging.getLogger("unet.jobs")
_BEAT_S = 1.0
_LAST_S = 5.0  # at the end, for each step that may hang with a disk


class Work:
    """Lives on one loop.

    Parameters
    ----------
    folder
        The folder of jobs.
    threads
        Those that wait for its disk.
    settings
        The service's settings.
    metrics
        Where counts go.
    headers_of
        Headers of the answer that a request would have got.
    problem_of
        The document that it would have got in place of it.

    """

    def __init__(
        self,
        folder: JobsFolder,
        threads: Threads,
        settings: Settings,
        metrics: Metrics,
        *,
        headers_of: Callable[[Answer, SegmentRequest], Mapping[str, str]],
        problem_of: Callable[[Exception], dict[str, Any]],
    ) -> None:
        self._folder = folder
        self._threads = threads
        self._settings = settings
        self._metrics = metrics
        self._headers_of = headers_of
        self._problem_of = problem_of
        self._beating: asyncio.Task[None] | None = None
        self.running: dict[str, Running] = {}
        """Jobs whose last record is not written, by id."""
        self.tasks: set[asyncio.Task[Any]] = set()
        """One for each job in work."""

    def start(self) -> None:
        """Begin to give signs of life, on the running loop."""
        self._beating = asyncio.create_task(self._beat(), name="unet-jobs")

    async def stop(self) -> None:
        """End what is still in work, and say so to whoever asks another replica; a disk that hangs is left alone."""
        for task in self.tasks:
            if not task.cancelling():
                task.cancel()
        await _wait_briefly(self.tasks)
        # cancelled while their last records were written
        await _wait_briefly([asyncio.create_task(self._save(running)) for running in self.running.values()])
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)

    def begin(self, running: Running, work: asyncio.Task[Answer], wanted: SegmentRequest, held: AsyncExitStack) -> None:
        """Carry a job to its end; ``held`` is held until then."""
        self.running[running.record.report.id] = running
        running.task = asyncio.create_task(self._carry(running, work, wanted, held))
        self.tasks.add(running.task)
        running.task.add_done_callback(self.tasks.discard)

    def drop(self, job_id: str, *, deleted: bool = True) -> None:
        """End the work on a job that has gone; signs of life of others do not wait until it has ended."""
        running = self.running.pop(job_id, None)
        if running is None or running.task is None:
            return
        self._folder.forget(job_id)
        running.ended.set()
        _LOG.info("job dropped", extra=fields(job=job_id))
        if deleted and not running.task.done():
            gone = UnknownJob(job_id, self._settings.job_keep_s)
            self._metrics.job_ended("deleted", self._problem_of(gone)["status"])
        if running.task is not asyncio.current_task():
            running.task.cancel()

    async def _carry(
        self, running: Running, work: asyncio.Task[Answer], wanted: SegmentRequest, held: AsyncExitStack
    ) -> None:
        job_id = running.record.report.id
        try:
            async with held:
                answer = await work
                with closing(answer.body) as body:
                    await call_in(self._threads.results, self._folder.keep_result, job_id, body.size, body.read)
            running.last = running.done(answer, self._headers_of(answer, wanted))
        except UnknownJob:
            await self._lose(job_id)
            return
        except asyncio.CancelledError:
            if job_id not in self.running:
                raise  # deleted
            grace_s = self._settings.shutdown_grace_s
            error = Draining(
                f"the service stops, and this job was not finished in the {grace_s} s that it had left for that; send "
                "it again, or raise UNET_SHUTDOWN_GRACE_S"
            )
            running.last = running.to_write().failed(self._problem_of(error))
        except Exception as error:
            running.last = running.to_write().failed(self._problem_of(error))
        await self._save(running)
        report = running.record.report
        if not report.over:
            return  # it has gone
        shown = fields(job=job_id, problem=(report.problem or {}).get("type"), bytes=report.bytes)
        _LOG.info("job %s", report.state, extra=shown)
        self._metrics.job_ended(report.state, (report.problem or {}).get("status", 200))
        running.ended.set()

    async def _save(self, running: Running) -> None:
        """Write a job's record; one that is over is no longer ours, and where that fails the next beat tries again."""
        record = running.last or running.to_write()
        job_id = record.report.id
        try:
            await call_in(self._threads.beats, self._folder.write, record)
        except UnknownJob:
            await self._lose(job_id)
            return
        except OSError as error:
            _LOG.warning("the state of job %s cannot be written: %s", job_id, error)
        else:
            if record.report.over:
                self.running.pop(job_id, None)
        if record.report.over:
            running.record = record  # where the disk refuses it nobody else tells

    async def _lose(self, job_id: str) -> None:
        """Drop a job whose files are gone or somebody else's."""
        self.drop(job_id, deleted=not await self._is_kept(job_id))

    async def _is_kept(self, job_id: str) -> bool:
        """Whether there is a record: that of a replica which took the job for lost, and has counted it."""
        try:
            await call_in(self._threads.beats, self._folder.read, job_id)
        except JobError:
            return False
        return True

    async def _beat(self) -> None:
        while True:
            for running in list(self.running.values()):
                try:
                    await self._save(running)
                except Exception:
                    _LOG.exception("job %s has given no sign of life", running.record.report.id)
            await asyncio.sleep(_BEAT_S)


async def _wait_briefly(tasks: Collection[asyncio.Task[Any]]) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=_LAST_S)
