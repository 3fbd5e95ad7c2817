"""Read JPEG with Pillow, which refuses truncated files where libjpeg alone fills them with grey."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from typing import IO

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from model.images.axes import check_picture
from model.images.errors import UndecodableImage, undecodable
from model.images.image import ImageHeader, Part, ReaderOfParts, ReadLimits, check_index
from model.images.jpeg_markers import jpeg_frame
from model.images.tiff_ifd import ORIENTATION, walk_directories

# The service's own limits are checked against the header before a pixel is decoded. Set once, at import: Pillow keeps
# its limit in a global, which requests must not change under each other.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of damaged metadata, which is not used here; an upload is no reason to write to the service's log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

CHANNELS = {"L": 1, "RGB": 3}


class JpegReader(ReaderOfParts):
    """An opened JPEG (ITU T.81), grey or colour of 8 bits."""

    __slots__ = ("_lock", "_source")

    def __init__(self, source: IO[bytes], limits: ReadLimits, axes: str | None = None) -> None:
        self._source, self._lock = source, threading.Lock()
        with undecodable("the JPEG header"):
            bits = jpeg_frame(source).bits  # also for its limits; the codec knows none
            if bits != 8:
                msg = f"the JPEG has samples of {bits} bits, 8 are supported; write it as PNG or TIFF"
                raise UndecodableImage(msg)
            source.seek(0)
            image = JpegImageFile(source)
            width, height = image.size
            if image.mode not in CHANNELS:
                msg = f"the JPEG holds {image.mode} colours, grey and RGB are supported; write it as RGB"
                raise UndecodableImage(msg)
        orientation = _orientation(image.info.get("exif", b""))
        notes = (f"EXIF orientation {orientation} is not applied: rows and columns as stored",)
        self.header = ImageHeader(
            format="jpeg",
            dtype=np.dtype(np.uint8),
            size_yx=(height, width),
            channels=CHANNELS[image.mode],
            planes=1,
            stack_axes="",
            stack_shape=(),
            bits=8,
            pixel_size_um=None,
            compression="jpeg",
            notes=notes if orientation != 1 else (),
        )
        limits.check(self.header)
        check_picture(axes, self.header)

    @property
    def part_bytes(self) -> int:
        """Bytes of the picture: the codec gives it whole."""
        return self.plane_bytes

    def read_parts(self, index: int) -> Iterator[Part]:
        """Decode the picture as uint8 (y, x, c), in one part.

        Raises
        ------
        IndexError
            ``index`` is not 0.
        UndecodableImage
            The data are damaged or incomplete.
        """
        check_index(index, self.header.planes)
        with undecodable("the JPEG"), self._lock:
            self._source.seek(0)
            pixels = np.asarray(JpegImageFile(self._source)).reshape(*self.header.size_yx, self.header.channels)
        yield Part(slice(0, pixels.shape[0]), slice(0, pixels.shape[2]), pixels)


def _orientation(exif: bytes) -> int:
    """Orientation in an EXIF block, which is a small TIFF behind ``Exif`` and two zeros; 1 where it is damaged."""
    try:
        return walk_directories(io.BytesIO(exif[6:]))[0].numbers.get(ORIENTATION, 1)
    except UndecodableImage:
        return 1
