"""Decode LZW pages with libtiff, strip by strip; tifffile does the rest.

The LZW decoder that tifffile uses (imagecodecs 2026.3.6) ends the process on some damaged streams, where libtiff's
reports an error (test: ``test_a_stream_that_ends_other_decoders_is_refused``). libtiff decodes TIFF only, so each
strip or tile goes to it inside a TIFF of one row of bytes.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

LZW, NONE = 5, 1


def decode_lzw_page(page: tifffile.TiffPage) -> NDArray[Any]:
    """Decode a page that has passed :func:`service.formats.tiff_segments.check_page`.

    Parameters
    ----------
    page
        Read for this call alone: it is changed to the uncompressed page that is left when LZW is undone.

    Returns
    -------
    NDArray
        Of ``page.shape`` and ``page.dtype``.

    Raises
    ------
    Exception
        Whatever libtiff and tifffile say of a damaged stream.
    """
    handle, fill_order = page.parent.filehandle, page.fillorder
    page.compression, page.fillorder = NONE, 1
    chunk_rows, chunk_width = (
        (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    )
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    row_bytes = math.ceil(chunk_width * samples * page.bitspersample / 8)
    strips_high = math.ceil(page.imagelength / chunk_rows)
    decoded = np.empty(page.shaped, dtype=page.dtype)
    for index in range(math.prod(page.chunked)):
        handle.seek(page.dataoffsets[index])
        stream = handle.read(page.databytecounts[index])
        if fill_order == 2:
            stream = imagecodecs.bitorder_decode(stream)
        rows = chunk_rows
        if not page.is_tiled:
            rows = min(chunk_rows, page.imagelength - index % strips_high * chunk_rows)
        data = imagecodecs.tiff_decode(_as_tiff(bytes(stream), row_bytes * rows))
        chunk, (sample, _, top, left, _), (_, height, width, _) = page.decode(bytearray(data), index)
        target = decoded[sample, 0, top : top + height, left : left + width]
        target[...] = chunk[0, : target.shape[0], : target.shape[1]]
    return decoded.reshape(page.shape)


def _as_tiff(stream: bytes, size: int) -> bytes:
    """Wrap an LZW stream that decodes to ``size`` bytes as one strip of a TIFF of one row."""
    tags = (
        (256, 4, size), (257, 4, 1), (258, 3, 8), (259, 3, LZW), (262, 3, 1),
        (273, 4, 122), (277, 3, 1), (278, 4, 1), (279, 4, len(stream)),
    )  # fmt: skip
    table = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + table + bytes(4) + stream
