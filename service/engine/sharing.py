"""How requests share the net, and when they end: equal shares by its seconds, one for all in the background."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable
from itertools import accumulate

from service.engine.ticket import Ticket
from service.engine.unsent import Kind


class Shares:
    """Requests that are accepted.

    Parameters
    ----------
    tickets
        Of all of them.

    """

    def __init__(self, tickets: Iterable[Ticket]) -> None:
        tickets = [*tickets]
        self._apart = _Lengths(ticket.seconds_left for ticket in tickets if not ticket.background)
        jobs = [ticket for ticket in tickets if ticket.background]
        self._begun = _Lengths(job.seconds_left for job in jobs if not job.queued)
        self._jobs_s = sum(job.seconds_left for job in jobs)

    def through_s(self, own: Ticket) -> float:
        """Seconds until one of them is through the net; see :meth:`Admission.seconds_until_done`."""
        own_s = own.seconds_left
        if not own.background:
            return self._apart.up_to(own_s) + min(own_s, self._jobs_s)
        jobs_s = self._jobs_s if own.queued else self._begun.up_to(own_s)
        return jobs_s + self._apart.up_to(jobs_s)


class _Lengths:
    """Seconds of several requests, by length."""

    def __init__(self, seconds: Iterable[float]) -> None:
        self._seconds = sorted(seconds)
        self._sums = [*accumulate(self._seconds, initial=0.0)]

    def up_to(self, most_s: float) -> float:
        """Sum of all, each counted with so many seconds at most."""
        shorter = bisect_left(self._seconds, most_s)
        longer = len(self._seconds) - shorter
        return self._sums[shorter] + (longer * most_s if longer else 0.0)


def seconds_beside(own: Ticket, others: Iterable[Ticket]) -> float:
    """Seconds until one request is through the net beside others."""
    return Shares([*others, own]).through_s(own)


def seconds_until_freed(size: int, kind: Kind, work: Collection[Ticket], accepted: Collection[Ticket]) -> float:
    """Seconds until requests in work, which are among those accepted, leave so many bytes, or all that they hold."""
    shares, left = Shares(accepted), size
    for seconds, held in sorted(
        (shares.through_s(ticket) + ticket.finishing_left_s, getattr(ticket, kind)) for ticket in work
    ):
        left -= held
        if left <= 0:
            return seconds
    return max((shares.through_s(ticket) + ticket.finishing_left_s for ticket in work), default=0.0)
