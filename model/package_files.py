"""Files of a package on disk, folder or zip: read within limits, their hashes checked."""

from __future__ import annotations

import hashlib
import lzma
import os
import stat
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from model.errors import InvalidPackage
from model.spec import PackageFile

_MOST_BYTES = 2 << 30  # ONNX itself ends at 2 GiB
MOST_TEXT_BYTES = 4 << 20
_UNPACKED_FREELY_BYTES = 64 << 20
_MOST_TIMES_PACKED = 20
"""Above that size, from a zip: weights become a tenth smaller by it, a few megabytes of zeros are two gigabytes."""
UNREADABLE = (
    OSError,
    KeyError,
    ValueError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What reading from a damaged folder or zip may raise."""


def read_file(path: Path, name: str, most_bytes: int) -> bytes:
    """Content of one file of the package, by its name in there.

    Raises
    ------
    InvalidPackage
        Where it is none, cannot be read, leads out of the package, or has more than ``most_bytes``.

    """
    try:
        if path.is_dir():
            file = path / name
            if not file.resolve().is_relative_to(path.resolve()):
                raise InvalidPackage(f"{path}: {name!r} leads out of the package")
            if file.exists() and not file.is_file():
                raise InvalidPackage(f"{path}: {name!r} is no file")
            with open_regular(file) as stream:
                _require_size(path, name, os.fstat(stream.fileno()).st_size, most_bytes)
                return stream.read()
        with open_regular(path) as stream, zipfile.ZipFile(stream) as archive:
            entry = archive.getinfo(name)
            _require_size(path, name, entry.file_size, most_bytes)
            _require_weight(path, entry)
            return archive.read(name)
    except UNREADABLE as error:
        remedy = "; copy the zip anew" if isinstance(error, zipfile.BadZipFile) else ""
        raise InvalidPackage(f"{path}: {name} cannot be read: {error}{remedy}") from error


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; a pipe, for which nobody may ever come to write, is not waited for.

    Raises
    ------
    OSError
        Where it cannot be, or is a pipe, a socket or a device.

    """
    stream = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - a path's own takes no opener
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError("it is no regular file; replace it by one")
    return stream


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | int(getattr(os, "O_NONBLOCK", 0)))


def _require_size(path: Path, name: str, found: int, most_bytes: int) -> None:
    if found > most_bytes:
        raise InvalidPackage(f"{path}: {name} has {found} bytes, the limit for such a file is {most_bytes}")


def _require_weight(path: Path, entry: zipfile.ZipInfo) -> None:
    """Refuse what takes much memory and next to nothing in the zip, whose own size nobody can feign."""
    packed = min(entry.compress_size, path.stat().st_size)
    if entry.file_size > max(_UNPACKED_FREELY_BYTES, _MOST_TIMES_PACKED * packed):
        raise InvalidPackage(
            f"{path}: {entry.filename} has {entry.file_size} bytes, {packed} of them in the zip; the limit "
            f"above {_UNPACKED_FREELY_BYTES} is {_MOST_TIMES_PACKED} times as many. If they are meant, "
            "unpack the zip to a folder"
        )


def checked_file(path: Path, file: PackageFile, most_bytes: int = _MOST_BYTES) -> bytes:
    """Content of a file of the package, its hash checked where the package gives one.

    Raises
    ------
    InvalidPackage
        As :func:`read_file`, and where it has another hash.

    """
    data = read_file(path, file.source, most_bytes)
    if file.sha256 is not None:
        found = hashlib.sha256(data).hexdigest()
        if found != file.sha256:
            raise InvalidPackage(
                f"{path}: {file.source} has sha256 {found}, the package says {file.sha256}; copy it anew"
            )
    return data
