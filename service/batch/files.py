"""Results and images, files or folders: written whole, and known again by their size, their time and their content."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
from pathlib import Path
from typing import IO, TypedDict

from model.atomic import replacing
from service.batch.ome_zarr import files_of


class Content(TypedDict):
    """What a result holds: its size and its SHA-256, in hexadecimal digits; of a folder that of names and contents."""

    bytes: int
    sha256: str


def content_of(result: Path) -> Content:
    """Read what a file holds, or a folder in all of its files.

    Raises
    ------
    OSError
        Where it cannot be read.

    """
    if not result.is_dir():
        with result.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            return {"bytes": stream.tell(), "sha256": sha256}
    size_bytes, digest = 0, hashlib.sha256()
    for file in _files_below(result):
        with file.open("rb") as stream:
            own = hashlib.file_digest(stream, "sha256").digest()
            size_bytes += stream.tell()
        digest.update(os.fsencode(file.relative_to(result)) + b"\0" + own)
    return {"bytes": size_bytes, "sha256": digest.hexdigest()}


def bytes_of(result: Path) -> int:
    """Size of a file, or of all files in a folder.

    Raises
    ------
    OSError
        Where there is none.

    """
    status = result.stat()
    return sum(file.stat().st_size for file in _files_below(result)) if result.is_dir() else status.st_size


def _files_below(folder: Path) -> list[Path]:
    return sorted(Path(where, name) for where, _, names in os.walk(folder) for name in names)


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
