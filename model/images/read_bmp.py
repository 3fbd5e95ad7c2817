"""Read Windows bitmaps, as cheap cameras write them, with Pillow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile

from model.images.axes import check_picture
from model.images.errors import UndecodableImage, undecodable
from model.images.image import ImageHeader, Part, ReaderOfParts, ReadLimits, believed_um, check_index, widened_note
from model.images.palette import expand, grey_only, palette_note

MAGIC = b"BM"
CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3, "RGBA": 3}
_RUN_LENGTHS = (BmpImageFile.COMPRESSIONS["RLE8"], BmpImageFile.COMPRESSIONS["RLE4"])
_STORED_BITS = {"1": (1,), "L": (8,), "P": (1, 4, 8), "RGB": (16, 24, 32), "RGBA": (32,)}
"""Bits of a pixel in the file that each of Pillow's modes is read from."""
_BAND_PIXELS = 1 << 20
_INCHES_PER_METRE = 39.3701
"""By which Pillow divides what the file has."""


class BmpReader(ReaderOfParts):
    """An opened bitmap of 1 to 32 bits per pixel, grey or colour, all but those in run lengths."""

    __slots__ = ("_lock", "_palette", "_source")

    def __init__(self, source: IO[bytes], limits: ReadLimits, axes: str | None = None) -> None:
        self._source, self._lock = source, threading.Lock()
        with undecodable("the BMP header"):
            image = self._opened()
            width, height = image.size
            bits = _bits(source)
            if image.info["compression"] in _RUN_LENGTHS:
                msg = "the BMP is compressed by run lengths, which is not supported"
                raise UndecodableImage(f"{msg}; write it without compression, or as PNG or TIFF")
            if bits not in _STORED_BITS[image.mode]:  # Pillow would take its samples for larger or smaller ones
                msg = f"the BMP has {bits} bits per pixel and a palette of {image.mode} colours, which is not supported"
                raise UndecodableImage(f"{msg}; write it as PNG or TIFF")
            self._palette = _palette(image)
        notes = {"1": widened_note(np.dtype(np.bool_)), "RGBA": ("alpha channel dropped",)}.get(image.mode, ())
        if self._palette is not None:
            notes = (palette_note(self._palette),)
        elif bits == 16:
            notes = ("5 or 6 bits per colour scaled to 0 to 255",)
        self.header = ImageHeader(
            format="bmp",
            dtype=np.dtype(np.uint8),
            size_yx=(height, width),
            channels=1 if self._palette is not None and grey_only(self._palette) else CHANNELS[image.mode],
            planes=1,
            stack_axes="",
            stack_shape=(),
            bits=8,
            pixel_size_um=_size_um(image),
            compression="none",
            notes=notes,
        )
        limits.check(self.header)
        check_picture(axes, self.header)

    @property
    def part_bytes(self) -> int:
        """Bytes of the picture: Pillow decodes it whole."""
        return self.plane_bytes

    def read_parts(self, index: int) -> Iterator[Part]:
        """Give the picture as uint8 (y, x, c), some rows at a time.

        Raises
        ------
        IndexError
            ``index`` is not 0.
        UndecodableImage
            The data are incomplete.
        """
        check_index(index, self.header.planes)
        (height, width), channels = self.header.size_yx, self.header.channels
        with undecodable("the BMP"), self._lock:
            image = self._opened()
            samples = np.asarray(image.convert("L") if image.mode == "1" else image)
        step = max(1, _BAND_PIXELS // width)
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            yield Part(rows, slice(0, channels), self._handed_out(samples[rows]))

    def _handed_out(self, samples: NDArray[Any]) -> NDArray[Any]:
        if self._palette is not None:
            return expand(samples, self._palette)
        return samples[..., np.newaxis] if samples.ndim == 2 else samples[..., : self.header.channels]

    def _opened(self) -> BmpImageFile:
        self._source.seek(0)
        return BmpImageFile(self._source)


def _bits(source: IO[bytes]) -> int:
    """Bits per pixel that the file declares; its first header, of 12 bytes, has shorter fields before them."""
    source.seek(14)
    header = source.read(16)
    at = 10 if header[0] == 12 else 14
    return int.from_bytes(header[at : at + 2], "little")


def _palette(image: BmpImageFile) -> NDArray[np.uint8] | None:
    """256 colours (256, 3), black where the file has fewer; None for a picture without a palette."""
    if image.mode != "P":
        return None
    colours = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)[:256]
    return np.pad(colours, ((0, 256 - len(colours)), (0, 0)))


def _size_um(image: BmpImageFile) -> tuple[float, float] | None:
    """Height and width of a pixel, where they are believable."""
    x, y = (round(per_inch * _INCHES_PER_METRE) for per_inch in image.info.get("dpi", (0, 0)))
    return believed_um(1e6 / y, 1e6 / x) if x and y else None
