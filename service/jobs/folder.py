"""The folder of jobs, which replicas may share: a folder for each job, with its record and its result.

Records are replaced whole, by the replica at work about once a second. A record that does not change for
:data:`LOST_AFTER_S` of another replica's own clock is taken over by that one as failed. A job is deleted by renaming
its folder; its replica finds the record gone, or changed by somebody else, and drops the work. Nothing here takes
locks between processes, and no time of one machine is compared with that of another.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from service.jobs.errors import NoRoomForJobs, UnknownJob
from service.jobs.files import (
    FETCHED,
    JOB_ID,
    RECORD,
    RESULT,
    Stamp,
    private,
    read_record,
    refused,
    replace_record,
    stamp_of,
)
from service.jobs.inventory import Entry, Inventory
from service.jobs.record import Record

LOST_AFTER_S = 30.0
"""Without a sign of life a job counts as lost."""
MOST_JOBS = 1000
"""In one folder, finished ones included."""

_LOG = logging.getLogger("unet.jobs")
_HIDDEN = re.compile(r"\.(new|gone)-[0-9a-f]{32}")
_COPIED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Tally:
    """What is in the folder."""

    states: Mapping[str, int]
    """Jobs by state."""
    result_bytes: int


class JobsFolder:
    """Everything here waits for a disk: call it in threads.

    Parameters
    ----------
    path
        Made where it does not exist.
    room_bytes
        Most of all results together.
    keep_s
        Seconds for which a finished job is kept.
    clock
        Seconds, from any start.

    """

    def __init__(self, path: Path, room_bytes: int, keep_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._room_bytes = room_bytes
        self._keep_s = keep_s
        self._clock = clock
        self._lock = threading.Lock()
        self._inventory = Inventory(path, clock)
        self._own: dict[str, Stamp] = {}

    def create(self, record: Record) -> None:
        """Begin a job, of which this process is the owner until it is over.

        Raises
        ------
        NoRoomForJobs
            Where there are too many, results fill their room, or the disk takes none.

        """
        job_id = record.report.id
        new = self._path / f".new-{job_id}"
        try:
            with self._lock:
                self._make_room(1, jobs=1)
            new.mkdir(mode=0o700)
            stamp = replace_record(new, record)
            new.rename(self._path / job_id)
            self._own[job_id] = stamp
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            raise refused("a job is", error) from error

    def read(self, job_id: str) -> Record:
        """Return what is known of a job.

        Raises
        ------
        UnknownJob
            Where there is none.

        """
        try:
            return read_record(self._folder(job_id))
        except FileNotFoundError as error:
            raise UnknownJob(job_id, self._keep_s) from error

    def write(self, record: Record) -> None:
        """Replace the record of a job of this process, which is also its sign of life.

        Raises
        ------
        UnknownJob
            Where somebody has deleted it, or taken it for lost.
        OSError
            Where the disk does not take it; the sign of life is given nevertheless.

        """
        job_id = record.report.id
        folder = self._folder(job_id)
        try:
            if stamp_of(folder) != self._own.get(job_id):
                raise UnknownJob(job_id, self._keep_s)
            try:
                self._own[job_id] = replace_record(folder, record)
            except OSError:
                os.utime(folder / RECORD)
                self._own[job_id] = stamp_of(folder)
                raise
        except FileNotFoundError as error:
            raise UnknownJob(job_id, self._keep_s) from error
        if record.report.over:
            self.forget(job_id)

    def forget(self, job_id: str) -> None:
        """Be the owner no more."""
        self._own.pop(job_id, None)

    def withdraw(self, job_id: str) -> None:
        """Remove a job of this process that nobody will ask for, if there is one; the sweep has what cannot be."""
        self.forget(job_id)
        with suppress(UnknownJob, OSError):
            self.delete(job_id)

    def keep_result(self, job_id: str, size: int, read: Callable[[int], bytes]) -> None:
        """Write a result.

        Raises
        ------
        NoRoomForJobs
            Where other results fill the room, or the disk does.

        """
        target = self._folder(job_id) / RESULT
        try:
            with open(target, "xb", opener=private) as file:
                with self._lock:
                    self._make_room(size)
                    if size:
                        os.posix_fallocate(file.fileno(), 0, size)  # counted by all from now on
                while part := read(_COPIED_BYTES):
                    file.write(part)
        except (OSError, NoRoomForJobs) as error:
            target.unlink(missing_ok=True)
            raise error if isinstance(error, NoRoomForJobs) else refused(f"{size} bytes are", error) from error

    def open_result(self, job_id: str) -> IO[bytes]:
        """Open a result for reading.

        Raises
        ------
        UnknownJob
            Where it has gone.

        """
        try:
            return (self._folder(job_id) / RESULT).open("rb")
        except FileNotFoundError as error:
            raise UnknownJob(job_id, self._keep_s) from error

    def fetched(self, job_id: str) -> None:
        """Note that a result has been sent: it goes first where room is needed."""
        try:
            with open(self._folder(job_id) / FETCHED, "wb", opener=private):
                pass
        except OSError as error:
            _LOG.warning("job %s was fetched, which cannot be noted: %s", job_id, error)

    def delete(self, job_id: str) -> None:
        """Remove a job; its owner drops the work when it next writes.

        Raises
        ------
        UnknownJob
            Where there is none.

        """
        gone = self._path / f".gone-{job_id}"
        try:
            self._folder(job_id).rename(gone)
        except FileNotFoundError as error:
            raise UnknownJob(job_id, self._keep_s) from error
        shutil.rmtree(gone, ignore_errors=True)

    def sweep(self, lost: Callable[[Record], Record]) -> Tally:
        """Remove what is expired, give up what is lost, and count the rest.

        Parameters
        ----------
        lost
            Makes the failed record of one whose owner has gone.

        """
        states: Counter[str] = Counter()
        result_bytes = 0
        with self._lock:
            found = self._inventory.entries()
        for entry in found:
            job_id, seen = entry.job_id, entry.seen
            here_s = self._clock() - seen.at_s
            if seen.over and seen.age_s + here_s > self._keep_s:
                with suppress(UnknownJob):
                    self.delete(job_id)
                continue
            if not seen.over and job_id not in self._own and here_s > LOST_AFTER_S:
                self._take_over(job_id, lost)
            states[seen.state] += 1
            result_bytes += entry.result_bytes
        for hidden in [path for path in self._path.iterdir() if _HIDDEN.fullmatch(path.name)]:
            # what is being made or deleted at this moment is left to whoever does that
            with suppress(FileNotFoundError):
                if self._inventory.now() - hidden.stat().st_mtime > LOST_AFTER_S:
                    shutil.rmtree(hidden, ignore_errors=True)
        return Tally(states, result_bytes)

    def _folder(self, job_id: str) -> Path:
        if not JOB_ID.fullmatch(job_id):
            raise UnknownJob(job_id, self._keep_s)
        return self._path / job_id

    def _make_room(self, size: int, jobs: int = 0) -> None:
        """Delete fetched results, the oldest first, until there is room for ``size`` bytes and so many jobs."""
        found = self._inventory.entries()
        held, kept = sum(entry.result_bytes for entry in found), len(found)
        fetched = [entry for entry in found if entry.seen.over and entry.fetched]
        fetched.sort(key=lambda entry: entry.seen.stamp[1])
        gone: list[Entry] = []
        while held + size > self._room_bytes or kept + jobs > MOST_JOBS:
            if len(gone) == len(fetched):
                raise NoRoomForJobs(
                    f"{len(found)} jobs are kept, with {held >> 20} MiB of results that nobody has fetched, {size} "
                    f"bytes more are needed; the limits are {MOST_JOBS} jobs and {self._room_bytes >> 20} MiB: fetch "
                    f"or delete what is done, try again in {NoRoomForJobs.retry_after_s} s, or raise UNET_JOBS_MB"
                )
            gone.append(fetched[len(gone)])
            held, kept = held - gone[-1].result_bytes, kept - 1
        for entry in gone:
            with suppress(UnknownJob):
                self.delete(entry.job_id)

    def _take_over(self, job_id: str, lost: Callable[[Record], Record]) -> None:
        with suppress(FileNotFoundError, UnknownJob):
            folder = self._folder(job_id)
            replace_record(folder, lost(self.read(job_id)))
            (folder / RESULT).unlink(missing_ok=True)
            _LOG.warning("job %s has lost its replica", job_id)
