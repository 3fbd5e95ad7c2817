"""What each stage of a request takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from service.telemetry import Metrics

WAIT = "wait"
"""The stage in which what has begun waits for what others hold, memory or threads; the one around it goes on then."""
_LEAST_QUEUE_S = 1e-3  # a thread that is free begins within a tenth of that


class _Queue:
    """Waits for a thread, until that has begun."""

    def __init__(self) -> None:
        self._since = perf_counter()
        self._begun: float | None = None

    def end(self) -> None:
        self._begun = perf_counter()

    @property
    def seconds(self) -> float:
        waited = (perf_counter() if self._begun is None else self._begun) - self._since
        return waited if waited >= _LEAST_QUEUE_S else 0.0


class StageClock:
    """Milliseconds of each stage of one request. Lives on one event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._seconds: dict[str, float] = {}
        self._open: dict[str, tuple[float, float]] = {}  # when they began, and what had been waited by then
        self._queues: list[_Queue] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a ``with`` block to a stage, but for what it waits in :data:`WAIT`."""
        self._open[name] = perf_counter(), self._waited
        try:
            yield
        finally:
            elapsed = self._elapsed(name)
            del self._open[name]
            self._add(name, elapsed)

    @contextmanager
    def queue(self) -> Iterator[Callable[[], None]]:
        """Add to :data:`WAIT` the time of a ``with`` block until what it gives is called, by any thread."""
        queue = _Queue()
        self._queues.append(queue)
        try:
            yield queue.end
        finally:
            self._queues.remove(queue)
            if waited := queue.seconds:
                self._add(WAIT, waited)

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        self._metrics.stage_seconds.labels(stage=name).observe(seconds)

    @property
    def _waited(self) -> float:
        now = (self._elapsed(WAIT) if WAIT in self._open else 0.0) + sum(queue.seconds for queue in self._queues)
        return self._seconds.get(WAIT, 0.0) + now

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
