"""Ctrl-C: a command ends in order at the first, at once at a second, and never with a traceback. SIGTERM: in order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def once_in_order() -> Iterator[None]:
    """Let the first interrupt raise KeyboardInterrupt here, and a second, while that is worked up, end the process."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _raise_once)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _raise_once:
            signal.signal(signal.SIGINT, before)


def _raise_once(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


@contextmanager
def stopped_at_once() -> Iterator[None]:
    """Let SIGTERM be the end of the process with status 0, as long as no server listens that would drain first."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
