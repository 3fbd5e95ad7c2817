"""Two folders change places at one stroke, so that whoever reads meanwhile finds the one or the other."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_HERE = -100  # AT_FDCWD: paths are taken as they are
_EXCHANGE = 2  # RENAME_EXCHANGE of <linux/fs.h>
_NOT_HERE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM, errno.EXDEV})
"""What old kernels, some network file systems and sandboxes say, which cannot exchange."""


def put_in_place(new: Path, place: Path, aside: Path) -> None:
    """Put a folder where another one, or a file, is; that is then at ``new``, or at ``aside``.

    Linux exchanges the two. Elsewhere ``place`` is empty for a moment, and a kill in it leaves what was there at
    ``aside``.

    Parameters
    ----------
    new, place
        The folder and what it replaces, on one file system.
    aside
        A path beside ``new`` at which nothing lies.

    Raises
    ------
    OSError
        Where they cannot be renamed; then both are where they were.

    """
    if exchanged(new, place):
        return
    place.rename(aside)
    try:
        new.rename(place)
    except BaseException:
        aside.rename(place)
        raise


def exchanged(one: Path, other: Path) -> bool:
    """Exchange two paths where this system can; whether it could.

    Raises
    ------
    OSError
        Where it can, but not these two.

    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return False
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_HERE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))
