"""Room for jobs and their results, and which finished ones go for others."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from service.jobs.errors import NoRoomForJobs, ResultTooLarge
from service.jobs.files import clear
from service.jobs.inventory import Entry, Inventory

MOST_JOBS = 1000
"""In one folder, finished ones included; a user within an equal share of these gets in beyond that."""
_MOST_BEYOND = 2  # times as many at the utmost

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

    def check(self, size: int) -> None:
        """Refuse a result of so many bytes that would find no room if it were the only one.

        Raises
        ------
        ResultTooLarge
            Where it would not.

        """
        if size > self._room_bytes:
            raise ResultTooLarge(size, self._room_bytes)

    def entries(self) -> list[Entry]:
        """Return every job; what is deleted at this moment may be among them."""
        with self.lock:
            return self.inventory.entries()

    @contextmanager
    def made(self, size: int, user: str | None, jobs: int = 0) -> Iterator[None]:
        """Make room for ``size`` bytes and so many jobs of a user; nobody else is given it within.

        Raises
        ------
        NoRoomForJobs
            Where there is not enough.

        """
        gone: list[Path] = []
        try:
            with self.lock:
                found = self.inventory.entries()
                gone = self._all_aside(making_room(found, self._room_bytes, size, jobs, user))
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


def making_room(found: Sequence[Entry], limit_bytes: int, size: int, jobs: int, user: str | None) -> list[Entry]:
    """Return what has to go before there is room for ``size`` bytes more and so many jobs more.

    Where those that may go do not suffice, finished jobs of whoever holds the most go, the oldest first, as long as he
    holds more than an equal share of all users, and is not the one who asks. Where these do not suffice, either, one
    more job of a user whose jobs keep within an equal share gets in beside all others, up to twice as many.

    Parameters
    ----------
    found
        All jobs.
    limit_bytes
        Most of all results together.
    user
        Who asks.

    Raises
    ------
    NoRoomForJobs
        Where there would not be enough then either; nothing has to go.

    """
    left = {entry.job_id: entry for entry in found}
    held = sum(entry.result_bytes for entry in found)
    may_go, gone, most_jobs = spare(found), list[Entry](), MOST_JOBS
    while (crowded := bool(jobs) and len(left) + jobs > most_jobs) or held + size > limit_bytes:
        helping = (entry for entry in may_go if entry.job_id in left and (crowded or entry.result_bytes))
        first = next(helping, None) or _beyond_share(left.values(), limit_bytes, crowded, user)
        if first is None and crowded and most_jobs == MOST_JOBS and _within_share(left.values(), jobs, user):
            most_jobs *= _MOST_BEYOND
            continue
        if first is None:
            raise _too_many(left.values(), user) if crowded else _too_large(left.values(), limit_bytes, size, user)
        gone.append(left.pop(first.job_id))
        held -= first.result_bytes
    return gone


def _beyond_share(left: Collection[Entry], limit_bytes: int, crowded: bool, user: str | None) -> Entry | None:
    holds: Counter[str | None] = Counter({user: 0})
    for entry in left:
        holds[entry.seen.user] += 1 if crowded else entry.result_bytes
    greatest, most = holds.most_common(1)[0]
    if greatest == user or most * len(holds) <= (MOST_JOBS if crowded else limit_bytes):
        return None
    finished = [entry for entry in left if entry.seen.user == greatest and entry.seen.over]
    useful = [entry for entry in finished if crowded or entry.result_bytes]
    return min(useful, key=lambda entry: entry.seen.stamp[1], default=None)


def _within_share(left: Collection[Entry], jobs: int, user: str | None) -> bool:
    own, users = _own_and_users(left, user)
    return users > 1 and (own + jobs) * users <= MOST_JOBS


def _own_and_users(left: Collection[Entry], user: str | None) -> tuple[int, int]:
    """Count jobs of who asks, and all users who have any or ask."""
    holds = Counter(entry.seen.user for entry in left)
    return holds[user], len({user, *holds})


def _too_many(left: Collection[Entry], user: str | None) -> NoRoomForJobs:
    done = sum(entry.seen.over for entry in left)
    own, users = _own_and_users(left, user)
    most = f"the limit is {MOST_JOBS} jobs"
    if users > 1:
        most += (
            f", or {_MOST_BEYOND * MOST_JOBS} for who has no more than {MOST_JOBS // users}, a share of {users} users"
        )
    remedy = "fetch or delete what is done, delete what is no longer wanted, or " if own else ""
    return NoRoomForJobs(
        f"{len(left)} jobs are kept, {own} of them of the user who asks: {len(left) - done} are not over, the results "
        f"of {done} nobody has fetched; {most}: {remedy}try again in {NoRoomForJobs.retry_after_s} s"
    )


def _too_large(left: Collection[Entry], limit_bytes: int, size: int, user: str | None) -> NoRoomForJobs:
    held = sum(entry.result_bytes for entry in left)
    own = sum(entry.result_bytes for entry in left if entry.seen.user == user)
    return NoRoomForJobs(
        f"results that nobody has fetched take {held} bytes, {own} of them of the user who asks, and {size} more "
        f"are needed; the limit is {limit_bytes} bytes: fetch or delete what is done, try again in "
        f"{NoRoomForJobs.retry_after_s} s, or raise UNET_JOBS_MB (where UNET_JOBS_DIR is not set results may have half "
        "of the temporary folder's disk)"
    )
