"""The files of one job in its folder."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal, TypeAlias

from pydantic import ValidationError

from service.jobs.errors import JobExists, JobUnavailable, NoRoomForJobs
from service.jobs.record import Record

JOB_ID = re.compile("[0-9a-f]{32}")
"""What the id of a job, and so its folder's name, looks like."""

RECORD, RESULT, FETCHED, SENT = "job.json", "result", "fetched", "sent"
_MOST_SENT_BYTES = 2048
_SENT = re.compile(rb"^(\d{1,18}) (\d{1,18})$", re.MULTILINE)

Stamp: TypeAlias = tuple[int, int]
"""Inode and time (ns) of a record: other ones are another record."""


def private(path: str, flags: int) -> int:
    """Open a file that nobody else may read: an ``opener`` of :func:`open`."""
    return os.open(path, flags, mode=0o600)


def hidden_name(what: Literal["new", "gone"]) -> str:
    """Name a folder that is being made or cleared away, whatever its job's id: that may be given again meanwhile."""
    return f".{what}-{secrets.token_hex(16)}"


def give_name(new: Path, job_id: str) -> None:
    """Make a job known, whose folder is complete.

    Raises
    ------
    JobExists
        Where there is one of this id; the new one is removed.
    OSError
        Where it cannot be.

    """
    try:
        new.rename(new.with_name(job_id))
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        clear(new)
        raise JobExists(job_id) from error


def read_record(folder: Path) -> Record:
    """Read a job's record.

    Raises
    ------
    FileNotFoundError
        Where there is none, none that this version can read, or another job's.
    OSError
        Where it is no file.

    """
    try:
        with os.fdopen(_open_regular(folder / RECORD), "rb") as file:
            record = Record.model_validate_json(file.read())
    except (NotADirectoryError, ValidationError) as error:
        raise FileNotFoundError(f"{folder / RECORD} is no record of a job") from error
    if record.report.id != folder.name:
        raise FileNotFoundError(f"{folder / RECORD} is the record of another job, {record.report.id!r}")
    return record


def stamp_of(folder: Path) -> Stamp:
    """Stamp of a job's record."""
    found = (folder / RECORD).lstat()
    return found.st_ino, found.st_mtime_ns


def replace_record(folder: Path, record: Record) -> Stamp:
    """Replace a record whole, so that who reads finds the old one or the new one; returns its stamp."""
    new = folder / f".{secrets.token_hex(4)}"
    try:
        with open(new, "x", encoding="utf-8", opener=private) as file:
            file.write(record.model_dump_json())
            if record.report.over:  # the last word shall outlive a failure of power
                file.flush()
                os.fsync(file.fileno())
        found = new.stat()
        new.replace(folder / RECORD)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    return found.st_ino, found.st_mtime_ns


def touch_record(folder: Path, stamp: Stamp) -> Stamp:
    """Renew the time of a record that is still the one of this stamp; returns its new one.

    Raises
    ------
    FileNotFoundError
        Where it is another.

    """
    file = _open_regular(folder / RECORD)
    try:
        found = os.fstat(file)
        if (found.st_ino, found.st_mtime_ns) != stamp:
            raise FileNotFoundError(f"{folder / RECORD} is another record now")
        os.utime(file)
        return found.st_ino, os.fstat(file).st_mtime_ns
    finally:
        os.close(file)


def open_result(folder: Path, size: int | None) -> IO[bytes]:
    """Open a job's result.

    Raises
    ------
    FileNotFoundError
        Where there is none.
    OSError
        Where it is no file of that size: whoever can write into the folder shall not choose what is sent.

    """
    file = os.fdopen(_open_regular(folder / RESULT), "rb")
    if os.fstat(file.fileno()).st_size != size:
        file.close()
        raise OSError(errno.EINVAL, f"{RESULT} is no file of {size} bytes")
    return file


def note_sent(folder: Path, part: range, size: int) -> None:
    """Note that a part of a job's result has been sent, and once all parts have been that the result is fetched.

    Whoever has the end alone, as programs that look at it first, has not fetched it. Where a result is sent in so many
    parts that their list grows beyond 2 KiB, later ones do not count.

    Parameters
    ----------
    folder
        The job's.
    part
        Which bytes.
    size
        Bytes of the whole.

    Raises
    ------
    OSError
        Where it cannot be noted.

    """
    if _reach([(part.start, part.stop)]) < size and _reach(_sent_with(folder, part)) < size:
        return
    os.close(os.open(folder / FETCHED, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, mode=0o600))


def _sent_with(folder: Path, part: range) -> list[tuple[int, int]]:
    """Add a part to the list of those that have been sent, and return it; replicas may do so at the same time."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(folder / SENT, flags, mode=0o600), "r+b", buffering=0) as file:
        if os.fstat(file.fileno()).st_size < _MOST_SENT_BYTES:
            file.write(f"{part.start} {part.stop}\n".encode())
        file.seek(0)
        return [(int(first), int(stop)) for first, stop in _SENT.findall(file.read(2 * _MOST_SENT_BYTES))]


def _reach(parts: list[tuple[int, int]]) -> int:
    """How far parts reach from the beginning without a gap."""
    reach = 0
    for first, stop in sorted(parts):
        if first <= reach:
            reach = max(reach, stop)
    return reach


def _open_regular(path: Path) -> int:
    """Open a file for reading; what stands in its place, such as a pipe, is refused and waited for by nobody."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, f"{path.name} is no file")
    except BaseException:
        os.close(file)
        raise
    return file


def clear(path: Path) -> None:
    """Remove a job's folder with all that is in it, as far as that can be, or what stands in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def refused(what: str, error: OSError) -> NoRoomForJobs:
    """Return what a refusal of the disk means; ``what`` ends in a verb: ``5 bytes are``."""
    return NoRoomForJobs(
        f"{what} needed in the folder of jobs, which refuses to take it: {error.strerror}; make room there, or point "
        "UNET_JOBS_DIR to a folder on a larger disk that can be written"
    )


def unavailable(job_id: str, error: OSError) -> JobUnavailable:
    """Return what it means that a job's files cannot be used."""
    return JobUnavailable(
        f"job {job_id} cannot be read or changed in the folder of jobs: {error.strerror}; try again in "
        f"{JobUnavailable.retry_after_s} s, or see to the disk of UNET_JOBS_DIR"
    )
