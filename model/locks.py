"""Locks on files, which go with their process, killed or not."""

from __future__ import annotations

import contextlib
import errno

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS})
"""What some network file systems say, which have none."""


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
