"""Walk the markers of a JPEG stream (ITU T.81, annex B) before a codec sees it.

Every scan of a progressive JPEG is a pass over the whole picture, and costs a sender a few bytes: a codec asks for no
more than a table that was used before. Encoders write up to some fifteen.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

from model.images.errors import UndecodableImage

MAX_SCANS = 64
MAX_SEGMENTS = 65_536
"""Of tables, comments and metadata: a file of a scanner has some hundred."""
MAX_METADATA_BYTES = 16 << 20
"""In front of the image data, all of which the codec keeps: profiles and thumbnails take some MB at most."""
MAX_FILL_BYTES = 64 << 10
"""Between the segments in front of the image data, which the codec looks at one by one; cameras pad with a few."""

_FIRST_PIECE_BYTES, _PIECE_BYTES = 64, 1 << 20
_START_OF_SCAN, _END_OF_IMAGE, _JPEG_LS = 0xDA, 0xD9, 0xF7
_ALONE = frozenset({0x01, 0xD8})  # markers without a length: TEM, SOI
_UNREADABLE = frozenset({*range(0x02, 0xC0), 0xC8, 0xDE, 0xDF, *range(0xF0, 0xFE)})
"""Reserved, hierarchical and of JPEG-LS: libjpeg ends at these, but for some in image data that have restarts."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn, without DHT, JPG and DAC
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # stuffed bytes, RSTn and fill bytes are none


class JpegFrame(NamedTuple):
    """Of a frame header (B.2.2)."""

    bits: int
    """Per sample."""
    size_yx: tuple[int, int]


def jpeg_frame(source: IO[bytes]) -> JpegFrame:
    """Frame header of a JPEG stream, after a look at all of its markers.

    Parameters
    ----------
    source
        Seekable; left at any position.

    Raises
    ------
    UndecodableImage
        The stream is JPEG-LS.
    ValueError
        There is no frame header before the image data, or two; there are no image data; or there are markers that the
        codec does not know, or more scans, segments, metadata or fill bytes than any encoder writes.

    """
    frame: JpegFrame | None = None
    scans = filled = 0
    for number, (marker, position, passed_over) in enumerate(_markers(source)):
        if number == MAX_SEGMENTS:
            raise ValueError(f"the JPEG stream has more than {MAX_SEGMENTS} segments, which is the limit")
        if not scans:
            filled += passed_over
            if filled > MAX_FILL_BYTES:
                raise ValueError(f"the JPEG stream has {filled} bytes between segments, the limit is {MAX_FILL_BYTES}")
            if position > MAX_METADATA_BYTES:
                what = "bytes in front of the image data"
                raise ValueError(f"the JPEG stream has {position} {what}, the limit is {MAX_METADATA_BYTES}")
        if marker in _FRAMES:
            if frame is not None:
                raise ValueError("the JPEG stream has two frame headers, of one picture there is one")
            source.seek(position + 4)
            bits, height, width = struct.unpack(">BHH", source.read(5))
            frame = JpegFrame(bits, (height, width))
        scans += marker == _START_OF_SCAN
        if scans > MAX_SCANS:
            raise ValueError(f"the JPEG stream has more than {MAX_SCANS} scans, which is the limit")
        if scans and frame is None:
            break
    if frame is None:
        raise ValueError("the JPEG stream has no frame header")
    if not scans:
        raise ValueError("the JPEG stream has no image data")
    return frame


def _markers(source: IO[bytes]) -> Iterator[tuple[int, int, int]]:
    """Each marker, its position and the bytes passed over before it, up to the end of the image or of the stream.

    What stands between two segments is passed over, as libjpeg does: image data, but also fill bytes and rubbish.
    """
    behind = 2
    while True:
        position = _find(source, behind)
        source.seek(position)
        head = source.read(4)
        if len(head) < 2:
            return
        marker = head[1]
        if marker == _JPEG_LS:
            raise UndecodableImage("the picture is JPEG-LS, which is not supported; write it as PNG or TIFF")
        if marker in _UNREADABLE:
            raise ValueError(f"the JPEG stream has a marker {marker:02x} at byte {position}, which is not supported")
        yield marker, position, position - behind
        if marker == _END_OF_IMAGE:
            return
        if marker in _ALONE:
            behind = position + 2
            continue
        if len(head) < 4:
            return
        if (length := int.from_bytes(head[2:], "big")) < 2:
            raise ValueError(f"the JPEG segment at byte {position} says it has {length} bytes, 2 is the least")
        behind = position + 2 + length


def _find(source: IO[bytes], position: int) -> int:
    """Where the next marker stands from ``position`` on; else the end of the stream."""
    source.seek(position)
    data, piece_bytes = b"", _FIRST_PIECE_BYTES
    while piece := source.read(min(piece_bytes, _PIECE_BYTES)):
        piece_bytes *= 2
        data += piece
        if found := _MARKER.search(data):
            return position + found.start()
        kept = data.endswith(b"\xff")
        position += len(data) - kept
        data = data[-1:] if kept else b""
    return position + len(data)
