"""Decode PNGs some rows at a time, which libpng could do but no binding of it offers.

zlib inflates the stream piece by piece, and no more of it than the picture has: libpng would inflate whatever follows,
in one call that nothing can stop. The rows that come out are still filtered, each against the one above; to undo that,
every band is given to libpng as a small PNG of its own, uncompressed, whose first row is the last one of the band
before.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from model.images.png_chunks import IHDR, SIGNATURE, chunk

BAND_BYTES = 1 << 20
"""Of inflated rows at a time: what the caches of a processor hold."""
_CARRIERS = {1: (8, 0), 2: (8, 4), 3: (8, 2), 4: (8, 6), 6: (16, 2), 8: (16, 6)}
"""Depth and colour type whose pixels have so many bytes: filters know bytes and the length of a pixel only."""
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column of each pass over an interlaced picture, and the steps down and across."""


@dataclass(frozen=True, slots=True)
class RowLayout:
    """How the rows of a PNG, or of one pass over it, are laid out, once inflated (ISO 15948, 7.2)."""

    width: int
    height: int
    depth: int
    """Bits per sample."""
    samples: int
    """Per pixel; palettes have one."""

    @property
    def pixel_bytes(self) -> int:
        """Distance to the pixel on the left that filters look at."""
        return max(1, self.samples * self.depth // 8)

    @property
    def row_bytes(self) -> int:
        """Without the byte that names the filter."""
        return (self.width * self.samples * self.depth + 7) // 8

    @property
    def rows_of_bands(self) -> int:
        """Rows that are decoded at a time."""
        return min(self.height, max(1, BAND_BYTES // self.row_bytes))

    def unpacked(self, rows: NDArray[np.uint8]) -> NDArray[Any]:
        """Samples (y, x, s) of rows (y, bytes); those of fewer than 8 bits as small numbers."""
        if self.depth == 16:
            return rows.view(">u2").astype(np.uint16).reshape(len(rows), self.width, self.samples)
        if self.depth == 8:
            return rows.reshape(len(rows), self.width, self.samples)
        shifts = np.arange(8 - self.depth, -1, -self.depth, dtype=np.uint8)
        numbers = (rows[..., np.newaxis] >> shifts) & np.uint8((1 << self.depth) - 1)
        return numbers.reshape(len(rows), -1)[:, : self.width, np.newaxis]


class Pass(NamedTuple):
    """The pixels that one pass over a picture holds, and where they stand in it."""

    top: int
    left: int
    step_y: int
    step_x: int
    layout: RowLayout


def passes(picture: RowLayout, *, interlaced: bool) -> tuple[Pass, ...]:
    """Return the passes of a picture in the order of the file, without those that hold no pixel (8.2)."""
    starts = ADAM7 if interlaced else ((0, 0, 1, 1),)
    return tuple(
        Pass(top, left, step_y, step_x, replace(picture, width=width, height=height))
        for top, left, step_y, step_x in starts
        if (height := len(range(top, picture.height, step_y))) and (width := len(range(left, picture.width, step_x)))
    )


def raw_bands(layout: RowLayout, inflated: Inflated) -> Iterator[NDArray[np.uint8]]:
    """Inflate and unfilter.

    Parameters
    ----------
    layout
        Of the rows.
    inflated
        Where these rows come next.

    Yields
    ------
    NDArray[np.uint8]
        The next rows (y, bytes).

    Raises
    ------
    EOFError, zlib.error, imagecodecs.PngError
        The stream ends early or is damaged.
    """
    above = b""
    for top in range(0, layout.height, layout.rows_of_bands):
        rows = min(layout.rows_of_bands, layout.height - top)
        band = _unfilter(layout, above, inflated.take(rows * (1 + layout.row_bytes)))
        above = b"\0" + band[-1].tobytes()
        yield band


def _unfilter(layout: RowLayout, above: bytes, filtered: bytes) -> NDArray[np.uint8]:
    """Undo the filters of some rows, given the row above them (none at the top) behind a byte of 0, "no filter"."""
    depth, colour = _CARRIERS[layout.pixel_bytes]
    width, rows = layout.row_bytes // layout.pixel_bytes, len(filtered) // (1 + layout.row_bytes)
    carrier = b"".join(
        [
            SIGNATURE,
            chunk(b"IHDR", IHDR.pack(width, rows + bool(above), depth, colour, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(above + filtered, 0)),
            chunk(b"IEND", b""),
        ]
    )
    decoded: NDArray[Any] = imagecodecs.png_decode(carrier)
    if depth == 16:
        decoded = decoded.astype(">u2").view(np.uint8)
    return decoded.reshape(-1, layout.row_bytes)[bool(above) :]


class Inflated:
    """A zlib stream of which any number of bytes can be taken, one after the other.

    Parameters
    ----------
    chunks
        The stream, in pieces.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._inflate = zlib.decompressobj()

    def take(self, size: int) -> bytes:
        """Inflate the next ``size`` bytes.

        Raises
        ------
        EOFError, zlib.error
            The stream ends early or is damaged.
        """
        parts: list[bytes] = []
        left = size
        while left:
            compressed = self._inflate.unconsumed_tail or next(self._chunks, b"")
            part = self._inflate.decompress(compressed, left)
            # after the end of its stream zlib would copy all that follows, again with each piece
            if not part and (not compressed or self._inflate.eof):
                msg = f"the picture's data end {left} bytes early"
                raise EOFError(msg)
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def end(self) -> None:
        """Pass over the pieces that are left, uninflated, so that the last of their checksums is compared, too."""
        for _ in self._chunks:
            pass
