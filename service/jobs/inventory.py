"""What is in a folder of jobs, and how long it has been as it is."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from service.jobs.files import FETCHED, JOB_ID, RESULT, Stamp, read_record, stamp_of

UNREADABLE = "unreadable"
"""State of a job whose record cannot be read: it is over, since who works on one replaces its record."""

_LOG = logging.getLogger("unet.jobs")
_MOST_BETWEEN_S = 10.0
"""Between two looks no more is counted as watched: where this process was held up, others may have been, too."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as it was found first."""

    stamp: Stamp
    at_s: float
    """By this process's own clock."""
    at_watched_s: float
    """By the time for which this process has watched."""
    age_s: float
    """By the clock of the file system, which matters for records of before the start alone: others were written since
    the look before, whatever step that clock makes."""
    state: str
    over: bool
    user: str | None
    """Whose job it is; None where that cannot be read, too."""
    submitted: datetime | None
    """When it was, by the clock of its replica; None where that cannot be read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One job."""

    job_id: str
    seen: Seen
    age_s: float
    """Seconds since its record was written."""
    silent_s: float
    """Of these, how many this process has watched it without a change."""
    result_bytes: int
    fetched: bool


@dataclass(frozen=True, slots=True)
class Tally:
    """What is in the folder."""

    states: Mapping[str, int]
    """Jobs by state."""
    result_bytes: int
    lost: int = 0
    """Jobs that were given up just now."""


class Inventory:
    """Reads records again only where they have changed; not for several threads at a time.

    Parameters
    ----------
    path
        The folder, made where it does not exist.
    clock
        Seconds, from any start.

    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._seen: dict[str, Seen] = {}
        self._looked_s = -math.inf
        self._watched_s = 0.0

    def now(self) -> float:
        """Time by the clock that the times of the folder's files are by."""
        clock = self._path / ".clock"
        clock.touch(mode=0o600)
        return clock.stat().st_mtime

    def entries(self) -> list[Entry]:
        """Return every job; what is deleted at this moment may be among them."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        now, at_s = self.now(), self._clock()
        since_s = at_s - self._looked_s
        self._watched_s += min(since_s, _MOST_BETWEEN_S)
        self._looked_s = at_s
        entries: list[Entry] = []
        for folder in [path for path in self._path.iterdir() if JOB_ID.fullmatch(path.name)]:
            try:
                seen = self._look(folder, at_s, now, since_s)
                size = _size_of(folder / RESULT)
                fetched = os.path.lexists(folder / FETCHED)
            except FileNotFoundError:
                continue
            silent_s = self._watched_s - seen.at_watched_s
            entries.append(Entry(folder.name, seen, seen.age_s + at_s - seen.at_s, silent_s, size, fetched))
        self._seen = {entry.job_id: entry.seen for entry in entries}
        return entries

    def _look(self, folder: Path, at_s: float, now: float, most_age_s: float) -> Seen:
        before = self._seen.get(folder.name)
        trouble: OSError | None = None
        stamp: Stamp | None = None
        state: str = UNREADABLE
        user: str | None = None
        submitted: datetime | None = None
        over = True
        try:
            stamp = stamp_of(folder)
            if before is not None and before.stamp == stamp and before.state != UNREADABLE:
                return before
            record = read_record(folder)
            report, user = record.report, record.user
            state, over, submitted = report.state, report.over, report.submitted
        except OSError as error:
            found = folder.lstat()  # none where it is deleted at this moment
            stamp = stamp or (found.st_ino, found.st_mtime_ns)
            trouble = error
        if before is not None and (before.stamp, before.state) == (stamp, state):
            return before
        if trouble is not None:
            _LOG.warning("the record of job %s cannot be read: %s", folder.name, trouble)
        age_s = max(0.0, min(now - stamp[1] / 1e9, most_age_s))
        return Seen(stamp, at_s, self._watched_s, age_s, state, over, user, submitted)


def _size_of(result: Path) -> int:
    try:
        return result.lstat().st_size
    except OSError:  # there is none, or no folder
        return 0
