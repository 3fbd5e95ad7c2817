"""Walk the markers of a JPEG 2000 stream (ITU T.800, annex A) before a codec sees it.

OpenJPEG allocates what they declare: four bytes a sample, some hundred for each code block, some thousand for each
tile. A stream of one kilobyte may so ask for gigabytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MIN_TILE_SIDE = 64
"""Pixels on average; encoders write tiles of some hundred, or one."""
MIN_BLOCK_SAMPLES = 256
"""Of a code block on average; encoders write 1024 or 4096."""
MAX_LAYERS = 64
"""Of quality; encoders write up to some twenty."""
MAX_SEGMENTS = 1 << 17
"""Of all headers; each tile has some."""

_START = b"\xff\x4f\xff\x51"  # SOC, then SIZ at once
_SIZE = struct.Struct(">8I H")
_BOX = struct.Struct(">I4s")
_SEGMENT = struct.Struct(">HH")
_SIZ, _COD, _COC, _START_OF_TILE, _START_OF_DATA, _END = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_OTHERS = frozenset(0xFF00 + code for code in (0x50, 0x55, 0x57, 0x58, 0x5C, 0x5D, 0x5E, 0x5F, 0x60, 0x61, 0x63, 0x64))
"""CAP, TLM, PLM, PLT, QCD, QCC, RGN, POC, PPM, PPT, CRG and COM, whose length the codec believes, too."""


class Jpeg2000Frame(NamedTuple):
    """What the size marker declares."""

    size_yx: tuple[int, int]
    components: int
    """Samples per pixel."""


def jpeg2000_frame(stream: bytes) -> Jpeg2000Frame:
    """Read the size marker (A.5.1) of a codestream, or of the one in a JP2 file (annex I), after a look at the others.

    Raises
    ------
    ValueError
        There is no size marker where the codec looks for it, there is a palette or a marker that the codec does not
        know, or there are more tiles, smaller code blocks or more layers than any encoder writes.
    struct.error
        The stream ends within a header.
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
    for number, (marker, at) in enumerate(_segments(stream, start + 2)):
        if number == MAX_SEGMENTS:
            raise ValueError(f"the JPEG 2000 stream has more than {MAX_SEGMENTS} segments, which is the limit")
        if marker == _COD:
            style, layers, levels = struct.unpack_from(">BxHxB", stream, at)
            if layers > MAX_LAYERS:
                raise ValueError(f"the JPEG 2000 stream has {layers} layers, the limit is {MAX_LAYERS}")
            _check_blocks(stream, at + 6, levels, precincts=bool(style & 1))
        elif marker == _COC:
            style, levels = struct.unpack_from("BB", stream, at + (1 if components < 257 else 2))
            _check_blocks(stream, at + (3 if components < 257 else 4), levels, precincts=bool(style & 1))
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


def _segments(stream: bytes, position: int) -> Iterator[tuple[int, int]]:
    """Each segment of the main header and of those of all tile parts: its marker, and where its content begins."""
    tile_part, tile_bytes = position, 0
    while position + _SEGMENT.size <= len(stream):
        marker, length = _SEGMENT.unpack_from(stream, position)
        if marker == _END:
            return
        if marker == _START_OF_DATA:
            if not tile_bytes:  # up to the end of the stream
                return
            if tile_part + tile_bytes < position + 2:
                raise ValueError(f"the JPEG 2000 tile part at byte {tile_part} ends before its header does")
            position = tile_part + tile_bytes
            continue
        if marker == _START_OF_TILE:
            tile_part, (tile_bytes,) = position, struct.unpack_from(">I", stream, position + 6)
        elif marker not in _OTHERS and marker not in {_SIZ, _COD, _COC}:
            raise ValueError(f"the JPEG 2000 stream has a marker {marker:04x} at byte {position}: it is not supported")
        if length < 2:
            raise ValueError(f"the JPEG 2000 segment at byte {position} says it has {length} bytes, 2 is the least")
        yield marker, position + _SEGMENT.size
        position += 2 + length


def _check_blocks(stream: bytes, at: int, levels: int, *, precincts: bool) -> None:
    """Refuse code blocks that are too small on average (A.6.1; B.7 for how precincts divide them)."""
    width, height = (exponent + 2 for exponent in stream[at : at + 2])
    sizes = stream[at + 4 : at + 5 + levels] if precincts else b"\xff" * (levels + 1)
    blocks = 0.0  # of a sample
    for level, size in enumerate(sizes):
        halved = level > 0  # bands are half as large as the resolution they belong to
        block = 1 << max(0, min(width, (size & 15) - halved)) + max(0, min(height, (size >> 4) - halved))
        share = 0.25**levels if level == 0 else 3 * 0.25 ** (levels - level + 1)
        blocks += share / block
    if blocks * MIN_BLOCK_SAMPLES > 1:
        msg = f"the code blocks of the JPEG 2000 stream hold {1 / blocks:.0f} samples on average"
        raise ValueError(f"{msg}, {MIN_BLOCK_SAMPLES} is the least")
