"""What may come in: pixels against measured throughput, bytes against memory and disk; never a count of requests."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from service.engine.errors import DeadlineExceeded, Overloaded, TooLargeForMemory

_MEMORY_S = 10.0  # a batch's share in the measured throughput fades to 1/e while this many seconds of others follow
_IDLE_DOUBT = 2.0  # an idle service tries what should be late by less than this factor: the estimate may be wrong


class Throughput:
    """Measured speed of one model, input pixels of tiles per second of its batches.

    Input pixels, margins included, are what a tile costs: of a 1x1 image nearly all is margin. Pixels and seconds fade
    together, so that a batch counts by the time it took and many small ones do not drown a large one.
    """

    def __init__(self, pixels_per_second: float) -> None:
        self._pixels = pixels_per_second
        self._seconds = 1.0

    @property
    def pixels_per_second(self) -> float:
        """The estimate."""
        return self._pixels / self._seconds

    def add(self, pixels: int, seconds: float) -> None:
        """Take in one batch."""
        if pixels and seconds > 0:
            kept = math.exp(-seconds / _MEMORY_S)
            self._pixels = kept * self._pixels + pixels
            self._seconds = kept * self._seconds + seconds


@dataclass(eq=False, slots=True)
class Ticket:
    """An accepted request: what it still has to do, and the memory and disk it was promised."""

    throughput: Throughput
    pixels_left: int
    memory_bytes: int
    disk_bytes: int = 0
    abandoned: bool = False
    """Nobody waits for it any more."""
    _threads: set[Future[Any]] = field(default_factory=set)

    def done(self, pixels: int) -> None:
        """Note finished input pixels."""
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

    def runs(self, thread: Future[Any]) -> None:
        """Note a call in a worker thread: it holds the ticket's memory, whether or not anybody still waits for it."""
        self._threads = {other for other in self._threads if not other.done()} | {thread}

    def still_running(self) -> list[Future[Any]]:
        """Calls that have not ended."""
        return [thread for thread in self._threads if not thread.done()]


@dataclass(eq=False, frozen=True, slots=True)
class _Finished:
    """An encoded answer that its client has not received yet."""

    memory_bytes: int
    disk_bytes: int


