"""Walk the markers of a JPEG stream (ITU T.81, annex B) before a codec sees it.

Every scan of a progressive JPEG is a pass over the whole picture, and costs a sender a few bytes: a codec asks for no
more than a table that was used before. Encoders write up to some fifteen.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import IO

MAX_SCANS = 64
MAX_SEGMENTS = 65_536
"""Of tables, comments and metadata: a file of a scanner has some hundred."""

_PIECE_BYTES = 1 << 20
_START_OF_SCAN, _END_OF_IMAGE, _FILL = 0xDA, 0xD9, 0xFF
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length: TEM, RSTn, SOI
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn, without DHT, JPG and DAC
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in entropy-coded data, where RSTn and stuffed bytes are none
_NO_FILL = re.compile(rb"\xff[^\xff]")


def jpeg_frame_yx(source: IO[bytes]) -> tuple[int, int]:
    """Height and width in the frame header of a JPEG stream (B.2.2), after a look at all of its markers.

    Parameters
    ----------
    source
        Seekable; left at any position.

    Raises
    ------
    ValueError
        There is no frame header before the image data, or there are more scans or segments than any encoder writes.

    """
    size_yx: tuple[int, int] | None = None
    scans = 0
    for number, (marker, position) in enumerate(_markers(source)):
        if number == MAX_SEGMENTS:
            raise ValueError(f"the JPEG stream has more than {MAX_SEGMENTS} segments, which is the limit")
        if marker in _FRAMES and size_yx is None:
            source.seek(position + 5)
            height, width = struct.unpack(">HH", source.read(4))
            size_yx = height, width
        scans += marker == _START_OF_SCAN
        if scans > MAX_SCANS:
            raise ValueError(f"the JPEG stream has more than {MAX_SCANS} scans, which is the limit")
        if scans and size_yx is None:
            break
    if size_yx is None:
        raise ValueError("the JPEG stream has no frame header")
    return size_yx


def _markers(source: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Each marker and its position, up to the end of the image, of the stream, or of what can be understood."""
    position = 2
    while True:
        source.seek(position)
        head = source.read(4)
        if len(head) < 2 or head[0] != _FILL:
            return
        marker = head[1]
        if marker == _FILL:
            position = _find(_NO_FILL, source, position)
            continue
        yield marker, position
        if marker == _END_OF_IMAGE:
            return
        if marker in _ALONE:
            position += 2
            continue
        if len(head) < 4 or (length := int.from_bytes(head[2:], "big")) < 2:
            return
        position += 2 + length
        if marker == _START_OF_SCAN:
            position = _find(_MARKER, source, position)


def _find(pair: re.Pattern[bytes], source: IO[bytes], position: int) -> int:
    """Where two bytes, the first of them 255, first match from ``position`` on; else the end of the stream."""
    source.seek(position)
    data = b""
    while piece := source.read(_PIECE_BYTES):
        data += piece
        if found := pair.search(data):
            return position + found.start()
        kept = data.endswith(b"\xff")
        position += len(data) - kept
        data = data[-1:] if kept else b""
    return position + len(data)
