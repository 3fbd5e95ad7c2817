"""The folder of jobs of a service that shares none: it ends with its process, or with the next one of its kind."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from model.locks import take

_NAME = re.compile("unet-jobs-[0-9a-f]{16}")
_LOCK = ".lock"


def temporary_path() -> Path:
    """Name a folder that nobody can foresee: where it is made may be everybody's."""
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        folder = "/tmp"  # noqa: S108 - none can be written: the service is unready and says so
    return Path(folder, f"unet-jobs-{secrets.token_hex(8)}")


def share_of_disk(path: Path) -> int:
    """Most bytes of results in a temporary folder: half of its disk is left to uploads, which go there, too."""
    try:
        return shutil.disk_usage(path.parent).total // 2
    except OSError:
        return sys.maxsize  # nothing can be kept there anyhow


class TemporaryFolder:
    """A folder of jobs for this process alone, as long as it lives.

    Parameters
    ----------
    path
        See :func:`temporary_path`.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: int | None = None

    def make(self) -> None:
        """Make it, where that can be."""
        with suppress(OSError):  # then jobs are refused, and the log says why
            self._lock = occupy(self._path)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self._path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)


def occupy(path: Path) -> int:
    """Make a temporary folder that others leave alone as long as this process lives.

    Returns
    -------
    Descriptor of its lock.

    Raises
    ------
    OSError
        Where it cannot be made.

    """
    hidden = path.with_name(f".{path.name}")  # until it is locked
    hidden.mkdir(mode=0o700)
    lock = os.open(hidden / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=0o600)
    with suppress(OSError):  # where there are no locks, nobody finds it to be free
        take(lock)
    hidden.rename(path)
    return lock


def remove_abandoned(parent: Path) -> None:
    """Remove the temporary folders of this user's processes that were killed."""
    for path in [path for path in parent.iterdir() if _NAME.fullmatch(path.name)]:
        with suppress(OSError):
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if take(lock):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
