"""Files that are written whole or not at all, and what is said where a disk is full or cannot be written."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from model import atomic
from training.errors import Unwritable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PROBE_BYTES = 1 << 12


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file beside its place, which it takes where the block ends without an error.

    A kill at any moment leaves the old file or the new one; an error leaves the old one, and nothing beside it. What is
    no file, such as a pipe, is written as it is.

    Parameters
    ----------
    path
        The file; its folder is made where there is none.

    Raises
    ------
    Unwritable
        Where it cannot be written.

    """
    stream = path.exists() and not path.is_file()
    try:
        with path.open("wb") if stream else atomic.replacing(path, path.with_name(path.name + ".partial")) as file:
            yield file
    except BaseException as error:
        cause = _cause(error)
        if cause is None:
            raise
        raise Unwritable(unwritable(path, cause)) from error


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, as :func:`replacing` does.

    Raises
    ------
    Unwritable
        Where it cannot be written.

    """
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def require_folder(folder: Path) -> None:
    """Make sure, before there is anything to lose, that a folder is one or can be made, and that it can be written.

    Raises
    ------
    Unwritable
        Where it, or a folder that it shall lie in, is a file, is read-only, or has no room.

    """
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    if not there.is_dir():
        raise Unwritable(f"{there} is a file; expected a folder, or none yet. Correct --out")
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
    except OSError as error:
        raise Unwritable(unwritable(folder, error)) from error


def require_file(path: Path) -> None:
    """Make sure, before there is anything to lose, that a file can be written; a pipe is taken as it is.

    Raises
    ------
    Unwritable
        As :func:`require_folder`, of the folder that it lies in.

    """
    if path.is_file() or not path.exists():
        require_folder(path.parent)


def is_full(error: OSError) -> bool:
    """Whether an error says that a disk is full or read-only, so that it was met in writing."""
    return error.errno in _FULL | {errno.EROFS}


def unwritable(path: Path, error: OSError) -> str:
    """Say what could not be written, why, how much room there is, and what helps."""
    reason = error.strerror or str(error)
    if error.errno not in _FULL:
        return f"{path} cannot be written: {reason}; make it writable, or write to another place"
    there = next((place for place in (path, *path.absolute().parents) if place.exists()), Path.cwd())
    free = shutil.disk_usage(there).free / (1 << 20)
    return f"{path} cannot be written: {reason} ({free:,.1f} MiB are free there); make room, or write to another place"


def _cause(error: BaseException | None) -> OSError | None:
    """The operating system's error behind another one: torch tells of a full disk by a position in the file."""
    while error is not None and not (isinstance(error, OSError) and error.errno is not None):
        error = error.__context__
    return error
