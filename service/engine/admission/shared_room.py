"""Equal shares of memory and disk where users wait for them: who holds more keeps nobody out for good.

A user who holds nothing, or who keeps within an equal share, waits in line for what others hold, as long as there is
time for the work after it. Meanwhile whoever would exceed an equal share gets only what those in line leave; who keeps
within it goes past them, as all who do have room together.
"""

from __future__ import annotations

import asyncio

from service.engine.admission.alone import megabytes
from service.engine.admission.kept_room import KeptRoom
from service.engine.admission.ledger import NAMES
from service.engine.admission.line import Line, Place, bytes_of
from service.engine.admission.precedence import Wish
from service.engine.admission.series import Series
from service.engine.admission.unsent import KINDS, Kind
from service.engine.errors import ShareExceeded

_LOOK_S = 0.1


class SharedRoom(KeptRoom):
    """A ledger with a line of requests before it; parameters as for :class:`.KeptRoom`."""

    _line: Line

    def seconds_in_line(
        self, memory_bytes: int, disk_bytes: int, series: Series, user: str | None, most_s: float
    ) -> float:
        """Seconds for which a request that somebody waits for had better stand in line, which may be ``most_s``.

        It is 0 where it need not, or where that is no use: then it has room, or is refused.

        Raises
        ------
        ShareExceeded
            Where there is room for it which others wait for who have less.

        """
        asked = self._place(memory_bytes, disk_bytes, series, user)
        missing = {kind: self._missing(kind, asked, series) for kind in KINDS}
        if all(count <= 0 for count in missing.values()):
            return 0.0
        within, waits = self._within_share(asked), self._line.before(asked.wish.since_s)
        if (within or not self._holds(user)) and self._may_wait(asked, series, waits):
            work, owner = self._in_work(), series.owner
            seconds = max(self._wait_s(work, count, kind, owner, None) for kind, count in missing.items() if count > 0)
            if seconds <= most_s:
                return seconds
        for kind, count in missing.items():
            kept = 0 if within else bytes_of(waits, kind)
            if 0 < count <= kept:
                self._refuse(kind, asked, kept, self._wait_s(self._in_work(), count, kind, series.owner, None))
        return 0.0

    async def let_others_pass(
        self, memory_bytes: int, disk_bytes: int, series: Series, user: str | None, most_s: float
    ) -> None:
        """Stand in line until there is room, for ``most_s`` at most."""
        asked, until_s = self._place(memory_bytes, disk_bytes, series, user), self._clock() + most_s
        with self._line.joined(asked):
            # it is freed by any thread, the garbage collector's too, and these can wake nobody
            while any(self._missing(kind, asked, series) > 0 for kind in KINDS):
                if self._clock() >= until_s:
                    return
                await asyncio.sleep(_LOOK_S)

    def _place(self, memory_bytes: int, disk_bytes: int, series: Series, user: str | None) -> Place:
        return Place(user, Wish(self._clock() - series.seconds, memory_bytes, disk_bytes))

    def _missing(self, kind: Kind, asked: Place, series: Series) -> int:
        """Bytes that are not free for a request beside what is kept for others; 0 or less where enough are."""
        needed: int = getattr(asked.wish, kind)
        if not needed:
            return 0
        since_s = asked.wish.since_s
        before = 0 if self._within_share(asked) else bytes_of(self._line.before(since_s), kind)
        used: int = self._in_use(kind, series.owner) + getattr(series, kind) + self._kept_from_requests(kind, since_s)
        return used + before + needed - self._limit(kind)

    def _may_wait(self, asked: Place, series: Series, waits: list[Place]) -> bool:
        """Whether others hold what it lacks and will leave it, and it holds nothing for which they may wait."""
        alone = len(self._users(asked)) == 1 or any(place.user == asked.user for place in waits)
        holds = self._unsent.count() > self._unsent.count(series.owner)
        lasting = [self._unsent.held(kind, series.owner) + getattr(series, kind) for kind in KINDS]
        needs = [getattr(asked.wish, kind) for kind in KINDS]
        limits = [self._limit(kind) for kind in KINDS]
        leave = all(held + need <= limit for held, need, limit in zip(lasting, needs, limits, strict=True) if need)
        return not alone and not holds and leave

    def _within_share(self, asked: Place) -> bool:
        users = len(self._users(asked))
        return all(
            (self._held_by(asked, kind) + getattr(asked.wish, kind)) * users <= self._limit(kind)
            for kind in KINDS
            if getattr(asked.wish, kind)
        )

    def _held_by(self, asked: Place, kind: Kind) -> int:
        """Bytes that the user's requests hold, and wait for that came before."""
        held: int = sum(getattr(ticket, kind) for ticket in self._in_work() if ticket.user == asked.user)
        before = [place for place in self._line.before(asked.wish.since_s) if place.user == asked.user]
        return held + bytes_of(before, kind)

    def _holds(self, user: str | None) -> bool:
        return any(ticket.user == user for ticket in self._in_work())

    def _users(self, asked: Place) -> set[str | None]:
        """All who hold something, or wait for it, or ask."""
        return {asked.user} | {ticket.user for ticket in self._in_work()} | {place.user for place in self._line.places}

    @property
    def _wishes(self) -> list[Wish]:
        """Also of those in line for more than an equal share, for whom shares leave no room."""
        return [*super()._wishes, *(place.wish for place in self._line.places if not self._within_share(place))]

    def _refuse(self, kind: Kind, asked: Place, kept: int, wait_s: int) -> None:
        _, of, name = NAMES[kind]
        limit, users = self._limit(kind), len(self._users(asked))
        raise ShareExceeded(
            f"requests of the user who asks hold {megabytes(self._held_by(asked, kind))} MB{of} and this one needs "
            f"{megabytes(getattr(asked.wish, kind))} MB, {megabytes(kept)} MB are kept for users with less than an "
            f"equal share, who wait for it; the {name} is {megabytes(limit)} MB, of {users} users each may have "
            f"{megabytes(limit // users)} MB in any case; try again in {wait_s} s",
            NAMES[kind][0],
            wait_s,
        )
