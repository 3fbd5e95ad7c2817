"""Read PNG with libpng through imagecodecs, which keeps 16 bit RGB at 16 bits."""

from __future__ import annotations

import struct
import threading
from typing import IO, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from service.formats.errors import UndecodableImage, undecodable
from service.formats.image import ClosesOnExit, ImageHeader, ReadLimits, check_index
from service.formats.palette import grey_only, palette_note

MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 1 << 20
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 3, GREY_ALPHA: 1, RGB_ALPHA: 3}


class PngReader(ClosesOnExit):
    """An opened PNG (ISO 15948); ``header`` comes from its chunks alone."""

    __slots__ = ("_lock", "_source", "header")

    def __init__(self, source: IO[bytes], limits: ReadLimits) -> None:
        self._source, self._lock = source, threading.Lock()
        with undecodable("the PNG header"):
            source.seek(len(MAGIC))
            length, kind, width, height, depth, colour = struct.unpack(">I4sIIBB", source.read(18))
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
        with undecodable("the PNG"):
            notes, greys = self._walk_chunks(colour)
        if depth < 8 and colour == GREY:
            notes.insert(0, f"{depth} bits per pixel scaled to 0 to 255")
        self.header = ImageHeader(
            format=header.format,
            dtype=header.dtype,
            size_yx=header.size_yx,
            channels=1 if greys else header.channels,
            planes=1,
            stack_axes="",
            stack_shape=(),
            bits=header.bits,
            pixel_size_um=None,
            compression=header.compression,
            notes=tuple(notes),
        )

    def _walk_chunks(self, colour: int) -> tuple[list[str], bool]:
        """Follow the chunks to the end; returns notes, and whether there is a palette of greys."""
        notes = ["alpha channel dropped"] if colour in {GREY_ALPHA, RGB_ALPHA} else []
        greys = False
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
                return notes, greys
            if kind == b"PLTE" and colour == PALETTE:
                palette = np.frombuffer(self._source.read(length), dtype=np.uint8).reshape(-1, 3)
                greys = grey_only(palette)
                notes.append(palette_note(palette))
            elif kind == b"tRNS":
                notes.append("transparency dropped")
            elif kind == b"acTL":
                notes.append("animation: only the first picture is read")
            elif kind == b"eXIf":
                notes.append("EXIF data, orientation among it, is not applied")
        msg = f"the PNG has no end chunk within its {size} bytes; the upload is truncated: send it again"
        raise UndecodableImage(msg)

    def read_plane(self, index: int) -> NDArray[Any]:
        """Decode the picture as (y, x, c) of ``header.dtype``.

        Raises
        ------
        IndexError
            ``index`` is not 0.
        UndecodableImage
            The data are damaged or incomplete.
        """
        check_index(index, self.header.planes)
        with undecodable("the PNG"):
            with self._lock:
                self._source.seek(0)
                data = self._source.read()
            samples: NDArray[Any] = imagecodecs.png_decode(data)
            if samples.ndim == 2:
                samples = samples[..., np.newaxis]
            # libpng appends alpha to what has transparency, and gives palettes as RGB.
            plane = samples[..., : self.header.channels]
            if plane.shape != (*self.header.size_yx, self.header.channels) or plane.dtype != self.header.dtype:
                msg = f"decoded to {samples.shape} {samples.dtype}, its header says {self.header.size_yx}"
                raise ValueError(msg)
            return plane
