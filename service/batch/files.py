"""Files of results and images: written whole, and known again by their size, their time and their content."""

from __future__ import annotations

import filecmp
import hashlib
import shutil
from pathlib import Path
from typing import IO, TypedDict

from model.atomic import replacing
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
    found = [status for _, status in files_of(image)]
    return {
        "bytes": sum(status.st_size for status in found),
        "modified_ns": max((status.st_mtime_ns for status in found), default=0),
    }


def is_copy(image: Path, other: Path) -> bool:
    """Whether two images are the same byte for byte, of OME-Zarr in all that they are read from.

    Raises
    ------
    OSError
        Where one of them cannot be read.

    """
    mine, others = ({file.relative_to(of): file for file, _ in files_of(of)} for of in (image, other))
    return mine.keys() == others.keys() and all(
        filecmp.cmp(file, others[name], shallow=False) for name, file in mine.items()
    )


def replace(target: Path, content: bytes, part: Path) -> None:
    """Write ``content`` in the place of what is there, by way of ``part``; see :func:`model.atomic.replacing`."""
    with replacing(target, part) as file:
        file.write(content)


def write_alone(target: Path, content: IO[bytes]) -> None:
    """Write a file without a ledger so that it is there whole or not at all; missing folders are made."""
    with replacing(target) as file:
        shutil.copyfileobj(content, file)
