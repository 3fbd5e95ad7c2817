"""What may come in: pixels against measured throughput, bytes against the memory budget; never a count of requests."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.engine.errors import DeadlineExceeded, Overloaded, TooLargeForMemory

_SMOOTHING = 0.2  # weight of the newest batch in the measured throughput


class Throughput:
    """Measured pixels per second of one model: useful output pixels over the seconds its batches took."""

    def __init__(self, pixels_per_second: float) -> None:
        self.pixels_per_second = pixels_per_second

    def add(self, pixels: int, seconds: float) -> None:
        """Take in one batch."""
        if pixels and seconds > 0:
            self.pixels_per_second += _SMOOTHING * (pixels / seconds - self.pixels_per_second)


@dataclass(eq=False, slots=True)
class Ticket:
    """An accepted request: what it still has to do, and the memory it was promised."""

    throughput: Throughput
    pixels_left: int
    memory_bytes: int

    def done(self, pixels: int) -> None:
        """Note finished output pixels."""
        self.pixels_left = max(0, self.pixels_left - pixels)


class Admission:
    """Ledger of accepted work.

    Parameters
    ----------
    memory_bytes
        Most memory of all accepted requests' images and results together.
    max_backlog_s
        Most seconds of work that may wait.

    """

    def __init__(self, memory_bytes: int, max_backlog_s: float) -> None:
        self._memory_bytes = memory_bytes
        self._max_backlog_s = max_backlog_s
        self._tickets: set[Ticket] = set()

    @property
    def in_flight(self) -> int:
        """Accepted requests that are not answered yet."""
        return len(self._tickets)

    @property
    def backlog_pixels(self) -> int:
        """Accepted pixels that are not through the net yet."""
        return sum(ticket.pixels_left for ticket in self._tickets)

    @property
    def backlog_seconds(self) -> float:
        """Seconds that they will take at the measured throughput."""
        return sum(ticket.pixels_left / ticket.throughput.pixels_per_second for ticket in self._tickets)

    @property
    def memory_in_use(self) -> int:
        """Bytes promised to accepted requests."""
        return sum(ticket.memory_bytes for ticket in self._tickets)

    @contextmanager
    def admit(self, throughput: Throughput, pixels: int, memory_bytes: int, timeout_s: float) -> Iterator[Ticket]:
        """Accept a request for the length of a ``with`` block.

        Parameters
        ----------
        throughput
            Of the model that is asked for.
        pixels
            Output pixels of all planes.
        memory_bytes
            What its image and result will take.
        timeout_s
            Seconds until the caller gives up.

        Raises
        ------
        TooLargeForMemory
            Where it needs more than the whole budget.
        Overloaded
            Where it would fit into an emptier service.
        DeadlineExceeded
            Where it could not be finished in time even alone.

        """
        self._check_memory(memory_bytes)
        self._check_time(pixels / throughput.pixels_per_second, pixels, timeout_s)
        ticket = Ticket(throughput, pixels, memory_bytes)
        self._tickets.add(ticket)
        try:
            yield ticket
        finally:
            self._tickets.discard(ticket)

    def _check_memory(self, needed: int) -> None:
        budget = self._memory_bytes
        if needed > budget:
            raise TooLargeForMemory(
                f"the image and its result need {_mb(needed)} MB, the memory budget for images is {_mb(budget)} MB; "
                "raise UNET_MEMORY_BUDGET_MB, or send the image in parts"
            )
        if self.memory_in_use + needed > budget:
            wait = max(1, math.ceil(self.backlog_seconds / max(1, self.in_flight)))
            raise Overloaded(
                f"{self.in_flight} requests hold {_mb(self.memory_in_use)} MB and this one needs {_mb(needed)} MB, the "
                f"memory budget for images is {_mb(budget)} MB; try again in {wait} s",
                "memory",
                wait,
            )

    def _check_time(self, own_s: float, pixels: int, timeout_s: float) -> None:
        waiting_s = self.backlog_seconds
        if self._tickets and waiting_s + own_s > self._max_backlog_s:
            wait = max(1, math.ceil(min(waiting_s, waiting_s + own_s - self._max_backlog_s)))
            raise Overloaded(
                f"{waiting_s:.0f} s of work wait and this request adds {own_s:.0f} s, the limit is "
                f"{self._max_backlog_s:.0f} s; try again in {wait} s",
                "backlog",
                wait,
            )
        if waiting_s + own_s > timeout_s:
            raise DeadlineExceeded(
                f"{pixels} pixels would be ready in about {waiting_s + own_s:.0f} s at the measured speed, the time "
                f"allowed is {timeout_s:g} s; raise the timeout or send less"
            )


def _mb(count: int) -> int:
    return math.ceil(count / 1_000_000)
