"""Files mapped into memory that keep no descriptor open.

:class:`mmap.mmap` duplicates the descriptor of its file for as long as it lives (until Python 3.13 has ``trackfd``), so
that a thousand planes of a stack in files would be a thousand open files, which is what a process often may have.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from typing import IO, Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value


class MappedFile:
    """The beginning of a file, shared with it; NumPy makes an array of bytes of it, which keeps it mapped.

    Parameters
    ----------
    file
        Open for reading and writing; it may be closed afterwards.
    size
        Bytes, at least 1; the file has no fewer.

    Raises
    ------
    OSError
        Where the system maps no more: ``vm.max_map_count``, or its limit of address space.

    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        access = mmap.PROT_READ | mmap.PROT_WRITE
        address = _LIBC.mmap(None, size, access, mmap.MAP_SHARED, file.fileno(), 0)
        if address == _FAILED:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        self._place = address, size
        self._unmap = weakref.finalize(self, _LIBC.munmap, address, size)
        self._unmap.atexit = False  # at the interpreter's end threads may still be at it

    @property
    def closed(self) -> bool:
        """Whether it is mapped no longer."""
        return not self._unmap.alive

    def close(self) -> None:
        """Unmap it, whoever holds arrays of it: to touch one afterwards would end the process."""
        self._unmap()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """See NumPy's array interface protocol."""
        address, size = self._place
        return {"version": 3, "data": (address, False), "shape": (size,), "typestr": "|u1"}

    def forget(self) -> None:
        """Have nothing of it resident; whatever is touched again comes back from the page cache, or from disk."""
        _LIBC.madvise(*self._place, mmap.MADV_DONTNEED)
