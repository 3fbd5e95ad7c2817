"""What a PNG is made of (ISO 15948, 5): its signature, its chunks, and the bodies of two of them."""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
IHDR = struct.Struct(">IIBBBBB")
"""Width, height, depth, colour type, compression, filter and interlace method."""
PHYS, METRE = struct.Struct(">IIB"), 1  # ISO 15948, 11.3.5.3: pixels per unit in x and y, and which unit


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a kind, four letters, with its length and its checksum."""
    return struct.pack(">I", len(body)) + kind + body + checksum(kind, body)


def checksum(kind: bytes, body: bytes) -> bytes:
    """Return the four bytes at the end of a chunk."""
    return struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
