"""Requests that stand in line for memory or disk that other users hold: one of each user at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.engine.admission.precedence import Wish
from service.engine.admission.unsent import Kind


@dataclass(eq=False, frozen=True, slots=True)
class Place:
    """Where a request stands, or would stand; what came first goes first."""

    user: str | None
    wish: Wish


@dataclass(slots=True)
class Line:
    """All who stand in it, each for as long as its client waits: nothing is kept for who has been refused."""

    places: list[Place] = field(default_factory=list)

    @contextmanager
    def joined(self, place: Place) -> Iterator[None]:
        """Stand there for a ``with`` block."""
        self.places.append(place)
        try:
            yield
        finally:
            self.places.remove(place)

    def before(self, since_s: float) -> list[Place]:
        """Return the places of those who came before that time."""
        return [place for place in self.places if place.wish.since_s < since_s]


def bytes_of(places: list[Place], kind: Kind) -> int:
    """Bytes that they wait for together."""
    wanted: int = sum(getattr(place.wish, kind) for place in places)
    return wanted
