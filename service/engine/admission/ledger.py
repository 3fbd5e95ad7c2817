"""What is accepted and what is being sent, and what both hold of memory and disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from service.engine.admission.alone import megabytes
from service.engine.admission.series import Series
from service.engine.admission.sharing import seconds_until_freed
from service.engine.admission.ticket import Ticket
from service.engine.admission.unsent import Kind, Unsent
from service.engine.errors import Overloaded

NAMES: Mapping[Kind, tuple[str, str, str]] = {
    "memory_bytes": ("memory", "", "memory budget for images"),
    "disk_bytes": ("disk", " of the spool", "limit"),
}
"""Reason of a refusal, what is held of, and what its limit is called."""


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
        """Accepted work that is not through the net yet; see :attr:`.ticket.Ticket.pixels_left`."""
        return sum(ticket.pixels_left for ticket in self._tickets)

    @property
    def backlog_seconds(self) -> float:
        """Seconds that they will take at the measured throughput."""
        return sum(ticket.seconds_left for ticket in self._tickets)

    def backlog_seconds_of(self, *, background: bool) -> float:
        """Seconds of those in the background, or of those that somebody waits for."""
        return sum(ticket.seconds_left for ticket in self._tickets if ticket.background == background)

    @property
    def memory_in_use(self) -> int:
        """Bytes held by accepted requests and by answers that are being sent."""
        return self._in_use("memory_bytes")

    @property
    def disk_in_use(self) -> int:
        """Likewise of the spool folder."""
        return self._in_use("disk_bytes")

    def _in_use(self, kind: Kind, but: object | None = None) -> int:
        """Bytes held, without answers of the owner that ``but`` is."""
        held: int = sum(getattr(ticket, kind) for ticket in self._in_work())
        return held + self._unsent.held(kind, but)

    def _in_work(self) -> list[Ticket]:
        return [ticket for ticket in self._tickets if not (ticket.queued or ticket.wish)]

    def _limit(self, kind: Kind) -> int:
        return self.memory_limit if kind == "memory_bytes" else self.disk_limit

    def keep(self, memory_bytes: int, disk_bytes: int, owner: object | None = None) -> Callable[[], None]:
        """Charge an encoded answer until the returned function is called, once it is sent; any thread may call it.

        ``owner`` is :attr:`service.engine.admission.series.Series.owner`.
        """
        return self._unsent.keep(memory_bytes, disk_bytes, owner)

    def _check_free(
        self,
        kind: Kind,
        needed: int,
        series: Series,
        *,
        kept: int = 0,
        kept_s: float = 0.0,
        asking: Ticket | None = None,
    ) -> None:
        """Refuse for now what is not free beside what others hold.

        Parameters
        ----------
        kind, needed
            Bytes of what.
        series
            Its answers, charged or yet to come, must be there beside it, and are nobody else's.
        kept, kept_s
            Bytes that are kept for others, and for how many seconds at most.
        asking
            One that is accepted and may hold a part itself.

        Raises
        ------
        Overloaded

        """
        work = [ticket for ticket in self._in_work() if ticket is not asking]
        in_use = self._in_use(kind, series.owner) - (getattr(asking, kind) if asking else 0)
        ready: int = getattr(series, kind)
        missing = in_use + kept + needed + ready - self._limit(kind)
        if not needed or missing <= 0:
            return
        wait = self._wait_s(work, missing, kind, series.owner, asking)
        if missing <= kept:
            wait = min(wait, max(1, math.ceil(kept_s)))
        reason, of, name = NAMES[kind]
        others = f", {megabytes(kept)} MB are kept for what has waited longer" if kept else ""
        beside = f" beside {megabytes(ready)} MB of its other results" if ready else ""
        raise Overloaded(
            f"{self._holders(len(work), series.owner)} {megabytes(in_use)} MB{of}{others} and this "
            f"one needs {megabytes(needed)} MB{beside}, the {name} is {megabytes(self._limit(kind))} MB; try again in "
            f"{wait} s",
            reason,
            wait,
        )

    def _holders(self, in_work: int, owner: object | None) -> str:
        """Say who holds memory or disk: so many requests in work, and those whose answers are being sent."""
        return f"{in_work + self._unsent.count(owner)} requests hold"

    def _wait_s(self, work: list[Ticket], missing: int, kind: Kind, owner: object | None, asking: Ticket | None) -> int:
        """Seconds until bytes that are missing may be free: from work first, else from answers of others, too."""
        seconds = seconds_until_freed(missing, kind, work, self._tickets - {asking})
        of_answers = missing - sum(getattr(ticket, kind) for ticket in work)
        return max(1, math.ceil(max(seconds, self._unsent.seconds_until_free(of_answers, kind, owner))))
