"""Checks on the strips and tiles of one TIFF page, made before a codec sees them.

tifffile fills a missing segment with zeros, and image codecs allocate what their own stream declares; both must fail
here instead. Codecs of fixed output (LZW, Deflate, Zstandard ...) are bounded by tifffile, which hands them the size.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from model.images.errors import UndecodableImage
from model.images.jpeg2000_markers import jpeg2000_frame
from model.images.jpeg_markers import jpeg_frame
from model.images.tiff_bands import is_raw

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
MIN_JPEG2000_BYTES = 8 << 20
"""Likewise; its codec takes several times what it decodes."""
JPEG2000_WEIGHT = 2
MOST_EXPANSION, SLACK_BYTES = 2, 64 << 10
"""A segment takes at most so many times the bytes that it holds decoded (noise in LZW: 1.5), and so many for tables."""
TABLES, CONTIGUOUS = 347, 1  # the tag JPEGTables; PlanarConfiguration of pixels whose samples stand together


def segment_bytes(page: tifffile.TiffPage) -> int:
    """Bytes of a decoded strip or tile, with what lies beyond the edge of the image."""
    depth = page.tiledepth if page.is_tiled else 1
    return int(math.prod((depth, *page.chunks)) * page.dtype.itemsize)


def codec_bytes(page: tifffile.TiffPage) -> int:
    """Bytes of a segment as :attr:`model.images.ImageReader.part_bytes` counts: a third of what decoding it takes."""
    return segment_bytes(page) * (JPEG2000_WEIGHT if page.compression in JPEG2000 else 1)


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
    plane_bytes, decoded = math.prod(page.shape) * page.dtype.itemsize, segment_bytes(page)
    limit = max(MIN_JPEG2000_BYTES if page.compression in JPEG2000 else MIN_CHUNK_BYTES, 4 * plane_bytes)
    if decoded > limit:
        msg = f"a {what} holds {decoded} bytes, the limit for this page is {limit}; write it with smaller {what}s"
        raise UndecodableImage(msg)
    _check_extents(page, expected, what, file_bytes)
    if page.compression in JPEG and TABLES in page.tags and page.tags[TABLES].count > SLACK_BYTES:
        msg = f"the JPEG tables of the page take {page.tags[TABLES].count} bytes, the limit is {SLACK_BYTES}"
        raise UndecodableImage(f"{msg}; write the file again")
    if page.compression in JPEG | JPEG2000:
        for number, (offset, count) in enumerate(zip(page.dataoffsets[:expected], page.databytecounts, strict=False)):
            page.parent.filehandle.seek(offset)
            _check_stream(page.parent.filehandle.read(count), page, f"{what} {number} of {expected}")


def _check_extents(page: tifffile.TiffPage, expected: int, what: str, file_bytes: int) -> None:
    """Refuse segments that are not there whole, or of which more would be read than any scheme needs."""
    limit = MOST_EXPANSION * segment_bytes(page) + SLACK_BYTES
    total = 0
    for number, (offset, count) in enumerate(zip(page.dataoffsets[:expected], page.databytecounts, strict=False)):
        if offset < 8 or count < 1 or offset + count > file_bytes:
            msg = f"{what} {number} of {expected} should be the {count} bytes at {offset}, the file has {file_bytes}"
            raise UndecodableImage(f"{msg}; it is truncated or sparse: write it again")
        if count > limit and not is_raw(page):
            msg = f"{what} {number} of {expected} takes {count} bytes, the limit is {limit} for what it holds decoded"
            raise UndecodableImage(f"{msg}; write the file again")
        total += count
    # blank segments may share their bytes, which are few
    if total > (most := max(file_bytes, MOST_EXPANSION * math.prod(page.shape) * page.dtype.itemsize + SLACK_BYTES)):
        msg = f"the {expected} {what}s of the page take {total} bytes, the limit is {most}: they overlap"
        raise UndecodableImage(f"{msg}; write the file again")


def _check_stream(stream: bytes, page: tifffile.TiffPage, name: str) -> None:
    most_yx = (page.tilelength, page.tilewidth) if page.is_tiled else page.chunks[:2]
    most_samples = page.samplesperpixel if page.planarconfig == CONTIGUOUS else 1
    try:
        if page.compression in JPEG:
            (height, width), samples = jpeg_frame(io.BytesIO(stream)).size_yx, most_samples
        else:
            (height, width), samples = jpeg2000_frame(stream)
    except (ValueError, struct.error) as error:
        msg = f"{name}: {error}; write the file again"
        raise UndecodableImage(msg) from error
    if height > most_yx[0] or width > most_yx[1]:
        msg = f"{name} holds {height} x {width} pixels, the directory allows {most_yx[0]} x {most_yx[1]}"
        raise UndecodableImage(f"{msg}; write the file again")
    if samples > most_samples:
        msg = f"{name} holds {samples} samples per pixel, the directory allows {most_samples}; write the file again"
        raise UndecodableImage(msg)
    # libjpeg fills what is missing with grey and only warns.
    if page.compression in JPEG and b"\xff\xd9" not in stream:
        msg = f"{name} ends before its JPEG stream does; the file is truncated: write it again"
        raise UndecodableImage(msg)
