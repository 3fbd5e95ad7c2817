"""Decode the strips and tiles of LZW pages with libtiff; tifffile does the rest.

The LZW decoder that tifffile uses (imagecodecs 2026.3.6) ends the process on some damaged streams, where libtiff's
reports an error (test: ``test_a_stream_that_ends_other_decoders_is_refused``). libtiff decodes TIFF only, so each
strip or tile goes to it inside a TIFF of one row of bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import imagecodecs
import tifffile

LZW, NONE = 5, 1


def lzw_decoder(page: tifffile.TiffPage) -> Callable[[int], Any]:
    """Return what decodes segments of a page that has passed :func:`model.images.tiff_segments.check_page`.

    Parameters
    ----------
    page
        Read for this purpose alone: it is changed to the uncompressed page that is left when LZW is undone.

    Returns
    -------
    Callable
        Segment by its number, as ``TiffPage.decode`` gives it; it raises whatever libtiff and tifffile say of a
        damaged stream.
    """
    handle, fill_order = page.parent.filehandle, page.fillorder
    page.compression, page.fillorder = NONE, 1
    chunk_rows, chunk_width = (
        (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    )
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    row_bytes = math.ceil(chunk_width * samples * page.bitspersample / 8)
    strips_high = math.ceil(page.imagelength / chunk_rows)

    def decode(index: int) -> Any:  # noqa: ANN401 - tifffile's own
        handle.seek(page.dataoffsets[index])
        stream = handle.read(page.databytecounts[index])
        if fill_order == 2:
            stream = imagecodecs.bitorder_decode(stream)
        rows = chunk_rows
        if not page.is_tiled:
            rows = min(chunk_rows, page.imagelength - index % strips_high * chunk_rows)
        data = imagecodecs.tiff_decode(_as_tiff(bytes(stream), row_bytes * rows))
        return page.decode(bytearray(data), index)

    return decode


def _as_tiff(stream: bytes, size: int) -> bytes:
    """Wrap an LZW stream that decodes to ``size`` bytes as one strip of a TIFF of one row."""
    tags = (
        (256, 4, size), (257, 4, 1), (258, 3, 8), (259, 3, LZW), (262, 3, 1),
        (273, 4, 122), (277, 3, 1), (278, 4, 1), (279, 4, len(stream)),
    )  # fmt: skip
    table = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + table + bytes(4) + stream
