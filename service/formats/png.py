"""PNG: one plane of grey, 8 or 16 bits, never a palette.

A mask of two classes is 0 and 255, of more classes the class index; labels are 16 bit. The receipt stands in a
``tEXt`` chunk with the keyword ``unet-receipt`` (ISO 15948, 11.3.4.3).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import imagecodecs
import numpy as np

from service.formats.errors import UnsupportedOutput
from service.formats.json_text import dump
from service.formats.result import SegmentationResult

HEADER_BYTES = 33  # signature and IHDR, behind which ancillary chunks may stand
MAX_LABELS = 65_535


@dataclass(frozen=True, slots=True)
class PngEncoder:
    """Writes PNG, for speed with the least compression and run lengths only."""

    media_type: str = "image/png"
    extension: str = ".png"

    def encode(self, result: SegmentationResult) -> bytes:
        """Write the one plane of ``result``.

        Raises
        ------
        UnsupportedOutput
            Probabilities, more than one plane, or more than 65,535 labels.
        """
        if result.kind == "probabilities":
            msg = "PNG has no floating point samples; ask for format=tiff or npy"
            raise UnsupportedOutput(msg)
        if len(result.planes) != 1:
            msg = f"PNG holds one plane, the result has {len(result.planes)}; ask for format=tiff"
            raise UnsupportedOutput(msg)
        plane = result.planes[0]
        if result.kind == "mask":
            samples = plane.astype(np.uint8, copy=False)
            if len(result.classes) <= 2:
                samples = samples * np.uint8(255)
        else:
            largest = int(plane.max())
            if largest > MAX_LABELS:
                msg = f"{largest} labels, PNG holds {MAX_LABELS}; ask for format=tiff"
                raise UnsupportedOutput(msg)
            samples = plane.astype(np.uint16, copy=False)
        # RLE strategy (3) and the Up filter (32): label images repeat the row above.
        encoded = bytes(imagecodecs.png_encode(np.ascontiguousarray(samples), level=1, strategy=3, filter=32))
        return encoded[:HEADER_BYTES] + _text_chunk(result) + encoded[HEADER_BYTES:]


def _text_chunk(result: SegmentationResult) -> bytes:
    body = b"tEXt" + b"unet-receipt\x00" + dump(dict(result.receipt))
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
