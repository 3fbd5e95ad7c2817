"""Read PNG some rows at a time: zlib inflates, libpng undoes the filters, samples keep their 16 bits."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from model.images.axes import check_picture
from model.images.errors import UndecodableImage, undecodable
from model.images.image import ImageHeader, Part, ReaderOfParts, ReadLimits, believed_um, check_index
from model.images.palette import expand, grey_only, palette_note
from model.images.png_bands import Inflated, RowLayout, passes, raw_bands
from model.images.png_chunks import IHDR, METRE, PHYS, SIGNATURE, checksum

MAX_CHUNKS = 1 << 17
"""Of 8 KiB, as libpng writes them, a picture of 1 GiB."""
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 3, GREY_ALPHA: 1, RGB_ALPHA: 3}
SAMPLES = CHANNELS | {PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
DEPTHS = dict.fromkeys((RGB, GREY_ALPHA, RGB_ALPHA), (8, 16)) | {GREY: (1, 2, 4, 8, 16), PALETTE: (1, 2, 4, 8)}
MAX_PALETTE_BYTES = 3 * 256
CHUNK_NOTES = {
    b"tRNS": "transparency dropped",
    b"acTL": "animation: only the first picture is read",
    b"eXIf": "EXIF data, orientation among it, is not applied",
}
CHUNK_BYTES = 1 << 20


class PngReader(ReaderOfParts):
    """An opened PNG (ISO 15948); ``header`` comes from its chunks alone."""

    __slots__ = ("_colour", "_data", "_interlaced", "_layout", "_lock", "_palette", "_source")

    def __init__(self, source: IO[bytes], limits: ReadLimits, axes: str | None = None) -> None:
        self._source, self._lock = source, threading.Lock()
        with undecodable("the PNG header"):
            source.seek(len(SIGNATURE))
            length, kind = struct.unpack(">I4s", source.read(8))
            if kind != b"IHDR" or length != IHDR.size:
                raise ValueError(f"first chunk {kind!r} of {length} bytes")
            width, height, depth, colour, *methods = IHDR.unpack(_checked(kind, source.read(length + 4)))
            if depth not in DEPTHS.get(colour, ()) or methods not in ([0, 0, 0], [0, 0, 1]):
                raise ValueError(f"colour type {colour}, depth {depth}, compression, filter and interlace {methods}")
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
        self._interlaced = bool(methods[-1])
        if depth < 8 and colour == GREY:
            notes.insert(0, f"{depth} bits per pixel scaled to 0 to 255")
        self.header = replace(
            header, channels=1 if greys else header.channels, pixel_size_um=size_um, notes=tuple(notes)
        )
        check_picture(axes, self.header)

    def _walk_chunks(self, colour: int) -> tuple[list[str], bool, tuple[float, float] | None]:
        """Follow the chunks to the end; returns notes, whether there is a palette of greys, and a believable size."""
        notes = ["alpha channel dropped"] if colour in {GREY_ALPHA, RGB_ALPHA} else []
        palette: NDArray[np.uint8] | None = None
        size_um = None
        size = self._source.seek(0, 2)
        position = len(SIGNATURE)
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
                if palette is None and colour == PALETTE:
                    raise ValueError("there is no palette")
                return list(dict.fromkeys(notes)), palette is not None and grey_only(palette), size_um
            if kind == b"IDAT" and length:
                self._data.append((position - length - 4, length))
            elif kind == b"PLTE" and colour == PALETTE:
                if palette is not None or not 3 <= length <= MAX_PALETTE_BYTES:
                    raise ValueError(
                        f"a second palette, or one of {length} bytes; 3 to {MAX_PALETTE_BYTES} are allowed"
                    )
                palette = np.frombuffer(_checked(kind, self._source.read(length + 4)), dtype=np.uint8).reshape(-1, 3)
                self._palette[: len(palette)] = palette
                notes.append(palette_note(palette))
            elif kind == b"pHYs" and length == PHYS.size:
                size_um = _size_um(self._source.read(length + 4))
            elif kind in CHUNK_NOTES:
                notes.append(CHUNK_NOTES[kind])
        else:
            raise ValueError(f"there are more than {MAX_CHUNKS} chunks, which is the limit")
        msg = f"the PNG has no end chunk within its {size} bytes; the upload is truncated: send it again"
        raise UndecodableImage(msg)

    @property
    def part_bytes(self) -> int:
        """Bytes of the largest part: some rows, or the whole of an interlaced picture."""
        if self._interlaced:
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
        inflated = Inflated(self._chunks())
        if self._interlaced:
            with undecodable("the PNG"):
                picture_yxc = self._deinterlaced(inflated)
            yield self._part(0, picture_yxc)
            return
        bands = self._bands(self._layout, inflated)
        top = 0
        while True:
            with undecodable("the PNG"):
                samples = next(bands, None)
                if samples is None:
                    inflated.end()
                    return
            yield self._part(top, samples)
            top += len(samples)

    def _deinterlaced(self, inflated: Inflated) -> NDArray[Any]:
        picture_yxc = np.empty((*self.header.size_yx, self.header.channels), dtype=self.header.dtype)
        for top, left, step_y, step_x, layout in passes(self._layout, interlaced=True):
            target = picture_yxc[top::step_y, left::step_x]
            row = 0
            for samples in self._bands(layout, inflated):
                target[row : row + len(samples)] = samples[..., : self.header.channels]
                row += len(samples)
        inflated.end()
        return picture_yxc

    def _bands(self, layout: RowLayout, inflated: Inflated) -> Iterator[NDArray[Any]]:
        """Samples (y, x, s) of the next rows, palettes expanded and few bits scaled."""
        for band in raw_bands(layout, inflated):
            samples = layout.unpacked(band)
            if self._colour == PALETTE:
                samples = expand(samples[..., 0], self._palette)
            elif layout.depth < 8:
                samples = samples * np.uint8(255 // ((1 << layout.depth) - 1))
            yield samples

    def _part(self, top: int, samples: NDArray[Any]) -> Part:
        # without alpha, and one channel of a palette of greys
        kept = samples[..., : self.header.channels]
        if kept.shape[1:] != (self.header.size_yx[1], self.header.channels) or kept.dtype != self.header.dtype:
            msg = f"the PNG decoded to {samples.shape} {samples.dtype}, its header says {self.header.size_yx}"
            raise UndecodableImage(f"{msg}; write the file again")
        return Part(slice(top, top + len(kept)), slice(0, self.header.channels), kept)

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


def _checked(kind: bytes, body: bytes) -> bytes:
    """Return a chunk's body without the checksum behind it, which is compared."""
    data, expected = body[:-4], body[-4:]
    if checksum(kind, data) != expected:
        raise ValueError(f"the checksum of the chunk {kind.decode('latin-1')} is not the one declared")
    return data


def _size_um(chunk: bytes) -> tuple[float, float] | None:
    """Height and width of a pixel by a ``pHYs`` chunk, its checksum included, where it is whole and believable."""
    x, y, unit = PHYS.unpack_from(chunk)
    whole = chunk[PHYS.size :] == checksum(b"pHYs", chunk[: PHYS.size])
    return believed_um(1e6 / y, 1e6 / x) if whole and unit == METRE and x and y else None
