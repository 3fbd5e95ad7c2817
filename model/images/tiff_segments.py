"""Checks on the strips and tiles of one TIFF page, made before a codec sees them.

tifffile fills a missing segment with zeros, and image codecs allocate what their own stream declares; both must fail
here instead. Codecs of fixed output (LZW, Deflate, Zstandard ...) are bounded by tifffile, which hands them the size.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from model.images.errors import UndecodableImage
from model.images.jpeg_markers import jpeg_frame_yx

if TYPE_CHECKING:
    import tifffile

JPEG, JPEG2000 = frozenset({7}), frozenset({33003, 33004, 33005, 34712})
COMPRESSIONS: Mapping[int, str] = {
    1: "none", 2: "ccitt rle", 3: "ccitt group 3", 4: "ccitt group 4", 5: "lzw", 7: "jpeg", 8: "deflate",
    32773: "packbits", 32946: "deflate", 33003: "jpeg 2000", 33004: "jpeg 2000", 33005: "jpeg 2000",
    34712: "jpeg 2000", 34925: "lzma", 34926: "zstd", 50000: "zstd",
}  # fmt: skip
"""Schemes that are decoded, by the code of the Compression tag."""

MIN_CHUNK_BYTES = 64 << 20
"""A tile may be larger than the image, but beyond this only four times as large."""


def jpeg2000_frame_yx(stream: bytes) -> tuple[int, int]:
    """Height and width in the SIZ marker of a JPEG 2000 codestream or JP2 file (ITU T.800, A.5.1).

    Raises
    ------
    ValueError
        There is no such marker.
    """
    start = stream.find(b"\xff\x4f\xff\x51")
    if start < 0 or start + 24 > len(stream):
        msg = "the JPEG 2000 stream has no size marker"
        raise ValueError(msg)
    x_size, y_size, x_offset, y_offset = struct.unpack_from(">IIII", stream, start + 8)
    return y_size - y_offset, x_size - x_offset


_FRAMES: Mapping[int, Callable[[bytes], tuple[int, int]]] = {
    **dict.fromkeys(JPEG, lambda stream: jpeg_frame_yx(io.BytesIO(stream))),
    **dict.fromkeys(JPEG2000, jpeg2000_frame_yx),
}


def check_page(page: tifffile.TiffPage, file_bytes: int) -> None:
    """Refuse a page with missing segments, or segments that lie or grow beyond what the header declares.

    Parameters
    ----------
    page
        As parsed by tifffile; its file is read for JPEG and JPEG 2000 segments.
    file_bytes
        Size of the file.

    Raises
    ------
    UndecodableImage
        With the number of the segment, what was found and the limit.
    """
    what = "tile" if page.is_tiled else "strip"
    expected, found = math.prod(page.chunked), min(len(page.dataoffsets), len(page.databytecounts))
    if found < expected:
        msg = f"the page needs {expected} {what}s, its directory lists {found}; the file is incomplete: write it again"
        raise UndecodableImage(msg)
    depth, height, width = (page.tiledepth, page.tilelength, page.tilewidth) if page.is_tiled else (1, *page.chunks[:2])
    plane_bytes = math.prod(page.shape) * page.dtype.itemsize
    limit = max(MIN_CHUNK_BYTES, 4 * plane_bytes)
    if (chunk_bytes := math.prod((depth, *page.chunks)) * page.dtype.itemsize) > limit:
        msg = f"a {what} holds {chunk_bytes} bytes, the limit for this page is {limit}; write it with smaller {what}s"
        raise UndecodableImage(msg)
    for number, (offset, count) in enumerate(zip(page.dataoffsets[:expected], page.databytecounts, strict=False)):
        if offset < 8 or count < 1 or offset + count > file_bytes:
            msg = f"{what} {number} of {expected} should be the {count} bytes at {offset}, the file has {file_bytes}"
            raise UndecodableImage(f"{msg}; it is truncated or sparse: write it again")
        if page.compression in _FRAMES:
            page.parent.filehandle.seek(offset)
            stream = page.parent.filehandle.read(count)
            _check_stream(stream, page.compression, (height, width), f"{what} {number} of {expected}")


def _check_stream(stream: bytes, compression: int, limit_yx: tuple[int, int], name: str) -> None:
    try:
        height, width = _FRAMES[compression](stream)
    except (ValueError, struct.error) as error:
        msg = f"{name}: {error}; write the file again"
        raise UndecodableImage(msg) from error
    if height > limit_yx[0] or width > limit_yx[1]:
        msg = f"{name} holds {height} x {width} pixels, the directory allows {limit_yx[0]} x {limit_yx[1]}"
        raise UndecodableImage(f"{msg}; write the file again")
    # libjpeg fills what is missing with grey and only warns.
    if compression in JPEG and b"\xff\xd9" not in stream:
        msg = f"{name} ends before its JPEG stream does; the file is truncated: write it again"
        raise UndecodableImage(msg)
