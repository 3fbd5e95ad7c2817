"""What is kept of memory and disk for what waits for it, and packages that wait, or are loaded while requests run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

from service.engine.admission.alone import check_load_alone
from service.engine.admission.growth import Growth
from service.engine.admission.ledger import Ledger
from service.engine.admission.package_room import PackageRoom
from service.engine.admission.precedence import Precedence, Wish
from service.engine.admission.series import Series
from service.engine.admission.unsent import Kind


class KeptRoom(Ledger):
    """A ledger in which what has waited goes before what comes later.

    Parameters
    ----------
    memory_bytes, disk_bytes, clock
        As for :class:`~service.engine.admission.ledger.Ledger`.
    places
        As for :class:`~service.engine.admission.growth.Growth`.

    """

    def __init__(self, memory_bytes: int, disk_bytes: int, places: int, clock: Callable[[], float]) -> None:
        super().__init__(memory_bytes, disk_bytes, clock)
        self._clock = clock
        self._package = PackageRoom()
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

    def _kept_from_requests(self, kind: Kind, since_s: float = math.inf) -> int:
        """Bytes kept from a request that has asked since then: what has asked later is not waited for."""
        return self._kept(kind, [wish for wish in self._wishes if wish.since_s < since_s])

    @property
    def _wishes(self) -> list[Wish]:
        """Of jobs."""
        return [ticket.wish for ticket in self._tickets if ticket.wish]

    def _holders(self, in_work: int, owner: object | None) -> str:
        if not self._package.held:
            return super()._holders(in_work, owner)
        requests = in_work + self._unsent.count(owner) - 1  # what a package holds is kept as an answer is
        return f"{requests} requests and a package hold" if requests else "a package holds"

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
        others = self._precedence.bytes_kept("memory_bytes", [*self._growth.wishes, *self._wishes])
        in_use = self._in_use("memory_bytes", series.owner) + series.memory_bytes
        free = self.memory_limit - in_use - memory_bytes
        return free < self._kept_from_requests("memory_bytes") + before and free + self._package.held >= others

    async def let_package_pass(self, memory_bytes: int, series: Series, most_s: float) -> None:
        """Wait while :meth:`waits_for_package`, in the order of requests, for 10 s and ``most_s`` at most."""
        await self._package.passed(memory_bytes, partial(self._package_blocks, memory_bytes, series), most_s)
