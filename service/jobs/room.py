"""Which finished jobs make room for others."""

from __future__ import annotations

from collections.abc import Sequence

from service.jobs.errors import NoRoomForJobs
from service.jobs.inventory import Entry

MOST_JOBS = 1000
"""In one folder, finished ones included."""


def making_room(found: Sequence[Entry], room_bytes: int, size: int, jobs: int) -> list[Entry]:
    """Return what has to go before there is room for ``size`` bytes more and so many jobs more.

    Failed ones go first, then those whose result has been fetched, the oldest first.

    Parameters
    ----------
    found
        All jobs.
    room_bytes
        Most of all results together.

    Raises
    ------
    NoRoomForJobs
        Where there would not be enough without these either; then nothing has to go.

    """
    held, kept = sum(entry.result_bytes for entry in found), len(found)
    spare = [entry for entry in found if entry.seen.state == "failed" or (entry.seen.over and entry.fetched)]
    spare.sort(key=lambda entry: (entry.seen.state != "failed", entry.seen.stamp[1]))
    gone: list[Entry] = []
    while held + size > room_bytes or kept + jobs > MOST_JOBS:
        if len(gone) == len(spare):
            raise NoRoomForJobs(
                f"{len(found)} jobs are kept, with {held >> 20} MiB of results that nobody has fetched, {size} bytes "
                f"more are needed; the limits are {MOST_JOBS} jobs and {room_bytes >> 20} MiB: fetch or delete what is "
                f"done, try again in {NoRoomForJobs.retry_after_s} s, or raise UNET_JOBS_MB"
            )
        gone.append(spare[len(gone)])
        held, kept = held - gone[-1].result_bytes, kept - 1
    return gone
