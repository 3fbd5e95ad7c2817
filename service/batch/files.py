"""Files on the disk: there whole or not at all, and known again by their size, their time and their content."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import TypedDict


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
    """What tells a changed image: its size and the time of its last change.

    Raises
    ------
    OSError
        Where there is no such file.

    """
    found = image.stat()
    return {"bytes": found.st_size, "modified_ns": found.st_mtime_ns}


def replace(target: Path, content: bytes, part: Path) -> None:
    """Write ``content`` to ``part`` and, once it is on the disk, give it the name ``target``; folders are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(target)


def write_alone(target: Path, content: bytes) -> None:
    """Write a file without a ledger so that it is there whole or not at all; missing folders are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        replace(target, content, part)
    finally:
        part.unlink(missing_ok=True)
