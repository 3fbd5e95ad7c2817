"""What each stage of a request takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.telemetry import Metrics


class StageClock:
    """Milliseconds of each stage of one request."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a ``with`` block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self._seconds[name] = self._seconds.get(name, 0.0) + elapsed
            self._metrics.stage_seconds.labels(stage=name).observe(elapsed)

    def seconds_beside(self, name: str) -> float:
        """Total of all stages but one so far."""
        return sum(seconds for stage, seconds in self._seconds.items() if stage != name)

    def milliseconds(self) -> dict[str, float]:
        """Total of each stage so far."""
        return {name: round(seconds * 1000, 2) for name, seconds in self._seconds.items()}