class Admission:
    """Ledger of accepted work, and of finished work that is being sent.

    Parameters
    ----------
    memory_bytes
        Most memory of all accepted requests' images and results together.
    max_backlog_s
        Most seconds of work that may wait.
    disk_bytes
        Most room in the spool folder for all accepted requests together.

    """

    def __init__(self, memory_bytes: int, max_backlog_s: float, disk_bytes: int = 0) -> None:
        self.memory_limit = memory_bytes
        self.disk_limit = disk_bytes
        self._max_backlog_s = max_backlog_s
        self._tickets: set[Ticket] = set()
        self._finished: set[_Finished] = set()
        self._sent: deque[_Finished] = deque()  # filled by any thread, the garbage collector's too

    @property
    def in_flight(self) -> int:
        """Accepted requests that are not answered yet."""
        return len(self._tickets)

    @property
    def backlog_pixels(self) -> int:
        """Accepted input pixels that are not through the net yet."""
        return sum(ticket.pixels_left for ticket in self._tickets)

    @property
    def backlog_seconds(self) -> float:
        """Seconds that they will take at the measured throughput."""
        return sum(ticket.pixels_left / ticket.throughput.pixels_per_second for ticket in self._tickets)

    @property
    def memory_in_use(self) -> int:
        """Bytes promised to accepted requests, and held by answers that are being sent."""
        return sum(holder.memory_bytes for holder in self._holders())

    @property
    def disk_in_use(self) -> int:
        """Bytes of the spool folder promised to accepted requests, and held by answers that are being sent."""
        return sum(holder.disk_bytes for holder in self._holders())

    def _holders(self) -> set[Ticket | _Finished]:
        while self._sent:
            self._finished.discard(self._sent.popleft())
        return self._tickets | self._finished

    @contextmanager
    def admit(
        self, throughput: Throughput, pixels: int, memory_bytes: int, timeout_s: float, disk_bytes: int = 0
    ) -> Iterator[Ticket]:
        """Accept a request for the length of a ``with`` block.

        Parameters
        ----------
        throughput
            Of the model that is asked for.
        pixels
            Input pixels of all tiles of all planes.
        memory_bytes
            What its image and result will take.
        timeout_s
            Seconds until the caller gives up.
        disk_bytes
            What it will take of the spool folder.

        Raises
        ------
        TooLargeForMemory
            Where it needs more than the whole budget, of memory or of disk.
        Overloaded
            Where it would fit into an emptier service.
        DeadlineExceeded
            Where it could not be finished in time even alone.

        """
        self.check(throughput, pixels, memory_bytes, timeout_s, disk_bytes)
        ticket = Ticket(throughput, pixels, memory_bytes, disk_bytes)
        self._tickets.add(ticket)
        try:
            yield ticket
        finally:
            # nobody waits for its tiles any more, but a thread that cannot be stopped keeps its memory until it ends
            ticket.pixels_left = 0
            ticket.abandoned = True
            threads = ticket.still_running()
            if threads:
                loop = asyncio.get_running_loop()
                for thread in threads:
                    thread.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave, ticket))
            else:
                self._tickets.discard(ticket)

    def _leave(self, ticket: Ticket) -> None:
        if not ticket.still_running():
            self._tickets.discard(ticket)

    def keep(self, memory_bytes: int, disk_bytes: int) -> Callable[[], None]:
        """Charge an encoded answer until the returned function is called, once it is sent; any thread may call it."""
        finished = _Finished(memory_bytes, disk_bytes)
        self._finished.add(finished)
        return partial(self._sent.append, finished)

    def grow(self, ticket: Ticket, memory_bytes: int) -> None:
        """Promise an accepted request more memory, once its content shows that it needs it.

        Raises
        ------
        TooLargeForMemory, Overloaded
            As for :meth:`admit`.

        """
        self._check_memory(memory_bytes, ticket.memory_bytes)
        ticket.memory_bytes += memory_bytes

    def _check_memory(self, needed: int, held: int = 0) -> None:
        budget = self.memory_limit - held
        if needed > budget:
            raise TooLargeForMemory(
                f"the image and its result need {_mb(needed)} MB, the memory budget for images is {_mb(budget)} MB; "
                "raise UNET_MEMORY_BUDGET_MB, or send the image in parts"
            )
        if self.memory_in_use - held + needed > budget:
            wait = self._wait_s()
            raise Overloaded(
                f"{len(self._holders())} requests hold {_mb(self.memory_in_use)} MB and this one needs "
                f"{_mb(needed)} MB, the memory budget for images is {_mb(budget)} MB; try again in {wait} s",
                "memory",
                wait,
            )

    def _check_disk(self, needed: int) -> None:
        if needed > self.disk_limit:
            raise TooLargeForMemory(
                f"the image and its result need {_mb(needed)} MB in files, the spool's limit is {_mb(self.disk_limit)} "
                "MB; raise UNET_SPOOL_LIMIT_MB on a disk that is larger (UNET_SPOOL_DIR), or send the image in parts"
            )
        if self.disk_in_use + needed > self.disk_limit and needed:
            wait = self._wait_s()
            raise Overloaded(
                f"{len(self._holders())} requests hold {_mb(self.disk_in_use)} MB of the spool and this one needs "
                f"{_mb(needed)} MB, the limit is {_mb(self.disk_limit)} MB; try again in {wait} s",
                "disk",
                wait,
            )

    def _wait_s(self) -> int:
        return max(1, math.ceil(self.backlog_seconds / max(1, self.in_flight)))

    def seconds_until_done(self, throughput: Throughput, pixels: int) -> float:
        """Seconds until a request of so many input pixels would be through the net if it came now.

        All requests get equal shares by pixels (deficit round robin), so that of each other one no more is waited for
        than this one takes itself.
        """
        own_s = pixels / throughput.pixels_per_second
        return own_s + sum(
            min(own_s, ticket.pixels_left / ticket.throughput.pixels_per_second) for ticket in self._tickets
        )

    def check(
        self, throughput: Throughput, pixels: int, memory_bytes: int, timeout_s: float, disk_bytes: int = 0
    ) -> None:
        """Refuse what :meth:`admit` would refuse now, with the same parameters and errors."""
        self._check_memory(memory_bytes)
        self._check_disk(disk_bytes)
        self._check_time(throughput, pixels, timeout_s)

    def _check_time(self, throughput: Throughput, pixels: int, timeout_s: float) -> None:
        waiting_s, own_s = self.backlog_seconds, pixels / throughput.pixels_per_second
        if self._tickets and waiting_s + own_s > self._max_backlog_s:
            wait = max(1, math.ceil(min(waiting_s, waiting_s + own_s - self._max_backlog_s)))
            raise Overloaded(
                f"{waiting_s:.0f} s of work wait and this request adds {own_s:.0f} s, the limit is "
                f"{self._max_backlog_s:.0f} s; try again in {wait} s",
                "backlog",
                wait,
            )
        ready_s = self.seconds_until_done(throughput, pixels)
        if ready_s > timeout_s * (1.0 if self._tickets else _IDLE_DOUBT):
            raise DeadlineExceeded(
                f"{pixels} pixels, margins of tiles included, would be ready in about {ready_s:.0f} s at the "
                f"measured speed, the time allowed is {timeout_s:g} s; raise the timeout or send less"
            )


def _mb(count: int) -> int:
    return math.ceil(count / 1_000_000)
