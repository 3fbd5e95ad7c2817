"""Tensors: the protocol's names of their types, and one inside a larger file, read as if it were an .npy file."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

DTYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
        "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    }.items()
}  # fmt: skip
"""Little-endian, as the extension of binary tensors wants it, by the protocol's name: whatever an .npy may hold."""


def datatype(dtype: np.dtype[Any]) -> str:
    """Name that the protocol has for a type."""
    return next(name for name, known in DTYPES.items() if known == dtype)


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is said of a tensor before its values come."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def count(self) -> int:
        """Number of its values."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return self.count * self.dtype.itemsize

    def npy_header(self) -> bytes:
        """First bytes of an .npy file that holds it."""
        header = io.BytesIO()
        described = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(header, described)
        return header.getvalue()


def as_npy(tensor: Tensor, source: BinaryIO, offset: int) -> BinaryIO:
    """Show a tensor whose bytes begin at ``offset`` of a seekable file as an .npy file; nothing is copied or closed."""
    return cast(BinaryIO, io.BufferedReader(_Npy(tensor, source, offset)))


class _Npy(io.RawIOBase):
    def __init__(self, tensor: Tensor, source: BinaryIO, offset: int) -> None:
        self._header = tensor.npy_header()
        self._length = len(self._header) + tensor.size
        self._source = source
        self._offset = offset
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer)
        if self._at < len(self._header):
            part = self._header[self._at : self._at + len(target)]
        else:
            self._source.seek(self._offset + self._at - len(self._header))
            part = self._source.read(max(0, min(len(target), self._length - self._at)))
        target[: len(part)] = part
        self._at += len(part)
        return len(part)
