"""How requests share the net, and when they end: equal shares by its seconds, one for all in the background."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable
from heapq import heapify, heappop, heappush
from itertools import accumulate
from operator import attrgetter

from service.engine.admission.ticket import Ticket
from service.engine.admission.turn_order import TurnOrder
from service.engine.admission.unsent import Kind


class Shares:
    """Requests that are accepted.

    Parameters
    ----------
    tickets
        Of all of them.
    left_s
        What counts of each.

    """

    def __init__(
        self, tickets: Iterable[Ticket], left_s: Callable[[Ticket], float] = attrgetter("seconds_left")
    ) -> None:
        tickets = [*tickets]
        self._apart = _Lengths(left_s(ticket) for ticket in tickets if not ticket.background)
        jobs = [ticket for ticket in tickets if ticket.background]
        self._begun = _Lengths(left_s(job) for job in jobs if not job.waits_for_turn)
        self._jobs_s = sum(left_s(job) for job in jobs)

    def through_s(self, own: Ticket) -> float:
        """Seconds until one of them that has its turn is through the net; see :meth:`Admission.seconds_until_done`."""
        own_s = own.seconds_left
        if not own.background:
            return self._apart.up_to(own_s) + min(own_s, self._jobs_s)
        return self.behind_s(self._begun.up_to(own_s))

    def behind_s(self, jobs_s: float) -> float:
        """Seconds until all in the background together have had so many of the net."""
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


def seconds_beside(own: Ticket, others: Iterable[Ticket], order: TurnOrder) -> float:
    """Seconds until one request is through the net beside others, if no more come."""
    tickets = [*others, own]
    shares = Shares(tickets)
    return shares.behind_s(_until_through(own, tickets, order)) if own.waits_for_turn else shares.through_s(own)


def seconds_of_newcomer(own: Ticket, others: Iterable[Ticket], order: TurnOrder, busy_s: float) -> float:
    """Likewise for one none of whose tiles waits yet: first comes what is left of the batches in work, ``busy_s``."""
    if own.background:
        return seconds_beside(own, others, order)
    return busy_s + Shares([*others, own], attrgetter("waiting_s")).through_s(own)


def _until_through(own: Ticket, tickets: Iterable[Ticket], order: TurnOrder) -> float:
    """Seconds of the net that all in the background take until one that waits for its turn is through it.

    Those in work have equal shares, so that each is through once all have had as much of the net as it takes.
    """
    jobs = [ticket for ticket in tickets if ticket.background]
    work = [(job.seconds_left, job.number) for job in jobs if not job.waits_for_turn]
    heapify(work)
    waiting = order.ordered(job for job in jobs if job.waits_for_turn)
    each_s = all_s = 0.0
    while True:
        while len(work) < order.turns and (following := next(waiting, None)):
            heappush(work, (each_s + following.seconds_left, following.number))
        before_s, (each_s, number) = each_s, work[0]
        all_s += (each_s - before_s) * len(work)
        if number == own.number:
            return all_s
        heappop(work)


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
