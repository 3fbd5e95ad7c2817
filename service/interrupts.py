"""Ctrl-C: a command ends in order at the first, at once at a second, and never with a traceback."""

from __future__ import annotations

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
