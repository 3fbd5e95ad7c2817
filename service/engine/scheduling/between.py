"""A net that is loaded while requests run computes between their batches, as if it were one of theirs.

So there is no more in work at a time than memory was planned for, and the speed that is measured is that of the net
alone. After a call of the net batches have as many seconds before the next one: of the time of a request half is its
own at least, but for the call that is in work when it comes. Where no batch has come since the last call, the next one
goes at once.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.cost import Clock
from model.errors import InferenceFailed
from model.session import InferenceSession
from model.stitching import Run

_Call: TypeAlias = Callable[[], NDArray[np.float32]]
Turn: TypeAlias = tuple[_Call, Future[Future[NDArray[np.float32]]]]
"""What is to be called in the inference thread, and who waits for the future of that."""


class BetweenBatches:
    """Calls of nets that are loaded, until the scheduler lets them in; counts their seconds, and tells which one runs.

    Parameters
    ----------
    clock
        Seconds.

    """

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[Turn] = deque()
        self._came: Callable[[], object] | None = None
        self._batches_came = False  # since the last call
        self._rests_until = -math.inf
        self._seconds = 0.0
        self._loading = ""
        self._since: float | None = None

    def loading(self, name: str) -> None:
        """Note what the package is called that is loaded from now on."""
        self._loading = name

    @property
    def in_work(self) -> tuple[float, str] | None:
        """Seconds for which the net that runs now has, and what it is; None where none does. Any thread may ask."""
        since = self._since
        return None if since is None else (self._clock() - since, f"package {self._loading}, being loaded,")

    def of(self, session: InferenceSession) -> InferenceSession:
        """Return the same net, run in turn."""
        return _InTurn(session, self)

    def run(self, run: Run, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run a net on tiles when it is its turn; any thread but that of the event loop may ask.

        Raises
        ------
        InferenceFailed
            Where the service has stopped, or stops before it is.

        """
        turn: Turn = partial(self._timed, run, tiles_bcyx), Future()
        with self._lock:
            if self._came is None:
                raise InferenceFailed("the service stops; it is loaded at the next start")
            self._waiting.append(turn)
            self._came()
        try:
            return turn[1].result().result()
        except CancelledError as error:
            raise InferenceFailed("the service stops; it is loaded at the next start") from error

    def clock(self) -> float:
        """Seconds for which nets have run, waiting left out."""
        return self._seconds

    def begin(self, came: Callable[[], object]) -> None:
        """Take calls from now on; ``came`` is told of each, in the thread of whoever asks."""
        self._came = came

    def end(self) -> None:
        """Refuse those that wait, and all later ones."""
        with self._lock:
            self._came = None
            while self._waiting:
                self._waiting.popleft()[1].cancel()

    def next(self, *, batches_wait: bool) -> Turn | None:
        """Return the call that goes now, while nothing else does; None where there is none, or batches have the time.

        Parameters
        ----------
        batches_wait
            Whether one would go in its place.

        """
        if self._waiting and not self.rest_s(batches_wait=batches_wait):
            self._batches_came = False
            return self._waiting.popleft()
        self._batches_came |= batches_wait
        return None

    def rest_s(self, *, batches_wait: bool) -> float | None:
        """Seconds until the next call goes, whatever comes; None where none waits."""
        if not self._waiting:
            return None
        return max(0.0, self._rests_until - self._clock()) if batches_wait or self._batches_came else 0.0

    def _timed(self, run: Run, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        self._since = started = self._clock()
        try:
            return run(tiles_bcyx)
        finally:
            ended = self._clock()
            self._since = None
            self._seconds += ended - started
            self._rests_until = ended + (ended - started)


class _InTurn:
    """A session on a CPU that runs in turn."""

    def __init__(self, session: InferenceSession, between: BetweenBatches) -> None:
        self.backend, self.provider, self.precision = session.backend, session.provider, session.precision
        self.evidence = None
        self._session = session
        self._between = between

    def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`model.backends.InferenceSession`."""
        return self._between.run(self._session.run, tiles_bcyx)
