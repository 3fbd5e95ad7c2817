"""One net on several devices at a time: each batch goes to the one with the fewest in work."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.backends import InferenceSession
from model.stitching import Run


class SpreadSession:
    """Sessions of the same net, each on a device of its own; as quick as they are together, for as many callers.

    Parameters
    ----------
    sessions
        One or more, alike but for their devices.

    """

    def __init__(self, sessions: Sequence[InferenceSession]) -> None:
        first = sessions[0]
        self.backend, self.provider, self.precision = first.backend, first.provider, first.precision
        self.sessions = tuple(sessions)
        self._in_work = [0] * len(sessions)
        self._lock = threading.Lock()
        reducing = [session.evidence for session in sessions if session.evidence is not None]
        self.evidence: Run | None = partial(self._spread, reducing) if len(reducing) == len(sessions) else None

    def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`model.backends.InferenceSession`."""
        return self._spread([session.run for session in self.sessions], tiles_bcyx)

    def _spread(self, runs: Sequence[Run], tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._lock:
            place = self._in_work.index(min(self._in_work))
            self._in_work[place] += 1
        try:
            return runs[place](tiles_bcyx)
        finally:
            with self._lock:
                self._in_work[place] -= 1


def each_device(session: InferenceSession) -> tuple[InferenceSession, ...]:
    """Sessions of the single devices that a session runs on: what has to be checked and warmed up one by one."""
    return session.sessions if isinstance(session, SpreadSession) else (session,)
