"""Requests that nobody waits for: how many may be in work at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from itertools import islice

from service.engine.admission.ticket import Ticket
from service.engine.admission.turn_order import TurnOrder
from service.engine.stages.progress import Progress

_LOOK_S = 0.1


class Turns:
    """Lets so many requests into the worker threads at a time that others always find one free.

    Parameters
    ----------
    order
        Whose turn is next, and how many there are: half of the workers for calls of one size.

    """

    def __init__(self, order: TurnOrder) -> None:
        self._order = order
        self._free = order.turns
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._next = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, progress: Progress) -> AsyncIterator[None]:
        """Wait for a turn, then for room; one that somebody waits for has both at once."""
        job = progress.job
        async with self._let_in(job) if job else nullcontext():
            await self.room(progress)
            progress.begin()
            try:
                yield
            finally:
                progress.end()

    @asynccontextmanager
    async def _let_in(self, job: Ticket) -> AsyncIterator[None]:
        called = asyncio.get_running_loop().create_future()
        self._waiting[job] = called
        self._call()
        try:
            await called
        except asyncio.CancelledError:
            self._waiting.pop(job, None)
            if not called.cancelled():
                self._leave(job)
            raise
        try:
            yield
        finally:
            self._leave(job)

    def _leave(self, job: Ticket) -> None:
        """Give the turn back, and to the user what was not worked of it: it was deleted, or failed, or was late."""
        self._order.charge(job, -job.seconds_left)
        self._free += 1
        self._call()

    def _call(self) -> None:
        """Let in as many as there are turns."""
        waiting = [job for job, called in self._waiting.items() if not called.cancelled()]
        for job in islice(self._order.ordered(waiting), self._free):
            self._free -= 1
            self._order.begin(job)
            self._waiting.pop(job).set_result(None)

    async def room(self, progress: Progress) -> None:
        """Wait for what was promised to one that nobody waits for, and that has its turn, in the order of turns."""
        if progress.job:
            async with self._next:
                # it is freed by any thread, the garbage collector's too, and these can wake nobody
                while not progress.claim():  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_S)
