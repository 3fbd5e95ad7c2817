"""TIFF files made in memory, and read back."""

from __future__ import annotations

import io
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


def read(data: bytes, limits: ReadLimits = LIMITS, axes: str | None = None) -> tuple[ImageHeader, NDArray[Any]]:
    """Header and all planes (n, y, x, c)."""
    with open_image(io.BytesIO(data), limits, axes) as reader:
        return reader.header, np.stack([reader.read_plane(i) for i in range(reader.header.planes)])


def ramp(*shape: int, dtype: Any = np.uint16) -> NDArray[Any]:
    return (np.arange(np.prod(shape)) * 7 % 251).astype(dtype).reshape(shape)
