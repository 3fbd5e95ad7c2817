"""Read NumPy's own file format; objects, which would be unpickled, are never read."""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from model.images.axes import mismatch
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
MAX_HEADER_BYTES = 10_000
"""NumPy's own limit, which it applies to a header that it has already read whole."""
BLOCK_BYTES = 4 << 20
"""Read at once: copying from memory keeps the interpreter's lock."""
PART_BYTES = 32 << 20
"""Handed out at once, where the array is row-major."""
_HEADERS = {
    (1, 0): (struct.Struct("<H"), np.lib.format.read_array_header_1_0),
    (2, 0): (struct.Struct("<I"), np.lib.format.read_array_header_2_0),
}
"""How the length of the header is stored and what reads it, by the version of the format."""


class NpyReader(ReaderOfParts):
    """An opened .npy: with its axes as asked for, or (y, x), (y, x, c) with c <= 4, or stacks (..., y, x) of planes."""

    __slots__ = ("_axes", "_fortran", "_lock", "_offset", "_page_axes", "_planes", "_shape", "_source", "_stored")

    def __init__(self, source: IO[bytes], limits: ReadLimits, axes: str | None = None) -> None:
        self._source, self._lock = source, threading.RLock()
        self._planes: NDArray[Any] | None = None
        file_bytes = source.seek(0, 2)
        source.seek(0)
        with undecodable("the .npy header"):
            self._shape, self._fortran, self._stored = _read_header(source)
        self._offset = source.tell()
        shape = self._shape
        if not 2 <= len(shape) <= 6 or self._stored.hasobject:
            msg = f"the array is {len(shape)}-dimensional {self._stored}, an image has 2 to 6 dimensions of numbers"
            raise UndecodableImage(f"{msg}; send (y, x), (y, x, channels) or a stack (planes, y, x)")
        notes = widened_note(self._stored)
        if axes is None:
            axes = _usual_axes(shape)
            meaning = f"{shape[-1]} channels" if axes.endswith("C") else "a row of pixels"
            notes += (f"last axis of length {shape[-1]} taken as {meaning}",) * (len(shape) > 2)
        elif len(axes) != len(shape):
            raise mismatch(axes, _usual_axes(shape), shape)
        self._axes = axes
        self._page_axes = "" if self._fortran else next((end for end in ("YXC", "YX") if axes.endswith(end)), "")
        lengths = dict(zip(axes, shape, strict=True))
        height, width = lengths.pop("Y"), lengths.pop("X")
        channels = lengths.pop("C", 1)
        stack_axes, stack = "".join(lengths), tuple(lengths.values())
        self.header = ImageHeader(
            format="npy",
            dtype=handed_out(self._stored),
            size_yx=(height, width),
            channels=channels,
            planes=math.prod(stack),
            stack_axes=stack_axes,
            stack_shape=stack,
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
        """Bytes of the largest part: some rows, or the whole array where its planes do not lie one after the other."""
        if not self._page_axes:
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
        if not self._page_axes:
            with undecodable("the .npy array"):
                where = np.unravel_index(index, self.header.stack_shape) if self.header.stack_shape else ()
                plane = self._handed_out(np.ascontiguousarray(self._interleaved()[where]))
            yield Part(slice(0, height), slice(0, channels), plane)
            return
        of_page = channels if self._page_axes == "YXC" else 1
        step = max(1, PART_BYTES // (width * of_page * self._stored.itemsize))
        for channel in range(0, channels, of_page):
            page = self._page(index, channel)
            for top in range(0, height, step):
                rows = slice(top, min(top + step, height))
                with undecodable("the .npy array"):
                    first = (page * height + top) * width * of_page
                    samples = self._read(first, (rows.stop - top) * width * of_page)
                    part = self._handed_out(samples.reshape(-1, width, of_page))
                yield Part(rows, slice(channel, channel + of_page), part)

    def _page(self, index: int, channel: int) -> int:
        """Number of the page in the file that holds a channel of a plane."""
        lead = self._axes.removesuffix(self._page_axes)
        if not lead:
            return 0
        planes = np.unravel_index(index, self.header.stack_shape) if self.header.stack_shape else ()
        where = {"C": channel, **{axis: int(at) for axis, at in zip(self.header.stack_axes, planes, strict=True)}}
        return int(np.ravel_multi_index([where[axis] for axis in lead], self._shape[: len(lead)]))

    def _interleaved(self) -> NDArray[Any]:
        """Planes (..., y, x, c) as stored: a stack whose planes interleave is kept once it has been read."""
        with self._lock:
            if self._planes is not None:
                return self._planes
            samples = self._read(0, math.prod(self._shape)).reshape(self._shape, order="F" if self._fortran else "C")
            if "C" not in self._axes:
                samples = samples[..., np.newaxis]
            order = [*self.header.stack_axes, "Y", "X", "C"]
            axes = self._axes if "C" in self._axes else self._axes + "C"
            planes = samples.transpose([axes.index(letter) for letter in order])
            if self.header.planes > 1:
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


def _read_header(source: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the array is column-major, and the type of its values; ``source`` is left where these begin."""
    version = np.lib.format.read_magic(source)
    if version not in _HEADERS:
        found = ".".join(map(str, version))
        msg = f"the .npy file is of version {found}, 1.0 and 2.0 are read"
        raise UndecodableImage(f"{msg}; save the pixels alone, as an array of numbers")
    length, read = _HEADERS[version]
    at = source.tell()
    (header_bytes,) = length.unpack(source.read(length.size))
    if header_bytes > MAX_HEADER_BYTES:
        msg = f"the .npy header takes {header_bytes} bytes, the limit is {MAX_HEADER_BYTES}"
        raise UndecodableImage(f"{msg}; save the pixels alone, as an array of numbers")
    source.seek(at)
    return read(source)


def _usual_axes(shape: tuple[int, ...]) -> str:
    """Axes of an array of which nothing is known."""
    page = "YXC" if len(shape) > 2 and shape[-1] <= MAX_LAST_CHANNELS else "YX"
    return "IJKL"[: len(shape) - len(page)] + page


def _fill(target: NDArray[np.uint8], source: IO[bytes]) -> None:
    view = target.data
    for at in range(0, len(view), BLOCK_BYTES):
        block = source.read(min(BLOCK_BYTES, len(view) - at))
        view[at : at + len(block)] = block
        if at + len(block) < min(at + BLOCK_BYTES, len(view)):
            msg = f"{at + len(block)} of {len(view)} bytes are there"
            raise EOFError(msg)
