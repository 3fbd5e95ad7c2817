"""Files, and folders of them, that are there whole or not at all, whenever the process is killed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from model.swapping import put_in_place

_IN_THE_WAY = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
"""Why a folder does not get the name of what is there."""


@contextmanager
def replacing(target: Path, part: Path | None = None) -> Iterator[BinaryIO]:
    """Write a file that gets its place, once it is on the disk, where the block ends without an error.

    Parameters
    ----------
    target
        The place; its folder is made where there is none.
    part
        What is written meanwhile, on the same file system; a hidden file beside the place where not given. An error
        takes it away, a kill leaves it.

    Raises
    ------
    OSError
        Where it cannot be written.

    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part or target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with part.open("wb") as file:
            yield file
        put(target, part)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def put(target: Path, part: Path) -> None:
    """Give a file or a folder that is written, once it is on the disk, the name ``target``; folders are made.

    Where two folders cannot be exchanged (:mod:`model.swapping`), a kill may leave none where one replaces another:
    what was there then lies beside ``part``.

    Raises
    ------
    OSError
        Where that cannot be done.

    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not part.is_dir():
        _flush(part)
        part.replace(target)
        return
    for folder, _, names in os.walk(part):
        for name in names:
            _flush(Path(folder, name))
        with suppress(PermissionError):  # where folders are not opened
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    try:
        part.rename(target)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        former = part.with_name(f"{part.name}.before")
        put_in_place(part, target, former)
        for path in (part, former):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that it holds; there may be none.

    Raises
    ------
    OSError
        Where that cannot be done.

    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
