"""Read PNG with libpng through imagecodecs, which keeps 16 bit RGB at 16 bits; large ones some rows at a time."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from model.images.axes import check_picture
from model.images.errors import UndecodableImage, undecodable
from model.images.image import ImageHeader, Part, ReaderOfParts, ReadLimits, believed_um, check_index
from model.images.palette import expand, grey_only, palette_note
from model.images.png_bands import RowLayout, raw_bands

MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 1 << 20
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 3, GREY_ALPHA: 1, RGB_ALPHA: 3}
SAMPLES = CHANNELS | {PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
WHOLE_BYTES = 64 << 20
"""Decoded size up to which a picture is decoded at once."""
CHUNK_BYTES = 1 << 20
PHYS, METRE = struct.Struct(">IIB"), 1  # ISO 15948, 11.3.5.3: pixels per unit in x and y, and which unit


class PngReader(ReaderOfParts):
    """An opened PNG (ISO 15948); ``header`` comes from its chunks alone."""

    __slots__ = ("_by_rows", "_colour", "_data", "_layout", "_lock", "_palette", "_source")

    def __init__(self, source: IO[bytes], limits: ReadLimits, axes: str | None = None) -> None:
        self._source, self._lock = source, threading.Lock()
        with undecodable("the PNG header"):
            source.seek(len(MAGIC))
            length, kind, width, height, depth, colour, *rest = struct.unpack(">I4sIIBBBBB", source.read(21))
            if kind != b"IHDR" or length != 13 or colour not in CHANNELS or depth not in {1, 2, 4, 8, 16}:
                msg = f"first chunk {kind!r} of {length} bytes, colour type {colour}, depth {depth}"
                raise ValueError(msg)
        header = ImageHeader(
            format="png",
            dtype=np.dtype(np.uint16 if depth == 16 else np.uint8),
            size_yx=(height, width),
            channels=CHANNELS[colour],
            planes=1,
            stack_axes="",
            stack_shape=(),
            bits=16 if depth == 16 else 8,
            pixel_size_um=None,
            compression="deflate",
            notes=(),
        )
        limits.check(header)
        self._data: list[tuple[int, int]] = []
        self._palette = np.zeros((256, 3), dtype=np.uint8)
        with undecodable("the PNG"):
            notes, greys, size_um = self._walk_chunks(colour)
        self._colour = colour
        self._layout = RowLayout(width, height, depth, SAMPLES[colour])
        self._by_rows = not rest[-1] and self._layout.row_bytes * height > WHOLE_BYTES
        if depth < 8 and colour == GREY:
            notes.insert(0, f"{depth} bits per pixel scaled to 0 to 255")
        self.header = replace(
            header, channels=1 if greys else header.channels, pixel_size_um=size_um, notes=tuple(notes)
        )
        check_picture(axes, self.header)

    def _walk_chunks(self, colour: int) -> tuple[list[str], bool, tuple[float, float] | None]:
        """Follow the chunks to the end; returns notes, whether there is a palette of greys, and a believable size."""
        notes = ["alpha channel dropped"] if colour in {GREY_ALPHA, RGB_ALPHA} else []
        greys, size_um = False, None
        size = self._source.seek(0, 2)
        position = len(MAGIC)
        for _ in range(MAX_CHUNKS):
            self._source.seek(position)
            head = self._source.read(8)
            if len(head) < 8:
                break
            length, kind = struct.unpack(">I4s", head)
            position += 12 + length
            if position > size:
                break
            if kind == b"IEND":
                return notes, greys, size_um
            if kind == b"IDAT":
                self._data.append((position - length - 4, length))
            elif kind == b"PLTE" and colour == PALETTE:
                palette = np.frombuffer(self._source.read(length), dtype=np.uint8).reshape(-1, 3)
                self._palette[: len(palette)] = palette
                greys = grey_only(palette)
                notes.append(palette_note(palette))
            elif kind == b"pHYs" and length == PHYS.size:
                size_um = _size_um(self._source.read(length + 4))
            elif kind == b"tRNS":
                notes.append("transparency dropped")
            elif kind == b"acTL":
                notes.append("animation: only the first picture is read")
            elif kind == b"eXIf":
                notes.append("EXIF data, orientation among it, is not applied")
        msg = f"the PNG has no end chunk within its {size} bytes; the upload is truncated: send it again"
        raise UndecodableImage(msg)

    @property
    def part_bytes(self) -> int:
        """Bytes of the largest part: some rows of a large picture, the whole of one that is small or interlaced."""
        if not self._by_rows:
            return self.plane_bytes
        return self._layout.rows_of_bands * self.plane_bytes // self.header.size_yx[0]

    def read_parts(self, index: int) -> Iterator[Part]:
        """Decode the picture as (y, x, c) of ``header.dtype``.

        Raises
        ------
        IndexError
            ``index`` is not 0.
        UndecodableImage
            The data are damaged or incomplete.
        """
        check_index(index, self.header.planes)
        if not self._by_rows:
            yield self._part(0, self._whole())
            return
        bands = raw_bands(self._layout, self._chunks())
        top = 0
        while True:
            with undecodable("the PNG"):
                band = next(bands, None)
                if band is None:
                    return
                samples = self._layout.unpacked(band)
                if self._colour == PALETTE:
                    samples = expand(samples[..., 0], self._palette)
                elif self._layout.depth < 8:
                    samples = samples * np.uint8(255 // ((1 << self._layout.depth) - 1))
            yield self._part(top, samples)
            top += len(samples)

    def _part(self, top: int, samples: NDArray[Any]) -> Part:
        # libpng appends alpha to what has transparency, and gives palettes as RGB.
        kept = samples[..., : self.header.channels]
        if kept.shape[1:] != (self.header.size_yx[1], self.header.channels) or kept.dtype != self.header.dtype:
            msg = f"the PNG decoded to {samples.shape} {samples.dtype}, its header says {self.header.size_yx}"
            raise UndecodableImage(f"{msg}; write the file again")
        return Part(slice(top, top + len(kept)), slice(0, self.header.channels), kept)

    def _whole(self) -> NDArray[Any]:
        with undecodable("the PNG"):
            with self._lock:
                self._source.seek(0)
                data = self._source.read()
            samples: NDArray[Any] = imagecodecs.png_decode(data)
            return samples[..., np.newaxis] if samples.ndim == 2 else samples

    def _chunks(self) -> Iterator[bytes]:
        """Compressed data, chunk by chunk."""
        for offset, length in self._data:
            checked = zlib.crc32(b"IDAT")
            for at in range(0, length, CHUNK_BYTES):
                with self._lock:
                    self._source.seek(offset + at)
                    piece = self._source.read(min(CHUNK_BYTES, length - at))
                checked = zlib.crc32(piece, checked)
                yield piece
            with self._lock:
                self._source.seek(offset + length)
                expected = self._source.read(4)
            if struct.pack(">I", checked) != expected:
                msg = f"the checksum of the data at byte {offset} is {checked:08x}, {expected.hex()} is declared"
                raise ValueError(msg)


def _size_um(chunk: bytes) -> tuple[float, float] | None:
    """Height and width of a pixel by a ``pHYs`` chunk, its checksum included, where it is whole and believable."""
    x, y, unit = PHYS.unpack_from(chunk)
    whole = chunk[PHYS.size :] == struct.pack(">I", zlib.crc32(b"pHYs" + chunk[: PHYS.size]))
    return believed_um(1e6 / y, 1e6 / x) if whole and unit == METRE and x and y else None
