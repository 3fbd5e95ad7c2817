"""PNG: one plane of grey, 8 or 16 bits, never a palette.

A mask of two classes is 0 and 255, of more classes the class index; labels are 16 bit. The receipt stands in a
``tEXt`` chunk with the keyword ``unet-receipt`` (ISO 15948, 11.3.4.3), the size of a pixel in ``pHYs`` (11.3.5.3).
"""

from __future__ import annotations

import zlib
from typing import IO

import numpy as np

from model.images.png_chunks import IHDR, METRE, PHYS, SIGNATURE, chunk
from service.formats.encoder import Encoder
from service.formats.errors import UnsupportedOutput
from service.formats.json_text import dump
from service.formats.result import SegmentationResult

UP = 2  # ISO 15948, 9.2
MAX_LABELS = 65_535
RECEIPT = b"unet-receipt\x00"
"""What the text chunk of the receipt begins with."""


class PngEncoder(Encoder):
    """Writes PNG, for speed with the least compression and run lengths only."""

    name = "png"
    media_type = "image/png"
    extension = ".png"
    kinds = frozenset({"mask", "labels"})
    refusal = "PNG has no floating point samples; ask for format=tiff or npy"

    def check_planes(self, planes: int) -> None:
        """See :meth:`service.formats.encoder.Encoder.check_planes`."""
        if planes != 1:
            msg = "PNG holds one plane, the result is a stack; ask for format=tiff"
            raise UnsupportedOutput(msg)

    def write(self, result: SegmentationResult, target: IO[bytes]) -> None:
        """Write the one plane of ``result``, a band of rows at a time.

        Raises
        ------
        UnsupportedOutput
            Probabilities, more than one plane, or more than 65,535 labels.
        """
        self.check_kind(result.kind)
        self.check_planes(len(result.planes))
        if result.kind == "labels":
            largest = max(int(band.max()) for band in result.bands(0))
            if largest > MAX_LABELS:
                msg = f"{largest} labels, PNG holds {MAX_LABELS}; ask for format=tiff"
                raise UnsupportedOutput(msg)
        height, width = result.size_yx
        depth = 8 if result.kind == "mask" else 16
        target.write(SIGNATURE + chunk(b"IHDR", IHDR.pack(width, height, depth, 0, 0, 0, 0)))
        target.write(_pixels_per_metre(result.pixel_size_um))
        target.write(chunk(b"tEXt", RECEIPT + dump(dict(result.receipt))))
        # Label images repeat the row above: the Up filter leaves zeros, of which run lengths make little.
        deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
        above = np.zeros((1, width * depth // 8), dtype=np.uint8)
        for band in result.bands(0):
            samples = band * np.uint8(255) if result.kind == "mask" and len(result.classes) <= 2 else band
            rows = samples.astype(f">u{depth // 8}").view(np.uint8)
            filtered = np.empty((len(rows), 1 + rows.shape[1]), dtype=np.uint8)
            filtered[:, 0] = UP
            filtered[:, 1:] = rows - np.concatenate((above, rows[:-1]))
            above = rows[-1:]
            if piece := deflate.compress(filtered.data):
                target.write(chunk(b"IDAT", piece))
        target.write(chunk(b"IDAT", deflate.flush()) + chunk(b"IEND", b""))


def _pixels_per_metre(size_um: tuple[float, float] | None) -> bytes:
    """Chunk of whole pixels per metre; nothing where the size is not known, or that number is none that PNG holds."""
    y, x = (0, 0) if size_um is None else (round(1e6 / length) for length in size_um)
    return chunk(b"pHYs", PHYS.pack(x, y, METRE)) if min(y, x) > 0 and max(y, x) < 1 << 31 else b""
