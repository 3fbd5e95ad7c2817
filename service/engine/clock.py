"""What each stage of a request takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from service.telemetry import Metrics

WAIT = "wait"
"""The stage in which what has begun waits for memory that others hold; the stage around it goes on after it."""


class StageClock:
    """Milliseconds of each stage of one request. Lives on one event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._seconds: dict[str, float] = {}
        self._open: dict[str, tuple[float, float]] = {}  # when they began, and what had been waited by then

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a ``with`` block to a stage, but for what it waits in :data:`WAIT`."""
        self._open[name] = perf_counter(), self._waited
        try:
            yield
        finally:
            elapsed = self._elapsed(name)
            del self._open[name]
            self._seconds[name] = self._seconds.get(name, 0.0) + elapsed
            self._metrics.stage_seconds.labels(stage=name).observe(elapsed)

    @property
    def _waited(self) -> float:
        return self._seconds.get(WAIT, 0.0) + (self._elapsed(WAIT) if WAIT in self._open else 0.0)

    def _elapsed(self, name: str) -> float:
        """What a stage that has not ended has taken."""
        started, waited = self._open[name]
        return perf_counter() - started - (0.0 if name == WAIT else self._waited - waited)

    def seconds_beside(self, name: str) -> float:
        """Total of all stages but one so far, waiting left out."""
        ended = sum(seconds for stage, seconds in self._seconds.items() if stage not in {name, WAIT})
        return ended + sum(self._elapsed(stage) for stage in self._open if stage not in {name, WAIT})

    def milliseconds(self) -> dict[str, float]:
        """Total of each stage so far."""
        return {name: round(seconds * 1000, 2) for name, seconds in self._seconds.items()}
