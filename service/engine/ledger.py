"""What is accepted and what is being sent, and what both hold of memory and disk."""

from __future__ import annotations

from collections.abc import Callable

from service.engine.ticket import Ticket
from service.engine.unsent import Kind, Unsent


class Ledger:
    """Accepted requests, and finished work that is being sent.

    Parameters
    ----------
    memory_bytes, disk_bytes
        What there is for both together.
    clock
        Seconds, from any start.

    """

    def __init__(self, memory_bytes: int, disk_bytes: int, clock: Callable[[], float]) -> None:
        self.memory_limit = memory_bytes
        self.disk_limit = disk_bytes
        self._tickets: set[Ticket] = set()
        self._unsent = Unsent(clock)

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
        """Bytes held by accepted requests and by answers that are being sent."""
        return self._in_use("memory_bytes")

    @property
    def disk_in_use(self) -> int:
        """Likewise of the spool folder."""
        return self._in_use("disk_bytes")

    def _in_use(self, kind: Kind) -> int:
        held: int = sum(getattr(ticket, kind) for ticket in self._in_work())
        return held + self._unsent.held(kind)

    def _in_work(self) -> list[Ticket]:
        return [ticket for ticket in self._tickets if not (ticket.queued or ticket.wish)]

    def _limit(self, kind: Kind) -> int:
        return self.memory_limit if kind == "memory_bytes" else self.disk_limit

    def keep(self, memory_bytes: int, disk_bytes: int) -> Callable[[], None]:
        """Charge an encoded answer until the returned function is called, once it is sent; any thread may call it."""
        return self._unsent.keep(memory_bytes, disk_bytes)
