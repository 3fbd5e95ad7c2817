"""What may come in: pixels against measured throughput, bytes against memory and disk; never a count of requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.engine.admission.alone import check_disk_alone, check_memory_alone
from service.engine.admission.backlog import check_deadline, check_time
from service.engine.admission.line import Line, bytes_of
from service.engine.admission.precedence import Wish
from service.engine.admission.series import SINGLE, Series
from service.engine.admission.shared_room import SharedRoom
from service.engine.admission.sharing import seconds_beside, seconds_of_newcomer
from service.engine.admission.ticket import Later, Throughput, Ticket
from service.engine.admission.turn_order import TurnOrder
from service.engine.admission.unsent import KINDS


class Admission(SharedRoom):
    """Accepts work as long as there is room and time for it.

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
    clock
        Seconds, from any start.

    """

    def __init__(
        self,
        memory_bytes: int,
        max_backlog_s: float,
        disk_bytes: int = 0,
        turns: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # a worker is left to those that wait for none
        super().__init__(memory_bytes, disk_bytes, turns - 1, clock)
        self._line = Line()
        self.order = TurnOrder(turns)
        """Whose turn is next in the background."""
        self.busy_s: Callable[[], float] = lambda: 0.0
        """Seconds until the net is free for who comes now; see :attr:`.scheduler.Scheduler.busy_s`."""
        self._max_backlog_s = max_backlog_s

    @contextmanager
    def admit(
        self,
        throughput: Throughput,
        pixels: int,
        memory_bytes: int,
        timeout_s: float,
        disk_bytes: int = 0,
        *,
        finishing_s: float = 0.0,
        background: bool = False,
        user: str | None = None,
        series: Series = SINGLE,
        later: Later | None = None,
    ) -> Iterator[Ticket]:
        """Accept a request for the length of a ``with`` block.

        Parameters
        ----------
        throughput
            Of the model that is asked for.
        pixels
            What its tiles take of the net; see :meth:`service.engine.packages.loading.LoadedModel.work`.
        memory_bytes
            What its image and result will take.
        timeout_s
            Seconds until the caller gives up.
        disk_bytes
            What it will take of the spool folder.
        finishing_s
            Seconds that it will take beside the net at least; 0 where that is not known.
        background
            Whether nobody waits for it: then its time allowed is also the limit of what may wait, and it holds nothing
            before it makes its :meth:`claim`.
        user
            Whose it is: users share turns in the background, the limits of what may wait, and memory and disk.
        series
            What goes to the same caller: its answers must be there beside the result, and are not counted as others'.
        later
            Tells what work should follow, for which :meth:`go_on` asks: it counts among what may wait, and not for the
            request's own deadline.

        Raises
        ------
        TooLargeForMemory
            Where it needs more than the whole budget, of memory or of disk.
        Overloaded
            Where it would fit into an emptier service.
        ShareExceeded
            Where it would fit if its user had less than an equal share of what is in work.
        DeadlineExceeded
            Where it could not be finished in time even alone.

        """
        held = throughput, pixels, memory_bytes
        self.check(
            *held,
            timeout_s,
            disk_bytes,
            finishing_s=finishing_s,
            background=background,
            user=user,
            series=series,
            later=later,
        )
        ticket = Ticket(*held, disk_bytes, background, user, queued=background, series=series)
        ticket.finishing_s, ticket.later = finishing_s, later or ticket.later
        self._tickets.add(ticket)
        try:
            yield ticket
        finally:
            # nobody waits for its tiles any more, but a thread that cannot be stopped keeps its memory until it ends
            ticket.pixels_left = 0
            ticket.expect(0)
            ticket.abandoned = True
            threads = ticket.still_running()
            if threads:
                loop = asyncio.get_running_loop()
                for thread in threads:
                    thread.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave, ticket))
            else:
                self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        if not ticket.still_running():
            ticket.over.close()
            self._tickets.discard(ticket)

    def claim(self, ticket: Ticket) -> bool:
        """Charge a request in the background, whose turn it is, with what it was promised; one at a time.

        Those in work in the background leave half of memory and disk to those that somebody waits for, but one alone
        may have it all; until they do, this one keeps nobody out. Then it goes before requests that come later, as
        :class:`Precedence` says, and never before those in line since before that, what grows or a package.

        Returns
        -------
        Whether there is room for it; where there is not, ask again.

        """
        if ticket.queued and not self._half_is_left(ticket):
            return False
        wish = ticket.wish or Wish(self._clock(), ticket.memory_bytes, ticket.disk_bytes)
        ticket.queued, ticket.wish = False, wish
        before = self._line.before(wish.since_s)
        kept = {kind: self._kept(kind) + bytes_of(before, kind) for kind in KINDS}
        if all(self._in_use(kind) + kept[kind] + getattr(wish, kind) <= self._limit(kind) for kind in KINDS):
            ticket.wish = None
        return ticket.wish is None

    def _half_is_left(self, asked: Ticket) -> bool:
        jobs = [ticket for ticket in self._in_work() if ticket.background]
        memory, disk = (sum(getattr(job, kind) for job in [*jobs, asked]) for kind in ("memory_bytes", "disk_bytes"))
        return not jobs or (2 * memory <= self.memory_limit and 2 * disk <= self.disk_limit)

    async def grow(self, ticket: Ticket, memory_bytes: int) -> None:
        """Promise an accepted request more memory, once its content shows that it needs it; see :meth:`Growth.wait`.

        Raises
        ------
        TooLargeForMemory, Overloaded
            As for :meth:`admit`.
        concurrent.futures.CancelledError
            Where nobody waits for it any more.

        """
        needed = ticket.memory_bytes + memory_bytes
        check_memory_alone(needed, self.memory_limit, ticket.series.memory_bytes)
        if not await self._growth.wait(ticket, memory_bytes):
            self._check_free("memory_bytes", needed, ticket.series, asking=ticket)
        ticket.memory_bytes = needed

    async def go_on(
        self,
        ticket: Ticket,
        pixels: int,
        memory_bytes: int,
        timeout_s: float,
        disk_bytes: int = 0,
        *,
        patient: bool,
        finishing_s: float = 0.0,
        series: Series = SINGLE,
    ) -> None:
        """Promise a request, once what prepares it is done, what its work takes in place of what that took.

        Where somebody waits for it, it keeps what it holds until more is there. In the background it keeps its place,
        and holds nothing before its next :meth:`claim`.

        Parameters
        ----------
        ticket
            Of the request.
        pixels, memory_bytes, timeout_s, disk_bytes, finishing_s, series
            As for :meth:`admit`.
        patient
            Whether it waits for memory that others hold, as in :meth:`grow`, where somebody waits for it.

        Raises
        ------
        TooLargeForMemory, Overloaded, DeadlineExceeded
            As for :meth:`admit`; one in the background has had its turn, and waits for no others.

        """
        check_memory_alone(memory_bytes, self.memory_limit, series.memory_bytes)
        check_disk_alone(disk_bytes, self.disk_limit, series.disk_bytes)
        user, background = ticket.user, ticket.background
        asked = Ticket(ticket.throughput, pixels, memory_bytes, disk_bytes, background, user, series=series)
        asked.finishing_s = finishing_s
        others = self._tickets - {ticket}
        if ticket.background:
            check_deadline(asked, others, timeout_s, self.order, busy_s=self.busy_s())
            self.order.charge(ticket, asked.seconds_left - ticket.later_s)
            ticket.queued = True
        else:
            check_time(asked, others, timeout_s, self._max_backlog_s, self.order, busy_s=self.busy_s())
            self._check_free("disk_bytes", disk_bytes, series, asking=ticket)
            if not (patient and await self._growth.wait(ticket, memory_bytes - ticket.memory_bytes)):
                self._check_free("memory_bytes", memory_bytes, series, asking=ticket)
        ticket.pixels_left, ticket.memory_bytes, ticket.disk_bytes = pixels, memory_bytes, disk_bytes
        ticket.finishing_s = finishing_s
        ticket.expect(0)

    def seconds_until_done(
        self, throughput: Throughput, pixels: int, *, background: bool = False, user: str | None = None
    ) -> float:
        """Seconds until a request of so many pixels would be through the net if it came now.

        All requests get equal shares by seconds of the net (fair queueing), so that of each other one no more is waited
        for than this one takes itself, after the batches in work; those in the background count as one to all others.
        One in the background for which there is no turn now waits for those of its kind that get one before it.
        """
        asked = Ticket(throughput, pixels, 0, background=background, user=user, queued=background)
        return seconds_of_newcomer(asked, self._tickets, self.order, self.busy_s())

    def jobs_before(self, ticket: Ticket) -> int:
        """How many get their turn before an accepted request in the background that waits for its own."""
        waiting = self.order.ordered(each for each in self._tickets if each.waits_for_turn)
        return next(place for place, each in enumerate(waiting) if each is ticket)

    def seconds_left(self, ticket: Ticket) -> float:
        """Seconds until an accepted request is through the net, counted likewise."""
        return seconds_beside(ticket, self._tickets - {ticket}, self.order)

    def check(
        self,
        throughput: Throughput,
        pixels: int,
        memory_bytes: int,
        timeout_s: float,
        disk_bytes: int = 0,
        *,
        finishing_s: float = 0.0,
        background: bool = False,
        user: str | None = None,
        series: Series = SINGLE,
        later: Later | None = None,
    ) -> None:
        """Refuse what :meth:`admit` would refuse now, with the same parameters and errors."""
        check_memory_alone(memory_bytes, self.memory_limit, series.memory_bytes)
        check_disk_alone(disk_bytes, self.disk_limit, series.disk_bytes)
        if not background:  # else it waits for its turn without them
            self.check_room(memory_bytes, disk_bytes, series)
        asked = Ticket(throughput, pixels, memory_bytes, disk_bytes, background, user, background, series=series)
        asked.finishing_s, asked.later = finishing_s, later or asked.later
        check_time(asked, self._tickets, timeout_s, self._max_backlog_s, self.order, busy_s=self.busy_s())

    def check_room(self, memory_bytes: int, disk_bytes: int, series: Series) -> None:
        """Refuse what has no room now beside what others hold, and what is kept for them, by :class:`Overloaded`."""
        for kind, needed in zip(KINDS, (memory_bytes, disk_bytes), strict=True):
            kept = self._kept_from_requests(kind, self._clock() - series.seconds)
            self._check_free(kind, needed, series, kept=kept, kept_s=self._precedence.seconds_left)
