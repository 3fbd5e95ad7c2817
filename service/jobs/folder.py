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
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from service.jobs.errors import JobUnavailable, UnknownJob
from service.jobs.files import (
    JOB_ID,
    RESULT,
    Stamp,
    clear,
    give_name,
    hidden_name,
    note_sent,
    open_result,
    private,
    read_record,
    refused,
    replace_record,
    stamp_of,
    touch_record,
    unavailable,
)
from service.jobs.inventory import Entry, Inventory, Tally
from service.jobs.record import Record
from service.jobs.room import Room

LOST_AFTER_S = 30.0
"""Without a sign of life a job counts as lost."""

_LOG = logging.getLogger("unet.jobs")
_HIDDEN = re.compile(r"\.(new|gone)-[0-9a-f]{32}")
_COPIED_BYTES = 1 << 20


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
        self._keep_s = keep_s
        self.room = Room(Inventory(path, clock), room_bytes, self._set_aside)
        """Room in it, and what is there."""
        self._troubles: dict[str, str] = {}  # of jobs that the last sweep could not see to, each told once
        self._own: dict[str, tuple[Stamp, Record]] = {}

    def create(self, record: Record) -> None:
        """Begin a job, of which this process is the owner until it is over.

        Raises
        ------
        JobExists, NoRoomForJobs
            Where there is one of its id, or there are too many, results fill their room, or the disk takes none.

        """
        new = self._path / hidden_name("new")
        try:
            with self.room.made(1, record.user, jobs=1):
                pass
            self.room.on_disk(partial(new.mkdir, mode=0o700), 1)
            stamp = self.room.on_disk(partial(replace_record, new, record), 1)
            give_name(new, record.report.id)
            self._own[record.report.id] = stamp, record
        except OSError as error:
            clear(new)
            raise refused("a job is", error) from error

    def read(self, job_id: str) -> Record:
        """Return what is known of a job.

        Raises
        ------
        UnknownJob
            Where there is none.
        JobUnavailable
            Where it cannot be read.

        """
        with self._of_disk(job_id):
            return read_record(self._folder(job_id))

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
            if (own := self._own.get(job_id)) is None:
                raise UnknownJob(job_id, self._keep_s)
            stamp, last = own
            if record == last:
                self._own[job_id] = touch_record(folder, stamp), last
            elif stamp_of(folder) != stamp:
                raise UnknownJob(job_id, self._keep_s)
            else:
                try:
                    replace = partial(replace_record, folder, record)
                    stamp = self.room.on_disk(replace, 1) if record.report.over else replace()
                    self._own[job_id] = stamp, record
                except OSError:
                    self._own[job_id] = touch_record(folder, stamp), last
                    raise
        except (FileNotFoundError, UnknownJob) as error:
            self.forget(job_id)
            raise UnknownJob(job_id, self._keep_s) from error
        if record.report.over:
            self.forget(job_id)

    def forget(self, job_id: str) -> None:
        """Be the owner no more."""
        self._own.pop(job_id, None)

    def withdraw(self, record: Record) -> None:
        """Remove a job that was to be made and that nobody will ask for, if it was; the sweep has what cannot be."""
        job_id = record.report.id
        if job_id in self._own and self._own[job_id][1] is record:  # else it is another one of the same id
            self.forget(job_id)
            with suppress(UnknownJob, JobUnavailable):
                self.delete(job_id)

    def keep_result(self, job_id: str, size: int, read: Callable[[int], bytes]) -> None:
        """Write a result.

        Raises
        ------
        UnknownJob
            Where somebody has deleted the job.
        NoRoomForJobs
            Where other results fill the room, or the disk does.
        ResultTooLarge
            Where it is larger than all the room.

        """
        target = self._folder(job_id) / RESULT
        own = self._own.get(job_id)
        user = own[1].user if own is not None else None
        self.room.check(size)
        try:
            with self.room.on_disk(partial(open, target, "xb", opener=private), 1) as file:
                with self.room.made(size, user):
                    os.truncate(file.fileno(), size)  # counted by all from now on
                while part := memoryview(read(_COPIED_BYTES)):
                    while part:
                        part = part[self.room.on_disk(partial(os.write, file.fileno(), part), size) :]
                os.fsync(file.fileno())
        except BaseException as error:
            with suppress(OSError):
                target.unlink(missing_ok=True)
            if isinstance(error, FileNotFoundError):
                raise UnknownJob(job_id, self._keep_s) from error
            if isinstance(error, OSError):
                raise refused(f"{size} bytes are", error) from error
            raise

    def open_result(self, job_id: str, size: int | None) -> IO[bytes]:
        """Open a result of so many bytes for reading.

        Raises
        ------
        UnknownJob
            Where it has gone.
        JobUnavailable
            Where it cannot be read, or is not that.

        """
        with self._of_disk(job_id):
            return open_result(self._folder(job_id), size)

    def sent(self, job_id: str, part: range, size: int) -> None:
        """Note which bytes of a result of so many have been sent: once all have been, it makes room for others."""
        try:
            note_sent(self._folder(job_id), part, size)
        except FileNotFoundError:
            pass  # deleted while it was sent
        except OSError as error:
            _LOG.warning("job %s was fetched, which cannot be noted: %s", job_id, error)

    def delete(self, job_id: str) -> None:
        """Remove a job; its owner drops the work when it next writes.

        Raises
        ------
        UnknownJob
            Where there is none.
        JobUnavailable
            Where it cannot be removed.

        """
        with self._of_disk(job_id):
            gone = self._set_aside(job_id)
        clear(gone)

    def sweep(self, lost: Callable[[Record], Record]) -> Tally:
        """Remove what is expired, give up what is lost, and count the rest.

        Parameters
        ----------
        lost
            Makes the failed record of one whose owner has gone.

        """
        states: Counter[str] = Counter()
        result_bytes = given_up = 0
        troubles: dict[str, str] = {}
        for entry in self.room.entries():
            job_id, mine = entry.job_id, entry.job_id in self._own
            try:
                if entry.seen.over and not mine and entry.age_s > self._keep_s:
                    self.delete(job_id)
                    continue
                silent = not entry.seen.over and not mine and entry.silent_s > LOST_AFTER_S
                if silent and self._take_over(entry, lost):
                    given_up += 1
                    states["failed"] += 1
                    continue
            except UnknownJob:
                continue
            except JobUnavailable as error:
                troubles[job_id] = str(error)
                if self._troubles.get(job_id) != troubles[job_id]:
                    _LOG.warning("%s", error)
            states[entry.seen.state] += 1
            result_bytes += entry.result_bytes
        self._troubles = troubles
        for hidden in [path for path in self._path.iterdir() if _HIDDEN.fullmatch(path.name)]:
            # what is being made or deleted at this moment is left to whoever does that
            with suppress(OSError):
                if self.room.inventory.now() - hidden.lstat().st_mtime > LOST_AFTER_S:
                    clear(hidden)
        return Tally(states, result_bytes, given_up)

    @contextmanager
    def _of_disk(self, job_id: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise UnknownJob(job_id, self._keep_s) from error
        except OSError as error:
            raise unavailable(job_id, error) from error

    def _set_aside(self, job_id: str) -> Path:
        """Make a job unknown, which is quick; whoever calls clears its files away, which may take long."""
        return self._folder(job_id).rename(self._path / hidden_name("gone"))

    def _folder(self, job_id: str) -> Path:
        if not JOB_ID.fullmatch(job_id):
            raise UnknownJob(job_id, self._keep_s)
        return self._path / job_id

    def _take_over(self, entry: Entry, lost: Callable[[Record], Record]) -> bool:
        folder = self._folder(entry.job_id)
        with self._of_disk(entry.job_id):
            # as it was when it was listed: meanwhile its owner may have been heard of
            record = read_record(folder)
            if record.report.over or stamp_of(folder) != entry.seen.stamp:
                return False
            replace_record(folder, lost(record))
            (folder / RESULT).unlink(missing_ok=True)
            _LOG.warning("job %s has lost its replica", entry.job_id)
            return True
