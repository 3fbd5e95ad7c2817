"""The clock of fair queueing: seconds of the net that each job would have had by now, if all were served at once.

Jobs are served tile by tile, so that one may have had more by now than an equal share, and another less. The clock
stands for the equal shares themselves (virtual time of generalised processor sharing, Parekh and Gallager 1993): a job
shares the net until the clock has reached its end, though its last tile may be done long before that, or long after. If
one stopped sharing with its last tile, the clock would run fast beside a client that sends one thumbnail after the
other, and slides would lag further behind it with each, until all of them were due before the next thumbnail.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop
from typing import Any

from service.engine.scheduling.tile_job import Job


class VirtualTime:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds of the net."""
        self._ends: list[float] = []  # of jobs that no tile waits of, where they are still to come
        self._background_end = 0.0  # the last of them in the background

    def reach(self, least: float) -> None:
        """Go on to a time, if it is still to come: what a job that was dropped left over is nobody's share."""
        self.now = max(self.now, least)

    def leave(self, jobs: Iterable[Job[Any]]) -> None:
        """Note jobs that no tile waits of any more: what they have had ahead of their share they still share for."""
        for job in jobs:
            if job.background:
                self._background_end = max(self._background_end, job.begins_at)
            elif job.begins_at > self.now:
                self._ends.append(job.begins_at)

    def spend(self, seconds: float, jobs: Sequence[Job[Any]], behind: int) -> None:
        """Go on by what a tile takes, in equal shares of all that have not reached their ends.

        Parameters
        ----------
        seconds
            Of the net.
        jobs
            Those that wait, which have not left; the one that the tile is of may be through.
        behind
            How many of them are in the background, which have one share together.

        """
        ends = [*self._ends, *(job.through_at(behind) for job in jobs if not job.background)]
        heapify(ends)
        background_end = max((job.through_at(behind) for job in jobs if job.background), default=0.0)
        background_end = max(background_end, self._background_end)
        while seconds > 0:
            while ends and ends[0] <= self.now:
                heappop(ends)
            in_background = background_end > self.now
            shares = len(ends) + in_background
            if not shares:
                break
            first = min(ends[0] if ends else math.inf, background_end if in_background else math.inf)
            spent = min(seconds, (first - self.now) * shares)
            self.now = first if spent < seconds else self.now + seconds / shares
            seconds -= spent
        self._ends = [end for end in self._ends if end > self.now]
