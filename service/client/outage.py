"""Time in which no server answers: all requests of a client wait it out together, not one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime


class Outage:
    """Since when nobody answers, and how long that has been waited for.

    Parameters
    ----------
    limit_s
        Most seconds to wait in all, from the last answer to any request; begun anew where none is under way.
    waiting
        Told once for each outage that waiting begins, in the thread of the request that it comes upon.

    """

    def __init__(self, limit_s: float, waiting: Callable[[str], object] | None) -> None:
        self._limit_s = limit_s
        self._waiting = waiting
        self._lock = threading.Lock()
        self._requests = 0
        self._waited_s = 0.0
        self._since: datetime | None = None

    @contextmanager
    def minded(self) -> Iterator[None]:
        """Count a request that is under way, or several that belong together, for the length of a ``with`` block."""
        with self._lock:
            self._requests += 1
        try:
            yield
        finally:
            with self._lock:
                self._requests -= 1
                if not self._requests:
                    self._since = None

    def over(self) -> None:
        """Note that somebody has answered."""
        with self._lock:
            self._since = None

    def wait(self, seconds: float, how: Callable[[float], object], what: str) -> datetime | None:
        """Wait before asking again; returns since when there has been no answer, where that is too long to wait more.

        Parameters
        ----------
        seconds
            How long.
        how
            Waits so many seconds.
        what
            That there is no answer, and why; told to who is told of outages.

        """
        with self._lock:
            begins = self._since is None
            if self._since is None:
                self._since, self._waited_s = datetime.now().astimezone(), 0.0
            since, until = self._since, self._waited_s + seconds
            if until > self._limit_s:
                self._waited_s = self._limit_s  # whoever comes now has a shorter wait ahead, and must not begin with it
                return since
        if begins and self._waiting is not None:
            self._waiting(f"waiting for the server, {self._limit_s:g} s at most: {what}")
        how(seconds)
        with self._lock:
            if self._since is since:  # others may have waited meanwhile, and had an answer
                self._waited_s = max(self._waited_s, until)
        return None
