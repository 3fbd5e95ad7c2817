"""Files that are there whole or not at all, whenever the process is killed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


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
    """Give a file that is written, once it is on the disk, the name ``target``; folders are made.

    Raises
    ------
    OSError
        Where that cannot be done.

    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)
