"""Ctrl-C: a command ends in order at the first, at once at a second, and never with a traceback."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit status that shells use for it."""


def end_while_loading() -> None:
    """Until a command runs there is nothing to put in order: an interrupt is a line and the end of the process."""
    # one who starts us in the background may have switched interrupts off
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


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


def _end(number: int, frame: FrameType | None) -> None:
    # raised, it would come out of an import as another error
    os.write(2, b"unet-service: interrupted\n")
    os._exit(INTERRUPTED)


def _raise_once(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt
