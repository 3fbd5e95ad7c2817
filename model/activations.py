"""Memory that nets keep of what they ran last, bounded for all together."""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakKeyDictionary

_LOG = logging.getLogger("unet.model")


class Net(Protocol):
    """What keeps memory of its largest tile, so that the next one need not ask the system for it again."""

    def release(self) -> None:
        """Give that memory back; the next run takes it anew."""
        ...


class Activations:
    """Says which nets give their memory back: those that have not run for longest, where all keep more than a limit.

    Any thread may ask.

    Parameters
    ----------
    limit_bytes
        Most that nets keep together, unless the one that runs needs more by itself.
    released
        Called after some have given theirs back: to this process's allocator, which need not pass it on.

    """

    def __init__(self, limit_bytes: float = math.inf, released: Callable[[], None] | None = None) -> None:
        self._limit_bytes = limit_bytes
        self._released = released
        self._lock = threading.Lock()
        self._kept: WeakKeyDictionary[Net, float] = WeakKeyDictionary()  # bytes; the net that ran last is last
        self._running: Counter[Net] = Counter()

    @contextmanager
    def taken(self, net: Net, size_bytes: float) -> Iterator[None]:
        """Let ``net`` run within a ``with`` block, where it takes so many bytes."""
        with self._lock:
            self._running[net] += 1
            self._kept[net] = max(size_bytes, self._kept.pop(net, 0))
            self._keep_within_limit()
        try:
            yield
        finally:
            with self._lock:
                self._running -= Counter([net])

    def _keep_within_limit(self) -> None:
        before = len(self._kept)
        for net in list(self._kept):
            if sum(self._kept.values()) <= self._limit_bytes:
                break
            if net in self._running:
                continue
            try:
                net.release()
            except RuntimeError as error:  # no fault of the net that runs
                _LOG.warning("a net keeps its memory: %s", error)
            else:
                del self._kept[net]
        if self._released is not None and len(self._kept) < before:
            self._released()
