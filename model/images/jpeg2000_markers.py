"""Read the size marker of a JPEG 2000 stream (ITU T.800) before a codec sees it.

OpenJPEG allocates what the marker declares, four bytes a sample, and some kilobytes for each tile: a stream of one
kilobyte may ask for gigabytes.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MIN_TILE_SIDE = 64
"""Pixels on average; encoders write tiles of some hundred, or one."""

_START = b"\xff\x4f\xff\x51"  # SOC, then SIZ at once
_SIZE = struct.Struct(">8I H")
_BOX = struct.Struct(">I4s")


class Jpeg2000Frame(NamedTuple):
    """What the size marker declares."""

    size_yx: tuple[int, int]
    components: int
    """Samples per pixel."""


def jpeg2000_frame(stream: bytes) -> Jpeg2000Frame:
    """Read the size marker (A.5.1) of a codestream, or of the one in a JP2 file (annex I).

    Raises
    ------
    ValueError
        There is no such marker where the codec looks for it, it declares more tiles than any encoder writes, or there
        is a palette.
    struct.error
        The stream ends within it.
    """
    start = 0 if stream.startswith(_START) else _codestream(stream)
    if not stream.startswith(_START, start):
        raise ValueError("the JPEG 2000 stream has no size marker")
    x_end, y_end, x, y, tile_width, tile_height, x_tiles, y_tiles, components = _SIZE.unpack_from(stream, start + 8)
    height, width = y_end - y, x_end - x
    if min(height, width, tile_height, tile_width) < 1:
        raise ValueError(f"the JPEG 2000 stream has {height} x {width} pixels in tiles of {tile_height} x {tile_width}")
    tiles = -((y_tiles - y_end) // tile_height) * -((x_tiles - x_end) // tile_width)
    most = (height // MIN_TILE_SIDE + 2) * (width // MIN_TILE_SIDE + 2)
    if tiles > most:
        raise ValueError(f"the JPEG 2000 stream has {tiles} tiles, the limit for {height} x {width} pixels is {most}")
    return Jpeg2000Frame((height, width), components)


def _codestream(stream: bytes) -> int:
    """Where the first ``jp2c`` box holds its codestream; other boxes may hold what looks like one."""
    at = 0
    while at + _BOX.size <= len(stream):
        length, kind = _BOX.unpack_from(stream, at)
        head = _BOX.size
        if length == 1:
            (length,) = struct.unpack_from(">Q", stream, at + head)
            head += 8
        if kind == b"jp2c":
            if b"pclr" in stream[:at]:
                raise ValueError("the JPEG 2000 stream has a palette, which is not supported")
            return at + head
        if length < head:  # 0 is "to the end", which leaves room for nothing else
            break
        at += length
    raise ValueError("the JPEG 2000 stream has no codestream")
