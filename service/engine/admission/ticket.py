"""What one accepted request still has to do, at what speed, and what it was promised."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeAlias

from service.engine.admission.precedence import Wish
from service.engine.admission.series import SINGLE, Series
from service.engine.admission.unsent import MOST_S

Later: TypeAlias = Callable[[], float]
"""Tells how much work should follow what is accepted; see :meth:`.Admission.admit`."""
_MEMORY_S = 10.0  # a batch's share in the measured throughput fades to 1/e while this many seconds of others follow


class Throughput:
    """Measured speed of one model, work of tiles per second of its batches.

    Work is counted in input pixels, margins included, as those of a typical tile take time: of a 1x1 image nearly all
    is margin. See :meth:`.LoadedModel.tile_work`. Pixels and seconds fade together, so that a batch counts by the time
    it took and many small ones do not drown a large one.

    Parameters
    ----------
    pixels_per_second
        What is believed before the first batch.
    clock
        Seconds.

    """

    def __init__(self, pixels_per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pixels = pixels_per_second
        self._seconds = 1.0
        self._clock = clock
        self._measured_at = -math.inf  # a start on a busy machine says little of what comes after it

    @property
    def pixels_per_second(self) -> float:
        """The estimate."""
        return self._pixels / self._seconds

    @property
    def age_s(self) -> float:
        """Seconds since the last batch or trial; infinite before the first."""
        return self._clock() - self._measured_at

    def add(self, pixels: int, seconds: float) -> None:
        """Take in one batch."""
        if pixels and seconds > 0:
            kept = math.exp(-seconds / _MEMORY_S)
            self._pixels = kept * self._pixels + pixels
            self._seconds = kept * self._seconds + seconds
            self._measured_at = self._clock()

    def tried(self, pixels_per_second: float, *, alone: bool) -> None:
        """Take in a trial; beside batches of others it counts only where it was faster than what is known."""
        if pixels_per_second > self.pixels_per_second or (alone and pixels_per_second > 0):
            self._pixels, self._seconds = pixels_per_second, 1.0
        self._measured_at = self._clock()


@dataclass(eq=False, slots=True)
class Ticket:
    """An accepted request: what it still has to do, and the memory and disk it was promised."""

    throughput: Throughput
    pixels_left: int
    """Work; see :meth:`service.engine.packages.loading.LoadedModel.work`."""
    memory_bytes: int
    disk_bytes: int = 0
    background: bool = False
    """Nobody waits for it: together such requests get the share of one."""
    user: str | None = None
    """Whose it is; users have equal shares where there is not enough for all."""
    queued: bool = False
    """In the background, and behind others: nothing of it is done, and it holds nothing, before it is its turn."""
    has_turn: bool = False
    """In the background, and let in: nothing but memory and disk is waited for."""
    wish: Wish | None = None
    """It is its turn, and others still hold what it was promised: it holds nothing yet."""
    abandoned: bool = False
    """Nobody wants it any more."""
    series: Series = SINGLE
    """What its caller has ready beside it."""
    later: Later = lambda: 0.0
    """Work that should follow what prepares it, which alone is accepted by now."""
    finishing_s: float = 0.0
    """Seconds that it will take beside the net at least; 0 where that is not known."""
    beside: Callable[[], float] = lambda: 0.0
    """Seconds that it has taken beside the net by now; the search of its scale, once that is over, left out."""
    over: ExitStack = field(default_factory=ExitStack)
    """Closed once nobody waits for it any more, and no thread is at it: what it was promised is free then."""
    number: int = field(default_factory=count().__next__)
    """Larger than those of all that came before."""
    _threads: dict[Future[Any], int] = field(default_factory=dict)  # and the work of the tiles that each runs

    @property
    def waits_for_turn(self) -> bool:
        """Whether others in the background go before it."""
        return self.queued and not self.has_turn

    @property
    def seconds_left(self) -> float:
        """What it would still take with nobody else there."""
        return self.pixels_left / self.throughput.pixels_per_second + self.later_s

    @property
    def later_s(self) -> float:
        """What of that is not accepted yet."""
        return self.later() / self.throughput.pixels_per_second

    @property
    def waiting_s(self) -> float:
        """Likewise without the tiles that are in the net now."""
        in_net = sum(pixels for thread, pixels in self._threads.items() if not thread.done())
        return max(0, self.pixels_left - in_net) / self.throughput.pixels_per_second + self.later_s

    @property
    def finishing_left_s(self) -> float:
        """What it would still take beside the net; once through it, and at it for longer than known, as long again."""
        taken_s = self.beside()
        if taken_s < self.finishing_s:
            return self.finishing_s - taken_s
        return 0.0 if self.pixels_left or self.later() or self.abandoned else min(taken_s, MOST_S)

    def expect(self, pixels: float) -> None:
        """Note how much work should follow, whatever else is found from now on; 0 once it is accepted, or unwanted."""
        self.later = lambda: pixels

    def done(self, pixels: int) -> None:
        """Note finished work."""
        self.pixels_left = max(0, self.pixels_left - pixels)

    def check_wanted(self) -> None:
        """For threads that work on the request, now and then.

        Raises
        ------
        concurrent.futures.CancelledError
            Where nobody waits for it any more.

        """
        if self.abandoned:
            raise CancelledError("nobody waits for this request any more")

    def runs(self, thread: Future[Any], pixels: int = 0) -> None:
        """Note a call in a thread, which runs tiles of so much work.

        It holds the ticket's memory, whether or not anybody still waits for it.
        """
        self.still_running()
        self._threads[thread] = pixels

    def still_running(self) -> list[Future[Any]]:
        """Calls that have not ended; what the others gave, or failed with, is let go."""
        self._threads = {thread: pixels for thread, pixels in self._threads.items() if not thread.done()}
        return [*self._threads]
