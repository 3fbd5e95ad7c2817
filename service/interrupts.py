"""Ctrl-C and SIGTERM: a command ends in order at the first, at once at a second, and never with a traceback."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from model.interrupts import INTERRUPTED

TERMINATED = 143
"""Exit status that shells use for SIGTERM."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which is to be taken as an interrupt is."""


def status_of(interrupt: KeyboardInterrupt) -> int:
    """Exit status of a command that was interrupted."""
    return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED


@contextmanager
def once_in_order(*, terminable: bool) -> Iterator[None]:
    """Let the first interrupt raise KeyboardInterrupt here, and a second, while that is worked up, end the process.

    Parameters
    ----------
    terminable
        Whether SIGTERM is one, too: as the first process of a container, one that does not ask for it is not told.

    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with ExitStack() as handlers:
        for number in (signal.SIGINT, signal.SIGTERM) if terminable else (signal.SIGINT,):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                handlers.enter_context(_restored(number))
                signal.signal(number, _raise_once)
        yield


@contextmanager
def _restored(number: signal.Signals) -> Iterator[None]:
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if signal.getsignal(number) is _raise_once:
            signal.signal(number, before)


def _raise_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def held_back() -> Iterator[None]:
    """Let the first interrupt raise only after the block, which takes no time and must not be left half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    held = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is _raise_once]
    try:
        for number in held:
            signal.signal(number, lambda number, _frame: came.append(number))
        yield
    finally:
        for number in held:
            signal.signal(number, _raise_once)
        for first in came[:1]:
            signal.raise_signal(first)


@contextmanager
def stopped_at_once(status: int) -> Iterator[None]:
    """Let SIGTERM be the end of the process with ``status``, as long as there is nothing to be put in order."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: os._exit(status))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
