"""Locks on files, which go with their process, killed or not."""

from __future__ import annotations

import contextlib
import errno
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO

_POLL_S = 1.0
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}  # some network file systems have none


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
            if _taken(lock):
                return
        except OSError as error:
            if error.errno not in _NO_LOCKS:
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
                if _taken(lock):
                    yield label


def _taken(lock: IO[str]) -> bool:
    """Lock a file until it is closed or this process ends, where no other process holds it; whether that was so."""
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "files have no such locks")
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
