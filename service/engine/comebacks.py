"""Users who were refused for want of room while others had more than an equal share of it, until they come again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_LATE_S = 10.0  # beyond the seconds that they were told: the image has to be sent again first


@dataclass(frozen=True, slots=True)
class Comeback:
    """What one user was refused."""

    memory_bytes: int
    disk_bytes: int
    until_s: float
    """When nobody counts on it any more, by the clock of :class:`Comebacks`."""


class Comebacks:
    """What was refused to each user, in the order of their first refusals.

    Parameters
    ----------
    clock
        Seconds, from any start.

    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._expected: dict[str | None, Comeback] = {}

    def expect(self, user: str | None, memory_bytes: int, disk_bytes: int, wait_s: float) -> None:
        """Note what a user was refused, who may come again after so many seconds; the last counts, in its old place."""
        self._expected[user] = Comeback(memory_bytes, disk_bytes, self._clock() + wait_s + _LATE_S)

    def came(self, user: str | None, memory_bytes: int, disk_bytes: int) -> None:
        """Expect a user no longer who was let in with as much as he was refused."""
        expected = self._expected.get(user)
        if expected and expected.memory_bytes <= memory_bytes and expected.disk_bytes <= disk_bytes:
            del self._expected[user]

    def before(self, user: str | None) -> list[Comeback]:
        """What other users are expected to come for; of one who is expected himself, those before him."""
        users = [*self._expecting()]
        first = users.index(user) if user in users else len(users)
        return [self._expected[other] for other in users[:first]]

    @property
    def users(self) -> set[str | None]:
        """Who is expected."""
        return set(self._expecting())

    def _expecting(self) -> dict[str | None, Comeback]:
        now = self._clock()
        self._expected = {user: comeback for user, comeback in self._expected.items() if comeback.until_s > now}
        return self._expected
