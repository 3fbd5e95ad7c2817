"""Read NumPy's own file format; objects, which would be unpickled, are never read."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from model.images.errors import UndecodableImage, undecodable
from model.images.image import (
    ImageHeader,
    Part,
    ReaderOfParts,
    ReadLimits,
    check_index,
    handed_out,
    widen,
    widened_note,
)

MAGIC = b"\x93NUMPY"
MAX_LAST_CHANNELS = 4


BLOCK_BYTES = 4 << 20
"""Read at once: copying from memory keeps the interpreter's lock."""
PART_BYTES = 32 << 20
"""Handed out at once, where the array is row-major."""


class NpyReader(ReaderOfParts):
    """An opened .npy: (y, x), (y, x, c) with c <= 4, or stacks (..., y, x) of planes."""

    __slots__ = ("_channels_last", "_fortran", "_lock", "_offset", "_planes", "_shape", "_source", "_stored")

    def __init__(self, source: IO[bytes], limits: ReadLimits) -> None:
        self._source, self._lock = source, threading.RLock()
        self._planes: NDArray[Any] | None = None
        file_bytes = source.seek(0, 2)
        source.seek(0)
        with undecodable("the .npy header"):
            version = np.lib.format.read_magic(source)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read is None:
                msg = f"version {version}, 1.0 and 2.0 are read"
                raise ValueError(msg)
            self._shape, self._fortran, self._stored = read(source)
        self._offset = source.tell()
        shape = self._shape
        if not 2 <= len(shape) <= 6 or self._stored.hasobject:
            msg = f"the array is {len(shape)}-dimensional {self._stored}, an image has 2 to 6 dimensions of numbers"
            raise UndecodableImage(f"{msg}; send (y, x), (y, x, channels) or a stack (planes, y, x)")
        self._channels_last = len(shape) > 2 and shape[-1] <= MAX_LAST_CHANNELS
        *stack, height, width, channels = shape if self._channels_last else (*shape, 1)
        notes = widened_note(self._stored)
        if len(shape) > 2:
            meaning = f"{channels} channels" if self._channels_last else "a row of pixels"
            notes += (f"last axis of length {shape[-1]} taken as {meaning}",)
        self.header = ImageHeader(
            format="npy",
            dtype=handed_out(self._stored),
            size_yx=(height, width),
            channels=channels,
            planes=math.prod(stack),
            stack_axes="IJKL"[: len(stack)],
            stack_shape=tuple(stack),
            bits=8 if self._stored == np.bool_ else self._stored.itemsize * 8,
            pixel_size_um=None,
            compression="none",
            notes=notes,
        )
        limits.check(self.header)
        declared = math.prod(shape) * self._stored.itemsize
        if file_bytes - self._offset != declared:
            msg = f"the array {shape} {self._stored} takes {declared} bytes, {file_bytes - self._offset} were sent"
            raise UndecodableImage(f"{msg}; the upload is incomplete or not an .npy file: save it again")

    @property
    def part_bytes(self) -> int:
        """Bytes of the largest part: some rows, or the whole array where it is column-major."""
        if self._fortran:
            return math.prod(self._shape) * self._stored.itemsize
        return min(self.plane_bytes, max(PART_BYTES, self.plane_bytes // self.header.size_yx[0]))

    def read_parts(self, index: int) -> Iterator[Part]:
        """Read plane ``index`` as (y, x, c) of ``header.dtype``, some rows at a time.

        Raises
        ------
        IndexError
            There is no such plane.
        UndecodableImage
            A 64 bit integer is too large, or the source fails.
        """
        check_index(index, self.header.planes)
        (height, width), channels = self.header.size_yx, self.header.channels
        if self._fortran:
            with undecodable("the .npy array"):
                plane = self._handed_out(self._column_major()[index])
            yield Part(slice(0, height), slice(0, channels), plane)
            return
        step = max(1, PART_BYTES // (width * channels * self._stored.itemsize))
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            with undecodable("the .npy array"):
                first = (index * height + top) * width * channels
                samples = self._read(first, (rows.stop - top) * width * channels)
                part = self._handed_out(samples.reshape(-1, width, channels))
            yield Part(rows, slice(0, channels), part)

    def _column_major(self) -> NDArray[Any]:
        """Planes (n, y, x, c) as stored: a column-major stack interleaves them, and is kept once it has been read."""
        with self._lock:
            if self._planes is not None:
                return self._planes
            samples = self._read(0, math.prod(self._shape)).reshape(self._shape, order="F")
            planes = samples.reshape(-1, *self.header.size_yx, self.header.channels)
            if len(planes) > 1:
                self._planes = planes
            return planes

    def _read(self, first: int, values: int) -> NDArray[Any]:
        samples = np.empty(values, dtype=self._stored)
        with self._lock:
            self._source.seek(self._offset + first * self._stored.itemsize)
            _fill(samples.view(np.uint8), self._source)
        return samples

    def _handed_out(self, samples: NDArray[Any]) -> NDArray[Any]:
        return widen(samples.astype(self._stored.newbyteorder("="), copy=False))


def _fill(target: NDArray[np.uint8], source: IO[bytes]) -> None:
    view = target.data
    for at in range(0, len(view), BLOCK_BYTES):
        block = source.read(min(BLOCK_BYTES, len(view) - at))
        view[at : at + len(block)] = block
        if at + len(block) < min(at + BLOCK_BYTES, len(view)):
            msg = f"{at + len(block)} of {len(view)} bytes are there"
            raise EOFError(msg)
