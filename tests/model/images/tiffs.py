"""TIFF files made in memory, and read back."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from model.images import ImageHeader, ReadLimits, open_image

LIMITS = ReadLimits(max_pixels=1 << 26, max_bytes=1 << 28)


def write(array: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def packed(image_yx: NDArray[Any], bits: int, *, byteorder: str, predictor: bool) -> bytes:
    """Grey integers of ``bits`` bits in a row, the highest first, which tifffile does not write."""
    height, width = image_yx.shape
    values = image_yx.astype(np.int64)
    if predictor:
        values = np.diff(values, axis=1, prepend=0) % (1 << bits)
    stream = np.unpackbits(values.astype(">u4").view(np.uint8).reshape(height, width, 4), axis=-1)[..., -bits:]
    strip = zlib.compress(np.packbits(stream.reshape(height, -1), axis=-1).tobytes())
    tags = (
        (256, width), (257, height), (258, bits), (259, 8), (262, 1), (273, 134), (277, 1), (278, height),
        (279, len(strip)), (317, 2 if predictor else 1),
    )  # fmt: skip
    table = b"".join(struct.pack(byteorder + "HHII", code, 4, 1, value) for code, value in tags)
    header = struct.pack(byteorder + "2sHIH", {"<": b"II", ">": b"MM"}[byteorder], 42, 8, len(tags))
    return (header + table).ljust(134, b"\0") + strip


def read(data: bytes, limits: ReadLimits = LIMITS, axes: str | None = None) -> tuple[ImageHeader, NDArray[Any]]:
    """Header and all planes (n, y, x, c)."""
    with open_image(io.BytesIO(data), limits, axes) as reader:
        assert reader.part_bytes >= reader.header.size_yx[1]
        return reader.header, np.stack([reader.read_plane(i) for i in range(reader.header.planes)])


def ramp(*shape: int, dtype: Any = np.uint16) -> NDArray[Any]:
    return (np.arange(np.prod(shape)) * 7 % 251).astype(dtype).reshape(shape)


def patched(data: bytes, code: int, value: int, *, index: int = 0) -> bytes:
    """One number of a tag of the first page replaced."""
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tag = tiff.pages.first.tags[code]
        kind = {3: "<H", 4: "<I", 16: "<Q"}[int(tag.dtype)]
        at = tag.valueoffset + index * struct.calcsize(kind)
    changed = bytearray(data)
    struct.pack_into(kind, changed, at, value)
    return bytes(changed)
