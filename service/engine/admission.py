"""What may come in: pixels against measured throughput, bytes against memory and disk; never a count of requests."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from service.engine.errors import DeadlineExceeded, Overloaded, TooLargeForMemory
from service.engine.ticket import Throughput, Ticket, seconds_beside

_IDLE_DOUBT = 2.0  # an idle service tries what should be late by less than this factor: the estimate may be wrong


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
    turns
        Most requests in the background that are in work at a time.

    """

    def __init__(self, memory_bytes: int, max_backlog_s: float, disk_bytes: int = 0, turns: int = 2) -> None:
        self.memory_limit = memory_bytes
        self.disk_limit = disk_bytes
        self.turns = turns
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
        return sum(ticket.seconds_left for ticket in self._tickets)

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
        self,
        throughput: Throughput,
        pixels: int,
        memory_bytes: int,
        timeout_s: float,
        disk_bytes: int = 0,
        *,
        background: bool = False,
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
        background
            Whether nobody waits for it: then its time allowed is also the limit of what may wait.

        Raises
        ------
        TooLargeForMemory
            Where it needs more than the whole budget, of memory or of disk.
        Overloaded
            Where it would fit into an emptier service.
        DeadlineExceeded
            Where it could not be finished in time even alone.

        """
        self.check(throughput, pixels, memory_bytes, timeout_s, disk_bytes, background=background)
        ticket = Ticket(throughput, pixels, memory_bytes, disk_bytes, background)
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

    def reserve(self, memory_bytes: int) -> Callable[[], None] | None:
        """Charge memory until the returned function is called; None where it is not free.

        Raises
        ------
        TooLargeForMemory
            Where it is more than the whole budget.

        """
        if memory_bytes > self.memory_limit:
            raise TooLargeForMemory(
                f"{_mb(memory_bytes)} MB are needed to load it beside requests, the memory budget for images is "
                f"{_mb(self.memory_limit)} MB; raise UNET_MEMORY_BUDGET_MB, or restart the service to load it alone"
            )
        return self.keep(memory_bytes, 0) if self.memory_in_use + memory_bytes <= self.memory_limit else None

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

    def seconds_until_done(self, throughput: Throughput, pixels: int, *, background: bool = False) -> float:
        """Seconds until a request of so many input pixels would be through the net if it came now.

        All requests get equal shares by pixels (deficit round robin), so that of each other one no more is waited for
        than this one takes itself; those in the background count as one to all others. One in the background for
        which there is no turn now waits for all of its kind that came before.
        """
        asked = Ticket(throughput, pixels, 0, background=background, queued=background and self._turns_are_taken())
        return seconds_beside(asked, self._tickets)

    def _turns_are_taken(self) -> bool:
        jobs = [ticket for ticket in self._tickets if ticket.background and not ticket.abandoned]
        return len(jobs) >= self.turns

    def seconds_left(self, ticket: Ticket) -> float:
        """Seconds until an accepted request is through the net, counted likewise."""
        return seconds_beside(ticket, self._tickets - {ticket})

    def check(
        self,
        throughput: Throughput,
        pixels: int,
        memory_bytes: int,
        timeout_s: float,
        disk_bytes: int = 0,
        *,
        background: bool = False,
    ) -> None:
        """Refuse what :meth:`admit` would refuse now, with the same parameters and errors."""
        self._check_memory(memory_bytes)
        self._check_disk(disk_bytes)
        queued = background and self._turns_are_taken()
        asked = Ticket(throughput, pixels, memory_bytes, disk_bytes, background, queued)
        if background:
            self._check_half(asked)
        self._check_time(asked, timeout_s)

    def _check_half(self, asked: Ticket) -> None:
        """Leave half of memory and disk to those that somebody waits for; but one in the background may have it all."""
        held = [ticket for ticket in self._tickets if ticket.background]
        memory, disk = (sum(getattr(ticket, kind) for ticket in held) for kind in ("memory_bytes", "disk_bytes"))
        if held and (
            2 * (memory + asked.memory_bytes) > self.memory_limit
            or 2 * (disk + asked.disk_bytes) > max(1, self.disk_limit)
        ):
            wait = self._wait_s()
            raise Overloaded(
                f"{len(held)} jobs hold {_mb(memory)} MB of memory and {_mb(disk)} MB of the spool, this one needs "
                f"{_mb(asked.memory_bytes)} and {_mb(asked.disk_bytes)} MB, jobs may have half of "
                f"{_mb(self.memory_limit)} and {_mb(self.disk_limit)} MB; try again in {wait} s",
                "jobs",
                wait,
            )

    def _check_time(self, asked: Ticket, timeout_s: float) -> None:
        # one that somebody waits for passes those in the background
        ahead = [ticket for ticket in self._tickets if asked.background or not ticket.background]
        waiting_s, own_s = sum(ticket.seconds_left for ticket in ahead), asked.seconds_left
        limit_s = timeout_s if asked.background else self._max_backlog_s
        if ahead and waiting_s + own_s > limit_s:
            wait = max(1, math.ceil(min(waiting_s, waiting_s + own_s - limit_s)))
            raise Overloaded(
                f"{waiting_s:.0f} s of work wait and this request adds {own_s:.0f} s, the limit is "
                f"{limit_s:.0f} s; try again in {wait} s",
                "backlog",
                wait,
            )
        ready_s = seconds_beside(asked, self._tickets)
        if ready_s > timeout_s * (1.0 if self._tickets else _IDLE_DOUBT):
            raise DeadlineExceeded(
                f"{asked.pixels_left} pixels, margins of tiles included, would be ready in about {ready_s:.0f} s at "
                f"the measured speed, the time allowed is {timeout_s:g} s; raise the timeout or send less"
            )


def _mb(count: int) -> int:
    return math.ceil(count / 1_000_000)
