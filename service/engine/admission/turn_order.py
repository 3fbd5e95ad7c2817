"""Whose turn is next among requests that nobody waits for: users get equal shares of the net's time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heapreplace

from service.engine.admission.ticket import Ticket


class TurnOrder:
    """Lets the users whose requests have begun least go first, by seconds of the net; each user's go as they came.

    Who has had none for a while is as far as those who wait: nobody saves up.

    Parameters
    ----------
    turns
        Most requests in the background that are in work at a time.

    """

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self._level_s = 0.0
        self._begun_s: dict[str | None, float] = {}  # what is below the level counts as that

    def ordered(self, waiting: Iterable[Ticket]) -> Iterator[Ticket]:
        """Go through those that wait in the order in which they get their turns if no others come."""
        of_users: dict[str | None, deque[Ticket]] = {}
        for ticket in sorted(waiting, key=lambda ticket: ticket.number):
            of_users.setdefault(ticket.user, deque()).append(ticket)
        heads = [(self._begun(user), tickets[0].number, tickets) for user, tickets in of_users.items()]
        heapify(heads)
        while heads:
            begun_s, _, tickets = heads[0]
            ticket = tickets.popleft()
            yield ticket
            if tickets:
                heapreplace(heads, (begun_s + ticket.seconds_left, tickets[0].number, tickets))
            else:
                heappop(heads)

    def begin(self, ticket: Ticket) -> None:
        """Note that it has its turn."""
        ticket.has_turn = True
        ticket.expect(ticket.later())  # what is charged now is what is corrected later
        self._level_s = self._begun(ticket.user)
        self._begun_s = {user: seconds for user, seconds in self._begun_s.items() if seconds > self._level_s}
        self.charge(ticket, ticket.seconds_left)

    def charge(self, ticket: Ticket, seconds: float) -> None:
        """Note so many seconds of the net that one which has its turn is going to take; below 0, that it does not."""
        self._begun_s[ticket.user] = self._begun(ticket.user) + seconds

    def _begun(self, user: str | None) -> float:
        return max(self._level_s, self._begun_s.get(user, 0.0))
