"""Ctrl-C while a program is still imported, which takes seconds and has nothing to put in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit status that shells use for it."""


@contextmanager
def ended_at_once(program: str) -> Iterator[None]:
    """Let an interrupt be a line with the name of the program, and the end of the process."""

    def end(_number: int, _frame: FrameType | None) -> None:
        # raised, it would come out of an import as another error
        os.write(2, f"{program}: interrupted\n".encode())
        os._exit(INTERRUPTED)

    before = signal.getsignal(signal.SIGINT)
    # one who starts us in the background may have switched interrupts off
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
