"""Finished answers that their clients have not received yet: what they hold, and how soon it may be free."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, get_args

Kind: TypeAlias = Literal["memory_bytes", "disk_bytes"]
"""What can be held."""

KINDS: tuple[Kind, ...] = get_args(Kind)

MOST_S = 60.0
"""A client that takes no piece of its answer for so long is dropped: nobody is told to wait for longer."""


@dataclass(eq=False, frozen=True, slots=True)
class _Answer:
    memory_bytes: int
    disk_bytes: int
    since_s: float
    owner: object | None


class Unsent:
    """Ledger of them.

    Parameters
    ----------
    clock
        Seconds, from any start.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: set[_Answer] = set()
        self._sent: deque[_Answer] = deque()  # filled by any thread, the garbage collector's too

    def keep(self, memory_bytes: int, disk_bytes: int, owner: object | None = None) -> Callable[[], None]:
        """Charge one until the returned function is called, once it is sent; any thread may call it.

        ``owner`` stands for a caller who gets several.
        """
        answer = _Answer(memory_bytes, disk_bytes, self._clock(), owner)
        self._answers.add(answer)
        return partial(self._sent.append, answer)

    def count(self, but: object | None = None) -> int:
        """How many there are; ``but`` leaves those of one owner out, here and below, and None leaves out none."""
        return len(self._left(but))

    def held(self, kind: Kind, but: object | None = None) -> int:
        """Bytes that they hold together."""
        held: int = sum(getattr(answer, kind) for answer in self._left(but))
        return held

    def seconds_until_free(self, size: int, kind: Kind, but: object | None = None) -> float:
        """Seconds, at most 60, until so many bytes may be free: each may take as long again as it has taken."""
        seconds = 0.0
        for answer in sorted(self._left(but), key=lambda answer: -answer.since_s):
            if size <= 0:
                break
            size -= getattr(answer, kind)
            seconds = self._clock() - answer.since_s
        return min(seconds, MOST_S)

    def _left(self, but: object | None) -> list[_Answer]:
        while self._sent:
            self._answers.discard(self._sent.popleft())
        return [answer for answer in self._answers if but is None or answer.owner is not but]
