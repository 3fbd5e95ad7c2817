"""Requests whose content turned out to need more memory than was promised: they wait for it, for they are computed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from service.engine.admission.precedence import Wish
from service.engine.admission.ticket import Ticket

_LOOK_S = 0.1
_PATIENCE_S = 10.0  # of one that somebody waits for, who had better ask again then


class Growth:
    """Those that wait; each holds memory itself, so that they must not wait for one another.

    Parameters
    ----------
    limit
        Bytes that there are.
    held
        Bytes that are held.
    places
        How many that somebody waits for may wait at a time: each may keep a worker thread.
    clock
        Seconds, from any start.

    """

    def __init__(self, limit: int, held: Callable[[], int], places: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._held = held
        self._places = places
        self._clock = clock
        self._asked: dict[Ticket, Wish] = {}  # in their order

    @property
    def wishes(self) -> list[Wish]:
        """What each waits for."""
        return list(self._asked.values())

    def __contains__(self, ticket: Ticket) -> bool:
        """Whether it waits."""
        return ticket in self._asked

    async def wait(self, ticket: Ticket, memory_bytes: int) -> bool:
        """Wait until bytes are free: one in the background for as long as it may take, others for a little.

        Returns
        -------
        Whether they are; False, too, where none would have enough though nothing were held but by those that wait:
        then the last of those that somebody waits for gives up, or where there are none, the last.

        Raises
        ------
        concurrent.futures.CancelledError
            Where nobody waits for the request any more.

        """
        if not ticket.background and sum(not other.background for other in self._asked) >= self._places:
            return self._fits(memory_bytes)
        since_s = self._clock()
        self._asked[ticket] = Wish(since_s, memory_bytes)
        try:
            # it is freed by any thread, the garbage collector's too, and these can wake nobody
            while not self._fits(memory_bytes):
                if self._gives_up(ticket) or (not ticket.background and self._clock() - since_s >= _PATIENCE_S):
                    return False
                await asyncio.sleep(_LOOK_S)
                ticket.check_wanted()
            return True
        finally:
            del self._asked[ticket]

    def _fits(self, memory_bytes: int) -> bool:
        return self._held() + memory_bytes <= self._limit

    def _gives_up(self, asked: Ticket) -> bool:
        held = sum(ticket.memory_bytes for ticket in self._asked)
        if any(held + wish.memory_bytes <= self._limit for wish in self._asked.values()):
            return False
        latest = [*reversed(self._asked)]
        return asked is next((ticket for ticket in latest if not ticket.background), latest[0])
