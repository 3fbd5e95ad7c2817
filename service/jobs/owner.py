"""Jobs of this process, and the way to those of others in the same folder."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from typing import Any, BinaryIO

from service.engine.engine import Engine
from service.engine.errors import Draining
from service.engine.progress import Progress
from service.engine.request import Answer, Body, SegmentRequest
from service.jobs.errors import JobError, JobNotDone, UnknownJob
from service.jobs.folder import JobsFolder
from service.jobs.keeper import Keeper
from service.jobs.record import JobReport, Record, retry_after_s
from service.jobs.running import Running
from service.jobs.temporary import TemporaryFolder, remove_abandoned, share_of_disk, temporary_path
from service.jobs.threads import call_in
from service.settings import Settings
from service.telemetry import Metrics, fields

_LOG = logging.getLogger("unet.jobs")
_BEAT_S = 1.0
_LOOK_S = 0.5  # between looks at a job of another replica that somebody waits for


class Jobs:
    """Lives on the engine's loop: :meth:`start` it there, and :meth:`stop` it before the engine.

    Parameters
    ----------
    engine
        What does the work.
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
        engine: Engine,
        settings: Settings,
        metrics: Metrics,
        headers_of: Callable[[Answer, SegmentRequest], Mapping[str, str]],
        problem_of: Callable[[Exception], dict[str, Any]],
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._metrics = metrics
        self._headers_of = headers_of
        self._problem_of = problem_of
        self._running: dict[str, Running] = {}
        # not the threads of others: a network's file system may make these wait for long
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="unet-jobs")
        self._writers = ThreadPoolExecutor(2, thread_name_prefix="unet-jobs-results")
        self._makers = ThreadPoolExecutor(1, thread_name_prefix="unet-jobs-maker")
        self._beats = ThreadPoolExecutor(1, thread_name_prefix="unet-jobs-beats")  # behind nothing that may take long
        self.path = settings.jobs_dir or temporary_path()
        room_bytes = settings.jobs_mb << 20
        self._temporary = None
        if settings.jobs_dir is None:
            self._temporary = TemporaryFolder(self.path)
            room_bytes = min(room_bytes, share_of_disk(self.path))
        self._folder = JobsFolder(self.path, room_bytes, settings.job_keep_s)
        self._keeper = Keeper(self._folder, metrics, problem_of)
        self._beating: asyncio.Task[None] | None = None
        self._work: set[asyncio.Task[Any]] = set()
        # without a folder nobody could fetch what is done once the service accepts no more requests
        self.tasks: set[asyncio.Task[Any]] = self._work if settings.jobs_dir else set()
        """Work on jobs; the server waits for these as for requests, and cancels them when its grace is over."""

    async def start(self) -> None:
        """Begin to give signs of life, and to keep the folder in order."""
        if self._temporary is not None:
            await call_in(self._threads, self._temporary.make)
            self._threads.submit(remove_abandoned, self.path.parent)
        self._beating = asyncio.create_task(self._beat(), name="unet-jobs")
        self._keeper.start()

    async def stop(self) -> None:
        """End what is still in work, and say so to whoever asks another replica."""
        for task in self._work:
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        for running in list(self._running.values()):  # cancelled while its last record was written
            await self._save(running)
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        await self._keeper.stop()
        for executor in (self._threads, self._writers, self._makers, self._beats):
            await asyncio.to_thread(executor.shutdown, wait=True)
        if self._temporary is not None:
            await asyncio.to_thread(self._temporary.remove)

    def temporary_bytes(self) -> int:
        """Bytes of results in the temporary folder, where uploads stand, too; as of the last sweep."""
        return self._keeper.result_bytes if self._temporary is not None else 0

    async def submit(
        self, image: BinaryIO, wanted: SegmentRequest, model: str, user: str | None, held: AsyncExitStack
    ) -> JobReport:
        """Begin a job.

        Parameters
        ----------
        image
            The file, seekable.
        wanted
            What is wanted, in the background.
        model
            ``name@version`` of what will run.
        user
            Who will be able to ask for it.
        held
            What is held until the job is over; left empty.

        Raises
        ------
        NoRoomForJobs
            Where there is no room for another.
        EngineError, FormatError, ModelError
            Where the request is refused.

        """
        progress = Progress()
        work = asyncio.create_task(self._engine.segment(image, wanted, progress))
        accepted = asyncio.create_task(progress.accepted.wait())
        try:
            await asyncio.wait((work, accepted), return_when=asyncio.FIRST_COMPLETED)
            if not progress.accepted.is_set():
                await work
            running = Running.begun(wanted, model, user, progress)
            await self._create(running.record)
        except BaseException:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise
        finally:
            accepted.cancel()
        self._running[running.record.report.id] = running
        running.task = asyncio.create_task(self._carry(running, work, wanted, held.pop_all()))
        self._work.add(running.task)
        running.task.add_done_callback(self._work.discard)
        return running.current().report

    async def _create(self, record: Record) -> None:
        try:
            await call_in(self._makers, self._folder.create, record)
        except asyncio.CancelledError:
            # its one thread may be at it nevertheless, and takes it back right afterwards
            self._makers.submit(self._folder.withdraw, record.report.id)
            raise

    async def look(self, job_id: str, user: str | None, wait_s: float) -> Record:
        """Return a job as it is now, or once it is over, ``wait_s`` later at the latest.

        Raises
        ------
        UnknownJob
            Where there is none for this user.

        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            running = self._running.get(job_id)  # first: it may end while its record of before is read
            kept = await call_in(self._threads, self._folder.read, job_id)  # another replica may have deleted it
            record = kept if running is None else running.current()
            if record.user != user:
                raise UnknownJob(job_id, self._settings.job_keep_s)
            left_s = until - loop.time()
            if record.report.over or left_s <= 0:
                return record
            if running is None:
                await asyncio.sleep(min(left_s, _LOOK_S))
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(running.ended.wait(), left_s)

    async def result(self, job_id: str, user: str | None, wait_s: float) -> tuple[Record, Body | None]:
        """Return a finished job and its result; None for one that failed.

        Raises
        ------
        UnknownJob
            Where there is none for this user.
        JobNotDone
            Where it is not over.

        """
        record = await self.look(job_id, user, wait_s)
        if not record.report.over:
            raise JobNotDone(job_id, record.report.state, retry_after_s(record.report))
        if record.report.state == "failed":
            return record, None
        return record, await call_in(self._threads, lambda: Body(self._folder.open_result(job_id, record.report.bytes)))

    async def fetched(self, job_id: str) -> None:
        """Note that a result has been sent whole."""
        await call_in(self._threads, self._folder.fetched, job_id)

    async def delete(self, job_id: str, user: str | None) -> None:
        """Remove a job; what is in work of it is dropped.

        Raises
        ------
        UnknownJob
            Where there is none for this user.

        """
        await self.look(job_id, user, 0)
        # first: what the disk refuses goes on, and where whoever asks hangs up now, the next sign of life finds it gone
        await call_in(self._threads, self._folder.delete, job_id)
        self._drop(job_id)

    def _drop(self, job_id: str, *, deleted: bool = True) -> None:
        """End the work on a job that has gone; signs of life of others do not wait until it has ended."""
        running = self._running.pop(job_id, None)
        if running is not None and running.task is not None:
            self._folder.forget(job_id)
            running.task.cancel()
            running.ended.set()
            _LOG.info("job dropped", extra=fields(job=job_id))
            if deleted and not running.task.done():
                gone = UnknownJob(job_id, self._settings.job_keep_s)
                self._metrics.job_ended("deleted", self._problem_of(gone)["status"])

    async def _carry(
        self, running: Running, work: asyncio.Task[Answer], wanted: SegmentRequest, held: AsyncExitStack
    ) -> None:
        job_id = running.record.report.id
        try:
            async with held:
                answer = await work
                try:
                    await call_in(self._writers, self._folder.keep_result, job_id, answer.body.size, answer.body.read)
                finally:
                    answer.body.close()
            running.done(answer, self._headers_of(answer, wanted))
        except asyncio.CancelledError:
            if job_id not in self._running:
                raise  # deleted
            grace_s = self._settings.shutdown_grace_s
            error = Draining(
                f"the service stops, and this job was not finished in the {grace_s} s that it had left for that; send "
                "it again, or raise UNET_SHUTDOWN_GRACE_S"
            )
            running.record = running.current().failed(self._problem_of(error))
        except Exception as error:
            running.record = running.current().failed(self._problem_of(error))
        await self._save(running)
        report = running.record.report
        shown = fields(job=job_id, problem=(report.problem or {}).get("type"), bytes=report.bytes)
        _LOG.info("job %s", report.state, extra=shown)
        self._metrics.job_ended(report.state, (report.problem or {}).get("status", 200))
        running.ended.set()

    async def _save(self, running: Running) -> None:
        """Write a job's record; one that is over is no longer ours, and where that fails the next beat tries again."""
        record = running.current()
        job_id = record.report.id
        try:
            await call_in(self._beats, self._folder.write, record)
        except UnknownJob:
            if not record.report.over:
                self._drop(job_id, deleted=not await self._is_kept(job_id))
        except OSError as error:
            _LOG.warning("the state of job %s cannot be written: %s", job_id, error)
            return
        if record.report.over:
            self._running.pop(job_id, None)

    async def _is_kept(self, job_id: str) -> bool:
        """Whether there is a record: that of a replica which took the job for lost, and has counted it."""
        try:
            await call_in(self._beats, self._folder.read, job_id)
        except JobError:
            return False
        return True

    async def _beat(self) -> None:
        while True:
            for running in list(self._running.values()):
                try:
                    await self._save(running)
                except Exception:
                    _LOG.exception("job %s has given no sign of life", running.record.report.id)
            await asyncio.sleep(_BEAT_S)
