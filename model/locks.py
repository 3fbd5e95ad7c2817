"""Locks on files, which go with their process, killed or not."""

from __future__ import annotations

import contextlib
import errno
import math
import time
from collections.abc import Callable

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF})
"""What some network file systems say, which have none, or lock only what is open for writing: no folder."""
_POLL_S = 0.2


def take(file: int) -> bool:
    """Lock a file until it is closed or this process ends, where no other process holds it; whether that was so.

    Parameters
    ----------
    file
        Its descriptor.

    Raises
    ------
    OSError
        With one of :data:`NO_LOCKS` where there are no locks.

    """
    try:
        _flock(file, "LOCK_EX", "LOCK_NB")
    except BlockingIOError:
        return False
    return True


def wait_for(file: int, patience_s: float = math.inf, *, waiting: Callable[[], object] = lambda: None) -> bool | None:
    """Lock a file until it is closed or this process ends, once no other process holds it.

    Parameters
    ----------
    file
        Its descriptor.
    patience_s
        Seconds to wait for that; 0 to take it at once or not at all.
    waiting
        Told once, where another process holds it.

    Returns
    -------
    bool or None
        False where another process still holds it, None where the file system has no locks.

    """
    until, told = time.monotonic() + patience_s, False
    try:
        while not take(file):
            if time.monotonic() >= until:
                return False
            if not told:
                waiting()
            told = True
            time.sleep(_POLL_S)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None
    return True


def release(file: int) -> None:
    """Let others take a file's lock, whoever else has the same descriptor; where there is none, do nothing."""
    with contextlib.suppress(OSError):
        _flock(file, "LOCK_UN")


def _flock(file: int, *names: str) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        raise OSError(errno.ENOSYS, "files have no such locks") from None
    fcntl.flock(file, sum(getattr(fcntl, name) for name in names))
