"""What waits for memory or disk goes before requests that come later: after a while, and for a while at most."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from service.engine.admission.unsent import Kind

_PATIENCE_S = 5.0  # meanwhile whoever was refused before may come in
_MOST_S = 60.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What one waits for that has none of it yet."""

    since_s: float
    """By the same clock as others."""
    memory_bytes: int
    disk_bytes: int = 0
    beside_bytes: int = 0
    """Memory that must be there beside it, though no request waits for that."""


class Precedence:
    """Counts wishes against requests that come later.

    A wish counts once it is 5 s old, and would come true if the requests in work ended. From then on all that count do
    so for a minute, and none for the minute after that, whoever waits: so long at most is refused what there is room
    for.

    Parameters
    ----------
    limit
        Bytes that there are of a kind.
    lasting
        Bytes that are held by others than requests in work.
    clock
        Seconds, from any start.

    """

    def __init__(
        self, limit: Callable[[Kind], int], lasting: Callable[[Kind], int], clock: Callable[[], float]
    ) -> None:
        self._limit = limit
        self._lasting = lasting
        self._clock = clock
        self._began_s = -math.inf

    def bytes_kept(self, kind: Kind, wishes: Iterable[Wish]) -> int:
        """Bytes that are kept for those who wait now."""
        now = self._clock()
        counted = [wish for wish in wishes if now - wish.since_s >= _PATIENCE_S and self._may_come_true(wish)]
        if counted and now - self._began_s >= 2 * _MOST_S:
            self._began_s = now
        kept: int = sum(getattr(wish, kind) for wish in counted) if self.seconds_left else 0
        return kept

    def _may_come_true(self, wish: Wish) -> bool:
        needs: dict[Kind, int] = {
            "memory_bytes": wish.memory_bytes + wish.beside_bytes,
            "disk_bytes": wish.disk_bytes,
        }
        return all(not needed or self._lasting(kind) + needed <= self._limit(kind) for kind, needed in needs.items())

    @property
    def seconds_left(self) -> float:
        """Seconds until none counts for a while; 0 where that is so."""
        return max(0.0, self._began_s + _MOST_S - self._clock())
