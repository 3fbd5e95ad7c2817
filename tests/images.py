"""Image files as bytes, good and hostile."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image


def png(image: NDArray[np.uint8]) -> bytes:
    """Encode (y, x) or (y, x, 3) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """Encode (y, x) or (y, x, 3) as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def bmp(image: NDArray[np.uint8]) -> bytes:
    """Encode (y, x) or (y, x, 3) as a Windows bitmap."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "BMP")
    return buffer.getvalue()


def tiff(image: NDArray[Any], **options: Any) -> bytes:
    """Encode an array as TIFF."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def npy(image: NDArray[Any]) -> bytes:
    """Encode an array as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, image)
    return buffer.getvalue()


def disc(height: int = 60, width: int = 80, radius: int = 15) -> NDArray[np.uint8]:
    """Return a grey image (y, x): one bright disc of ``radius`` px on dark ground, in the middle."""
    y, x = np.mgrid[:height, :width]
    inside = (y - height // 2) ** 2 + (x - width // 2) ** 2 <= radius**2
    return np.where(inside, 200, 20).astype(np.uint8)


def noise(height: int, width: int, dtype: type[np.generic] = np.uint8) -> NDArray[Any]:
    """Return random integers (y, x) over the whole range of ``dtype``, always the same ones."""
    top = int(np.iinfo(dtype).max)  # type: ignore[type-var]
    return np.random.default_rng(0).integers(0, top, (height, width)).astype(dtype)


def npy_declaring(shape: tuple[int, ...]) -> bytes:
    """Return a .npy file of a few bytes whose header declares a uint8 array of ``shape``."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(16)


def tiff_declaring(pages: int, height: int, width: int) -> bytes:
    """Return a small TIFF whose every page declares ``height`` x ``width`` 8 bit pixels in one strip."""
    size = 2 + 9 * 12 + 4
    content = bytearray(struct.pack("<2sHI", b"II", 42, 8))
    for page in range(pages):
        entries = (
            (256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 4, height), (279, 4, min(height * width, 2**32 - 1)),
        )  # fmt: skip
        content += struct.pack("<H", len(entries))
        for tag, kind, value in entries:
            content += struct.pack("<HHII", tag, kind, 1, value)
        content += struct.pack("<I", 0 if page == pages - 1 else 8 + (page + 1) * size)
    return bytes(content)
