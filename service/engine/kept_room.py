"""What is kept of memory and disk for what waits for it, and packages that wait, or are loaded while requests run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

from service.engine.alone import check_load_alone, megabytes
from service.engine.comebacks import Comebacks
from service.engine.errors import Overloaded, ShareExceeded
from service.engine.growth import Growth
from service.engine.ledger import WORDS, Ledger
from service.engine.package_room import PackageRoom
from service.engine.precedence import Precedence, Wish
from service.engine.series import Series
from service.engine.unsent import KINDS, Kind


class KeptRoom(Ledger):
    """A ledger in which what has waited goes before what comes later.

    Parameters
    ----------
    memory_bytes, disk_bytes, clock
        As for :class:`~service.engine.ledger.Ledger`.
    places
        As for :class:`~service.engine.growth.Growth`.

    """

    def __init__(self, memory_bytes: int, disk_bytes: int, places: int, clock: Callable[[], float]) -> None:
        super().__init__(memory_bytes, disk_bytes, clock)
        self._clock = clock
        self._package = PackageRoom()
        self._comebacks = Comebacks(clock)
        self._precedence = Precedence(self._limit, self._lasting, clock)
        self._growth = Growth(memory_bytes, lambda: self.memory_in_use, places, clock)

    def _lasting(self, kind: Kind) -> int:
        """What does not go with the requests in work: answers that clients take, jobs, and requests that wait."""
        lasting = [ticket for ticket in self._in_work() if ticket.background or ticket in self._growth]
        held: int = sum(getattr(ticket, kind) for ticket in lasting)
        return held + self._unsent.held(kind)

    def _kept(self, kind: Kind, jobs: Iterable[Wish] = ()) -> int:
        """Bytes that are kept for what waits: what grows, a package, and jobs."""
        return self._precedence.bytes_kept(kind, [*self._growth.wishes, *self._package.wishes, *jobs])

    def _kept_from_requests(self, kind: Kind) -> int:
        return self._kept(kind, self._wishes_of_jobs)

    @property
    def _wishes_of_jobs(self) -> list[Wish]:
        return [ticket.wish for ticket in self._tickets if ticket.wish]

    def _holders(self, in_work: int, owner: object | None) -> str:
        if not self._package.held:
            return super()._holders(in_work, owner)
        requests = in_work + self._unsent.count(owner) - 1  # what a package holds is kept as an answer is
        return f"{requests} requests and a package hold" if requests else "a package holds"

    def check_room(self, memory_bytes: int, disk_bytes: int, series: Series, user: str | None = None) -> None:
        """Refuse what has no room now beside what others hold, and what is kept for them.

        Raises
        ------
        Overloaded
            Where there is none for anybody.
        ShareExceeded
            Where it is kept for users who were refused, and this one would have more than an equal share with it.

        """
        for kind, needed in zip(KINDS, (memory_bytes, disk_bytes), strict=True):
            kept = self._kept_from_requests(kind)
            self._check_free(kind, needed, series, kept=kept, kept_s=self._precedence.seconds_left)
            self._check_share(kind, needed, series, kept, user)

    def _check_share(self, kind: Kind, needed: int, series: Series, kept: int, user: str | None) -> None:
        before = [comeback for comeback in self._comebacks.before(user) if getattr(comeback, kind)]
        coming: int = sum(getattr(comeback, kind) for comeback in before)
        held, users = self._held_by(user, kind), self._users(user)
        share, limit = self._limit(kind) // users, self._limit(kind)
        missing = self._in_use(kind, series.owner) + kept + coming + needed + getattr(series, kind) - limit
        if not needed or not coming or missing <= 0 or held + needed <= share:
            return
        kept_s = max(comeback.until_s for comeback in before) - self._clock()
        freed_s = self._wait_s(self._in_work(), missing, kind, series.owner, None)
        reason, of, name = WORDS[kind]
        wait = max(1, math.ceil(min(freed_s, kept_s)))
        raise ShareExceeded(
            f"requests of the user who asks hold {megabytes(held)} MB{of} and this one needs {megabytes(needed)} MB, "
            f"{megabytes(coming)} MB are kept for users with less than an equal share, who were refused before; the "
            f"{name} is {megabytes(limit)} MB, of {users} users each may have {megabytes(share)} MB; try again in "
            f"{wait} s",
            reason,
            wait,
        )

    def _users(self, user: str | None) -> int:
        return len({user} | self._holding_users | self._comebacks.users)

    def expect_back(self, user: str | None, memory_bytes: int, disk_bytes: int, refusal: Overloaded) -> None:
        """Keep room for a user who was refused for want of it, until he may come again, if he holds less than a share.

        Others are let in meanwhile as long as they keep within theirs, or leave as much.
        """
        kind = next((kind for kind, (reason, _, _) in WORDS.items() if reason == refusal.reason), None)
        if kind and self._held_by(user, kind) < self._limit(kind) / self._users(user):
            self._comebacks.expect(user, memory_bytes, disk_bytes, refusal.retry_after_s)

    def reserve(self, memory_bytes: int, nets_bytes: int = 0) -> Callable[[], None] | None:
        """Charge memory for a package until the returned function is called; None where it is not free.

        What jobs wait for that hold nothing yet counts as free; what nets hold that are served no longer and still used
        does not, though no request waits for these.

        Raises
        ------
        TooLargeForMemory
            Where it is more than the whole budget.

        """
        check_load_alone(memory_bytes, self.memory_limit)
        if not self.has_room(memory_bytes, nets_bytes, goes_first=False):
            return None
        return self._package.hold(memory_bytes, self.keep(memory_bytes, 0))

    def has_room(self, memory_bytes: int, nets_bytes: int, *, goes_first: bool) -> bool:
        """Whether :meth:`reserve` would charge it; ``goes_first`` where it is what :meth:`expect` told of."""
        wishes = self._growth.wishes if goes_first else [*self._growth.wishes, *self._package.wishes]
        kept = self._precedence.bytes_kept("memory_bytes", wishes)
        return self.memory_in_use + kept + nets_bytes + memory_bytes <= self.memory_limit

    def expect(self, memory_bytes: int, nets_bytes: int = 0, waited_s: float = 0.0) -> None:
        """Note what a package has waited for, beside nets that jobs keep, and for how many seconds; 0 for no longer."""
        wish = Wish(self._clock() - waited_s, memory_bytes, 0, nets_bytes)
        self._package.expect(wish if memory_bytes else None)

    def waits_for_package(self, memory_bytes: int, series: Series) -> bool:
        """Whether a request that somebody waits for lacks memory for nothing but a package, or who waits for it."""
        return self._package_blocks(memory_bytes, series, self._package.awaited)

    def _package_blocks(self, memory_bytes: int, series: Series, before: int) -> bool:
        others = self._precedence.bytes_kept("memory_bytes", [*self._growth.wishes, *self._wishes_of_jobs])
        in_use = self._in_use("memory_bytes", series.owner) + series.memory_bytes
        free = self.memory_limit - in_use - memory_bytes
        return free < self._kept_from_requests("memory_bytes") + before and free + self._package.held >= others

    async def let_package_pass(self, memory_bytes: int, series: Series, most_s: float) -> None:
        """Wait while :meth:`waits_for_package`, in the order of requests, for 10 s and ``most_s`` at most."""
        await self._package.passed(memory_bytes, partial(self._package_blocks, memory_bytes, series), most_s)
