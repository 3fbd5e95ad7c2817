"""The files of one job in its folder."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError

from service.jobs.errors import NoRoomForJobs
from service.jobs.record import Record

JOB_ID = re.compile("[0-9a-f]{32}")
"""What the id of a job, and so its folder's name, looks like."""

RECORD, RESULT, FETCHED = "job.json", "result", "fetched"

Stamp: TypeAlias = tuple[int, int]
"""Inode and time (ns) of a record: other ones are another record."""


def private(path: str, flags: int) -> int:
    """Open a file that nobody else may read: an ``opener`` of :func:`open`."""
    return os.open(path, flags, mode=0o600)


def read_record(folder: Path) -> Record:
    """Read a job's record.

    Raises
    ------
    FileNotFoundError
        Where there is none, or none that this version can read.

    """
    try:
        return Record.model_validate_json((folder / RECORD).read_bytes())
    except (NotADirectoryError, ValidationError) as error:
        raise FileNotFoundError(f"{folder / RECORD} is no record of a job") from error


def stamp_of(folder: Path) -> Stamp:
    """Stamp of a job's record."""
    found = (folder / RECORD).stat()
    return found.st_ino, found.st_mtime_ns


def replace_record(folder: Path, record: Record) -> Stamp:
    """Replace a record whole, so that who reads finds the old one or the new one; returns its stamp."""
    new = folder / f".{secrets.token_hex(4)}"
    try:
        with open(new, "x", encoding="utf-8", opener=private) as file:
            file.write(record.model_dump_json())
        found = new.stat()
        new.replace(folder / RECORD)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    return found.st_ino, found.st_mtime_ns


def refused(what: str, error: OSError) -> NoRoomForJobs:
    """Return what a refusal of the disk means; ``what`` ends in a verb: ``5 bytes are``."""
    return NoRoomForJobs(
        f"{what} needed in the folder of jobs, which refuses to take it: {error.strerror}; make room there, or point "
        "UNET_JOBS_DIR to a folder on a larger disk that can be written"
    )
