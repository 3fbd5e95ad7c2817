"""Jobs of this process, and the way to those of others in the same folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, BinaryIO

from service.engine.engine import Engine
from service.engine.request import Answer, Body, SegmentRequest
from service.engine.stages.progress import Progress
from service.formats.npy import NpyEncoder
from service.jobs.errors import JobExists, JobNotDone, UnknownJob
from service.jobs.folder import JobsFolder
from service.jobs.keeper import Keeper
from service.jobs.listing import of_user
from service.jobs.record import JobReport, Place, Record, retry_after_s
from service.jobs.running import Running
from service.jobs.temporary import TemporaryFolder, remove_abandoned, share_of_disk, temporary_path
from service.jobs.threads import Threads, call_in
from service.jobs.work import Work
from service.settings import Settings
from service.telemetry import Metrics

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
        self._threads = Threads()
        self._draining = False
        self.path = settings.jobs_dir or temporary_path()
        room_bytes = settings.jobs_mb << 20
        self._temporary = None
        if settings.jobs_dir is None:
            self._temporary = TemporaryFolder(self.path)
            room_bytes = min(room_bytes, share_of_disk(self.path))
        self._folder = JobsFolder(self.path, room_bytes, settings.job_keep_s)
        self._keeper = Keeper(self._folder, metrics, problem_of)
        self._work = Work(self._folder, self._threads, settings, metrics, headers_of=headers_of, problem_of=problem_of)
        # without a folder nobody could fetch what is done once the service accepts no more requests
        self.tasks: set[asyncio.Task[Any]] = self._work.tasks if settings.jobs_dir else set()
        """Work on jobs; the server waits for these as for requests, and cancels them when its grace is over."""

    async def start(self) -> None:
        """Begin to give signs of life, and to keep the folder in order."""
        if self._temporary is not None:
            await call_in(self._threads.looks, self._temporary.make)
            self._threads.looks.submit(remove_abandoned, self.path.parent)
        self._work.start()
        self._keeper.start()

    def drain(self) -> None:
        """Let nobody wait any more for jobs of other replicas: these can be asked themselves."""
        self._draining = True

    async def stop(self) -> None:
        """End what is still in work, and say so to whoever asks another replica; a disk that hangs is left alone."""
        await self._work.stop()
        await asyncio.gather(self._keeper.stop(), self._threads.end())
        if self._temporary is not None:
            await asyncio.to_thread(self._temporary.remove)

    def temporary_bytes(self) -> int:
        """Bytes of results in the temporary folder, where uploads stand, too; as of the last sweep."""
        return self._keeper.result_bytes if self._temporary is not None else 0

    async def submit(
        self,
        image: BinaryIO,
        wanted: SegmentRequest,
        model: str,
        user: str | None,
        held: AsyncExitStack,
        *,
        job_id: str | None = None,
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
        job_id
            32 hexadecimal digits that nobody else can know; None for new ones.

        Raises
        ------
        JobExists
            Where there is one of that id.
        NoRoomForJobs
            Where there is no room for another.
        ResultTooLarge
            Where its result could never be kept.
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
            self.check_size(wanted, progress.pixels)
            running = Running.begun(job_id, wanted, model, user, progress)
            if job_id in self._work.running:  # deleted by another replica, and this one has not heard of it yet
                raise JobExists(job_id)
            await self._create(running.record)
        except BaseException:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise
        finally:
            accepted.cancel()
        self._work.begin(running, work, wanted, held.pop_all())
        return running.current().report

    def check_size(self, wanted: SegmentRequest, pixels: int) -> None:
        """Refuse at once what is sure to be refused once it is computed.

        Parameters
        ----------
        wanted
            What is wanted.
        pixels
            Of the image, all planes together.

        Raises
        ------
        ResultTooLarge
            Where its result could never be kept.

        """
        if wanted.format == "npy":
            classes = len(self._engine.model(wanted.model).package.spec.classes)
            self._folder.room.check(NpyEncoder.least_bytes(wanted.output, pixels, classes))

    async def _create(self, record: Record) -> None:
        try:
            await call_in(self._threads.maker, self._folder.create, record)
        except asyncio.CancelledError:
            # its one thread may be at it nevertheless, and takes it back right afterwards
            self._threads.maker.submit(self._folder.withdraw, record)
            raise

    async def look(self, job_id: str, user: str | None, wait_s: float) -> Record:
        """Return a job as it is now, or once it is over, ``wait_s`` later at the latest, or when the service drains.

        Raises
        ------
        UnknownJob
            Where there is none for this user.

        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            running = self._work.running.get(job_id)  # first: it may end while its record of before is read
            kept = await call_in(self._threads.looks, self._folder.read, job_id)  # another replica may have deleted it
            record = kept if running is None or kept.report.over else running.current()
            if record.user != user:
                raise UnknownJob(job_id, self._settings.job_keep_s)
            left_s = until - loop.time()
            if record.report.over or left_s <= 0 or (running is None and self._draining):
                return record
            if running is None:
                await asyncio.sleep(min(left_s, _LOOK_S))
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(running.ended.wait(), left_s)

    async def listed(self, user: str, before: Place | None, most: int) -> tuple[list[JobReport], Place | None]:
        """Return the jobs of a user, the newest first, those of other replicas in the same folder among them.

        Parameters
        ----------
        user
            Whose.
        before
            All are older than this; None for the newest.
        most
            How many at most.

        Returns
        -------
        The jobs, and before which there are older ones; None where there are none.

        Raises
        ------
        JobUnavailable
            Where the folder cannot be read.

        """
        records, more = await call_in(self._threads.looks, of_user, self._folder, user, before, most)
        reports: list[JobReport] = []
        for record in records:
            running = None if record.report.over else self._work.running.get(record.report.id)
            reports.append((record if running is None else running.current()).report)
            await asyncio.sleep(0)  # to tell the place of one in a long queue takes milliseconds
        last = records[-1].report if more and records else None
        return reports, Place(last.submitted, last.id) if last else None

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
        return record, await call_in(
            self._threads.looks, lambda: Body(self._folder.open_result(job_id, record.report.bytes))
        )

    async def sent(self, job_id: str, part: range, size: int) -> None:
        """Note which bytes of a result of so many have been sent."""
        await call_in(self._threads.looks, self._folder.sent, job_id, part, size)

    async def delete(self, job_id: str, user: str | None) -> None:
        """Remove a job; what is in work of it is dropped.

        Raises
        ------
        UnknownJob
            Where there is none for this user.

        """
        await self.look(job_id, user, 0)
        # first: what the disk refuses goes on, and where whoever asks hangs up now, the next sign of life finds it gone
        await call_in(self._threads.looks, self._folder.delete, job_id)
        self._work.drop(job_id)
