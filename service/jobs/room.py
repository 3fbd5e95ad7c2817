"""Room for jobs and their results, and which finished ones go for others."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from service.jobs.errors import NoRoomForJobs
from service.jobs.files import clear
from service.jobs.inventory import Entry, Inventory

MOST_JOBS = 1000
"""In one folder, finished ones included."""

_T = TypeVar("_T")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_RECORD_BYTES = 4096  # of disk, that a job takes beside its result


class Room:
    """Room of all jobs of a folder.

    Parameters
    ----------
    inventory
        What there is in the folder.
    room_bytes
        Most of all results together.
    set_aside
        Makes a job unknown, which is quick; returns what is still to be cleared away. FileNotFoundError where it has
        gone.

    """

    def __init__(self, inventory: Inventory, room_bytes: int, set_aside: Callable[[str], Path]) -> None:
        self.inventory = inventory
        self.lock = threading.Lock()
        self._room_bytes = room_bytes
        self._set_aside = set_aside

    def entries(self) -> list[Entry]:
        """Return every job; what is deleted at this moment may be among them."""
        with self.lock:
            return self.inventory.entries()

    @contextmanager
    def made(self, size: int, jobs: int = 0) -> Iterator[None]:
        """Make room for ``size`` bytes and so many jobs; nobody else is given it within.

        Raises
        ------
        NoRoomForJobs
            Where there is not enough.

        """
        gone: list[Path] = []
        try:
            with self.lock:
                gone = self._all_aside(making_room(self.inventory.entries(), self._room_bytes, size, jobs))
                yield
        finally:
            _clear_all(gone)

    def on_disk(self, take: Callable[[], _T], size: int) -> _T:
        """Return what ``take`` does, which takes ``size`` bytes at most; on a full disk jobs that may go do so first.

        Raises
        ------
        OSError
            As ``take`` does, where nothing may go any more.

        """
        while True:
            try:
                return take()
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                with self.lock:
                    gone = self._all_aside(worth(self.inventory.entries(), size))
                if not gone:
                    raise
                _clear_all(gone)

    def _all_aside(self, gone: Sequence[Entry]) -> list[Path]:
        paths: list[Path] = []
        for entry in gone:
            with suppress(FileNotFoundError):
                paths.append(self._set_aside(entry.job_id))
        return paths


def _clear_all(gone: Sequence[Path]) -> None:
    for path in gone:
        clear(path)


def spare(found: Sequence[Entry]) -> list[Entry]:
    """Return the jobs that may go: failed ones first, then those whose result has been fetched, the oldest first."""
    may_go = [entry for entry in found if entry.seen.state == "failed" or (entry.seen.over and entry.fetched)]
    return sorted(may_go, key=lambda entry: (entry.seen.state != "failed", entry.seen.stamp[1]))


def worth(found: Sequence[Entry], size: int) -> list[Entry]:
    """Return jobs that may go and take ``size`` bytes of disk, or all that there are."""
    gone: list[Entry] = []
    for entry in spare(found):
        if size <= 0:
            break
        gone.append(entry)
        size -= entry.result_bytes + _RECORD_BYTES
    return gone


def making_room(found: Sequence[Entry], room_bytes: int, size: int, jobs: int) -> list[Entry]:
    """Return what has to go before there is room for ``size`` bytes more and so many jobs more.

    Parameters
    ----------
    found
        All jobs.
    room_bytes
        Most of all results together.

    Raises
    ------
    NoRoomForJobs
        Where there would not be enough without those that may go either; then nothing has to go.

    """
    held, kept = sum(entry.result_bytes for entry in found), len(found)
    may_go = spare(found)
    gone: list[Entry] = []
    while held + size > room_bytes or kept + jobs > MOST_JOBS:
        if len(gone) == len(may_go):
            raise NoRoomForJobs(
                f"{len(found)} jobs are kept, with {held >> 20} MiB of results that nobody has fetched, {size} bytes "
                f"more are needed; the limits are {MOST_JOBS} jobs and {room_bytes >> 20} MiB: fetch or delete what is "
                f"done, try again in {NoRoomForJobs.retry_after_s} s, or raise UNET_JOBS_MB (where UNET_JOBS_DIR is "
                "not set results may have half of the temporary folder's disk)"
            )
        gone.append(may_go[len(gone)])
        held, kept = held - gone[-1].result_bytes, kept - 1
    return gone
