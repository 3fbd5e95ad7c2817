"""Files on the disk: there whole or not at all, and known again by their size, their time and their content."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path
from typing import IO, TypedDict

from service.batch.ome_zarr import files_of


class Content(TypedDict):
    """What a file holds: its size and its SHA-256, in hexadecimal digits."""

    bytes: int
    sha256: str


def content_of(file: Path) -> Content:
    """Read what a file holds.

    Raises
    ------
    OSError
        Where it cannot be read.

    """
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"bytes": stream.tell(), "sha256": sha256}


def stamp(image: Path) -> dict[str, int]:
    """What tells a changed image: its size and the time of its last change, of OME-Zarr those of all its files.

    Raises
    ------
    OSError
        Where there is no such file.

    """
    found = [file.stat() for file in files_of(image)]
    return {
        "bytes": sum(status.st_size for status in found),
        "modified_ns": max((status.st_mtime_ns for status in found), default=0),
    }


def replace(target: Path, content: bytes, part: Path) -> None:
    """Write ``content`` to ``part``, and :func:`put` that in its place."""
    part.write_bytes(content)
    put(target, part)


def put(target: Path, part: Path) -> None:
    """Give a file that is written, once it is on the disk, the name ``target``; folders are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)


def write_alone(target: Path, content: IO[bytes]) -> None:
    """Write a file without a ledger so that it is there whole or not at all; missing folders are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        with part.open("wb") as file:
            shutil.copyfileobj(content, file)
        put(target, part)
    finally:
        part.unlink(missing_ok=True)
