"""What is in a folder of jobs, and how long it has been as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.jobs.files import FETCHED, JOB_ID, RESULT, Stamp, read_record, stamp_of


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as it was found first."""

    stamp: Stamp
    at_s: float
    """By this process's own clock."""
    age_s: float
    """By the clock of the file system, which matters for records of before the start alone."""
    state: str
    over: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One job."""

    job_id: str
    seen: Seen
    result_bytes: int
    fetched: bool


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

    def now(self) -> float:
        """Time by the clock that the times of the folder's files are by."""
        clock = self._path / ".clock"
        clock.touch(mode=0o600)
        return clock.stat().st_mtime

    def entries(self) -> list[Entry]:
        """Return every job; what is deleted at this moment may be among them."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        now, at_s = self.now(), self._clock()
        entries: list[Entry] = []
        for folder in [path for path in self._path.iterdir() if JOB_ID.fullmatch(path.name)]:
            try:
                stamp = stamp_of(folder)
                seen = self._seen.get(folder.name)
                if seen is None or seen.stamp != stamp:
                    report = read_record(folder).report
                    seen = Seen(stamp, at_s, max(0.0, now - stamp[1] / 1e9), report.state, report.over)
                result = folder / RESULT
                size = result.stat().st_size if result.exists() else 0
            except FileNotFoundError:
                continue
            entries.append(Entry(folder.name, seen, size, (folder / FETCHED).exists()))
        self._seen = {entry.job_id: entry.seen for entry in entries}
        return entries
