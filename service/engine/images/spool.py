"""Arrays and files on disk, for what does not fit into the memory budget: decoded planes, results, encoded answers.

A spooled array is a file mapped into memory. What was touched of it counts as memory of the process until it is
forgotten, which happens by itself after :data:`MAPPED_BYTES`: the system keeps it in its page cache as long as there is
room, and on disk. Files have no name. An array's vanishes with the last reference to it, and at the latest when its
request is over, which says so to the :class:`SpoolShare` that made it. An array keeps no file open: a stack has one for
each of its planes.
"""

from __future__ import annotations

import errno
import math
import os
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import IO, Any
from weakref import WeakSet

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from service.engine.errors import SpoolFull
from service.engine.images.mapping import MappedFile

MAPPED_BYTES = 8 << 20
"""Of one array, before its parts are forgotten; twice this at most are resident."""
MORE_FILES: Mapping[int, str] = dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n)")
"""By error of a system that opens no more files, the remedy."""
_REMEDIES = {**MORE_FILES, errno.ENOMEM: "allow more mapped files (sysctl vm.max_map_count, ulimit -v)"}
"""By error of the system, where another disk would not help."""


class SpooledArray:
    """An array in a nameless file; a part that is indexed is a view, and writes to it reach the file.

    Parameters
    ----------
    file
        Empty and open for reading and writing; it is closed here, the mapping keeps it.
    shape, dtype
        Of the array, which begins as zeros.

    Raises
    ------
    SpoolFull
        Where the disk has no room for it, or the system maps no more files.

    Attributes
    ----------
    mapped
        The file; once it is closed indexing raises :class:`ValueError`, and parts got before must not be touched.

    """

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        size = math.prod(shape) * dtype.itemsize
        with file:
            try:
                # writing to a page for which the disk has no room would end the process, so all of it is taken now
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                raise spool_full(f"{math.ceil(size / 1e6)} MB are", error) from error
            try:
                self.mapped = MappedFile(file, size)
            except OSError as error:
                raise spool_full("1 more mapped file is", error) from error
        self._array: NDArray[Any] = np.asarray(self.mapped).view(dtype).reshape(shape)
        self._touched = 0
        self._lock = threading.Lock()

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        shape: tuple[int, ...] = self._array.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        kind: np.dtype[Any] = self._array.dtype
        return kind

    def __getitem__(self, key: Any, /) -> Any:  # noqa: ANN401 - as numpy has it
        part = self._part(key)
        self._touch(part)
        return part

    def __setitem__(self, key: Any, value: Any, /) -> None:  # noqa: ANN401
        part = self._part(key)
        self._touch(part)
        part[...] = value

    def _part(self, key: Any) -> NDArray[Any]:  # noqa: ANN401
        if self.mapped.closed:
            raise ValueError("the file of this array is closed")
        part: NDArray[Any] = self._array[key]
        return part

    def _touch(self, part: NDArray[Any]) -> None:
        low, high = byte_bounds(part)
        with self._lock:
            self._touched += high - low
            forget = self._touched > MAPPED_BYTES
            if forget:
                self._touched = high - low
        if forget:
            self.mapped.forget()


def spool_full(what: str, error: OSError) -> SpoolFull:
    """Return what a refusal of the spool's disk, or of the system, means; ``what`` ends in a verb: ``5 MB are``."""
    remedy = _REMEDIES.get(error.errno or 0, "make room there, point UNET_SPOOL_DIR to a larger disk")
    return SpoolFull(
        f"{what} needed in the spool folder, which refuses to take it: {error.strerror}; {remedy}, or send the image "
        "in parts"
    )


class Spool:
    """The folder of spooled arrays and files.

    Parameters
    ----------
    folder
        On a disk; None for the system's temporary folder.

    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder

    @property
    def capacity(self) -> int:
        """Bytes of the file system that it lies on, whatever else is there; no limit where it is not there."""
        try:
            size = os.statvfs(self._folder or tempfile.gettempdir())
        except OSError:
            return sys.maxsize
        return size.f_blocks * size.f_frsize

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> SpooledArray:
        """Make an array of zeros on disk.

        Raises
        ------
        SpoolFull
            Where there is no room for it.

        """
        return SpooledArray(self.file(), shape, dtype)

    def file(self) -> IO[bytes]:
        """Make an empty file without a name; closing it frees its room.

        Raises
        ------
        SpoolFull
            Where the folder cannot be written.

        """
        try:
            return tempfile.TemporaryFile(dir=self._folder)
        except OSError as error:
            if error.errno in _REMEDIES:
                raise spool_full("1 more file is", error) from error
            folder = f"spool folder {self._folder!r}" if self._folder else "temporary folder"
            setting = "UNET_SPOOL_DIR" if self._folder else "TMPDIR"
            raise SpoolFull(
                f"0 files can be made in the {folder}, 1 is needed: {error.strerror}; point {setting} to a folder that "
                "can be written"
            ) from error


class SpoolShare:
    """What one request has of the spool.

    Parameters
    ----------
    spool
        Where it lies.

    """

    def __init__(self, spool: Spool) -> None:
        self.file = spool.file
        """For the answer, which lasts longer than the request: closing it frees its room."""
        self._spool = spool
        # of arrays that have gone, too: whoever keeps a part of one keeps its file
        self._mapped: WeakSet[MappedFile] = WeakSet()

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> SpooledArray:
        """See :meth:`Spool.array`; any thread may call it."""
        array = self._spool.array(shape, dtype)
        self._mapped.add(array.mapped)
        return array

    def close(self) -> None:
        """Free the room of all arrays, whoever still holds them; no thread may be at one, or get to it."""
        for mapped in list(self._mapped):
            mapped.close()
