"""Open an uploaded image by its first bytes; names and content types are never believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO

from model.images import read_bmp, read_npy
from model.images.errors import UnsupportedImageFormat, undecodable
from model.images.image import ImageReader, ReadLimits
from model.images.png_chunks import SIGNATURE
from model.images.read_bmp import BmpReader
from model.images.read_jpeg import JpegReader
from model.images.read_npy import NpyReader
from model.images.read_png import PngReader
from model.images.read_tiff import TiffReader

READERS: Mapping[bytes, Callable[[IO[bytes], ReadLimits, str | None], ImageReader]] = {
    SIGNATURE: PngReader,
    b"\xff\xd8\xff": JpegReader,
    b"II*\x00": TiffReader,
    b"MM\x00*": TiffReader,
    b"II+\x00": TiffReader,
    b"MM\x00+": TiffReader,
    read_npy.MAGIC: NpyReader,
    read_bmp.MAGIC: BmpReader,
}
"""Reader by the first bytes of the file (``+`` is BigTIFF's 43)."""

CZI = "Zeiss CZI"
OTHERS: Mapping[bytes, str] = {
    b"GIF8": "GIF", b"%PDF": "PDF", b"\xd0\xcf\x11\xe0": "Olympus OIB", b"PK\x03\x04": "zip",
    b"\x00\x00\x00\x0cjP": "JPEG 2000", b"\x89HDF": "HDF5", b"\xda\xce\xbe\x0a": "Nikon ND2", b"ZISRAW": CZI,
    b"\x70\x00\x00\x00\x2a": "Leica LIF", b"\x70\x00\x00\x00": "Leica LIF", b"RIFF": "WebP",
}  # fmt: skip
"""What is recognised only in order to be named in the refusal."""


def open_image(source: IO[bytes], limits: ReadLimits, axes: str | None = None) -> ImageReader:
    """Recognise the image, read its header and check it against the limits; no pixel is decoded.

    Parameters
    ----------
    source
        Seekable binary file; it stays open and belongs to the caller, who closes it after the last plane.
    limits
        What the header may declare.
    axes
        How the file's axes are laid out (:mod:`model.images.axes`), in place of what it says; None to believe it.

    Returns
    -------
    ImageReader
        Whose planes are decoded when they are asked for.

    Raises
    ------
    UnsupportedImageFormat
        The bytes are no known image.
    UndecodableImage
        The header is broken, or of a kind that is not supported.
    AxesMismatch
        The file has other axes.
    ImageTooLarge
        The header declares more than the limits.
    """
    source.seek(0)
    head = source.read(16)
    for magic, reader in READERS.items():
        if head.startswith(magic):
            with undecodable("the header of the image"):
                return reader(source, limits, axes)
    if head.startswith(SIGNATURE[:4]):
        raise UnsupportedImageFormat(
            f"the file is a PNG file whose name is not followed by {SIGNATURE[4:]!r}, as of one sent as text; "
            "send it as it is (curl: --data-binary in place of --data)"
        )
    named = next((name for magic, name in OTHERS.items() if head.startswith(magic)), None)
    found = f"a {named} file" if named else f"no known image, its first bytes are {head[:8]!r}" if head else "empty"
    command = ", or name it to the command unet-service segment, which reads it" if named == CZI else ""
    msg = f"the file is {found}; send TIFF, PNG, JPEG, BMP or .npy{command}"
    raise UnsupportedImageFormat(msg)
