"""A net that is loaded while requests run computes between their batches, as if it were one of theirs.

So there is no more in work at a time than memory was planned for, a request waits for one tile more at most, and the
speed that is measured is that of the net alone.
"""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, Executor

import numpy as np
from numpy.typing import NDArray

from model.errors import InferenceFailed
from model.session import InferenceSession
from model.stitching import Run


class BetweenBatches:
    """Runs nets in the inference thread, counts the seconds that they ran there, and tells which one does.

    Parameters
    ----------
    executor
        The thread; calls come from others.

    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
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
        return None if since is None else (time.perf_counter() - since, f"package {self._loading}, being loaded,")

    def of(self, session: InferenceSession) -> InferenceSession:
        """Return the same net, run in turn."""
        return _InTurn(session, self)

    def run(self, run: Run, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run a net on tiles when it is its turn.

        Raises
        ------
        InferenceFailed
            Where the thread has ended, or ends before it is.

        """
        try:
            turn = self._executor.submit(self._timed, run, tiles_bcyx)
        except RuntimeError as error:
            raise InferenceFailed("the service stops; it is loaded at the next start") from error
        try:
            return turn.result()
        except CancelledError as error:
            raise InferenceFailed("the service stops; it is loaded at the next start") from error

    def clock(self) -> float:
        """Seconds for which nets have run, waiting left out."""
        return self._seconds

    def _timed(self, run: Run, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        self._since = started = time.perf_counter()
        try:
            return run(tiles_bcyx)
        finally:
            self._since = None
            self._seconds += time.perf_counter() - started


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
