"""Who works for which share of a batch: locks on files (:mod:`model.locks`)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO

from model.locks import NO_LOCKS, take

_POLL_S = 1.0


def wait_for(lock: IO[str], waiting: Callable[[], None]) -> None:
    """Lock a file until it is closed or this process ends; where the file system has no locks, go on without.

    Parameters
    ----------
    lock
        The file.
    waiting
        Told once where another process holds it.

    """
    told = False
    while True:
        try:
            if take(lock.fileno()):
                return
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return
        if not told:
            waiting()
        told = True
        time.sleep(_POLL_S)


def idle(locks: Path, labels: Collection[str]) -> Iterator[str]:
    """Those of ``labels`` whose file in ``locks`` no process holds; each is held until the next is asked for.

    Processes that ask go one after the other, so that none is in another's way. Where nobody can tell, none is idle.
    """
    if not labels:
        return
    with contextlib.suppress(OSError), (locks / "others").open("w") as turn:
        wait_for(turn, lambda: None)
        for label in labels:
            with contextlib.suppress(OSError), (locks / label).open("w") as lock:
                if take(lock.fileno()):
                    yield label
