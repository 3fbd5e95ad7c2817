"""Contestants that take turns within one run, and the ratios of their times."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Turn: TypeAlias = Mapping[str, float]
"""Seconds of every contestant, by name, one after the other."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long one contestant took as another: median of the turns' ratios, least and most."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.lowest:.2f}-{self.highest:.2f})"


def orders(names: Sequence[str], repeats: int) -> Iterator[list[str]]:
    """Who comes after whom in each turn.

    Whoever comes next finds the caches as the one before left them, so each turn begins with another contestant, and
    goes round the other way every other time: over the turns everyone comes first, and after different ones.
    """
    count = len(names)
    for repeat in range(repeats):
        step = -1 if repeat % 2 else 1
        yield [names[(repeat + step * place) % count] for place in range(count)]


def take_turns(contestants: Mapping[str, Callable[[], float]], repeats: int) -> list[Turn]:
    """Let every contestant run once in each of ``repeats`` turns; each returns the seconds that it took."""
    return [{name: contestants[name]() for name in order} for order in orders(list(contestants), repeats)]


def median_s(turns: Sequence[Turn], name: str) -> float:
    """Median seconds of one contestant."""
    return statistics.median(turn[name] for turn in turns)


def ratio(turns: Sequence[Turn], of: str, to: str) -> Ratio:
    """Time of contestant ``of`` over that of ``to``, turn by turn."""
    found = sorted(turn[of] / turn[to] for turn in turns)
    return Ratio(statistics.median(found), found[0], found[-1])
