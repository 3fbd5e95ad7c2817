"""What keeps the folder of jobs in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service.engine.ending import end
from service.jobs.errors import JobLost
from service.jobs.folder import LOST_AFTER_S, JobsFolder
from service.jobs.record import Record
from service.jobs.threads import call_in
from service.telemetry import Metrics

_LOG = logging.getLogger("unet.jobs")
_SWEEP_S = 5.0


class Keeper:
    """Sweeps the folder, in a task and a thread of its own: a slow disk shall hold up no sign of life.

    Parameters
    ----------
    folder
        The folder of jobs.
    metrics
        Where counts go.
    problem_of
        The document of a problem.

    """

    def __init__(self, folder: JobsFolder, metrics: Metrics, problem_of: Callable[[Exception], dict[str, Any]]) -> None:
        self._folder = folder
        self._metrics = metrics
        self._problem_of = problem_of
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="unet-jobs-keeper")
        self._sweeping: asyncio.Task[None] | None = None
        self.result_bytes = 0
        """Of all results together, as of the last sweep."""

    def start(self) -> None:
        """Begin to sweep, on the running loop."""
        self._sweeping = asyncio.create_task(self._sweep(), name="unet-jobs-keeper")

    async def stop(self) -> None:
        """End it, once a sweep that has begun is done; one that hangs is left alone."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        await end(self._thread)

    async def _sweep(self) -> None:
        trouble = ""
        while True:
            try:
                tally = await call_in(self._thread, self._folder.sweep, self._lost)
                self.result_bytes = tally.result_bytes
                self._metrics.jobs_kept(tally.states, tally.result_bytes)
                for _ in range(tally.lost):
                    self._metrics.job_ended("lost", self._problem()["status"])
                trouble = ""
            except Exception as error:
                if str(error) != trouble:
                    trouble = str(error)
                    unforeseen = None if isinstance(error, OSError) else error
                    _LOG.error("the folder of jobs cannot be kept in order: %s", error, exc_info=unforeseen)
            await asyncio.sleep(_SWEEP_S)

    def _lost(self, record: Record) -> Record:
        return record.failed(self._problem())

    def _problem(self) -> dict[str, Any]:
        error = JobLost(
            f"the replica at work on the job has given no sign of life for {LOST_AFTER_S:g} s, so it has ended; send "
            "the image again"
        )
        return self._problem_of(error)
