"""TIFF that ImageJ opens with its calibration and as a hyperstack, and every other reader as plain pages.

A mask of two classes is 0 and 255, of more classes the class index (uint8); labels are uint16 or uint32; probabilities
are float32 with one channel per class. The description is ImageJ's (``ij.io.FileInfo``), with the receipt as one more
line ``unet_receipt={...}``. Deflate, without a predictor: ImageJ and Bio-Formats read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import imagecodecs
import numpy as np
import tifffile

from service.formats.json_text import dump
from service.formats.result import SegmentationResult

STRIP_BYTES = 1 << 20
CLASSIC_LIMIT = (1 << 32) - (1 << 25)


@dataclass(frozen=True, slots=True)
class TiffEncoder:
    """Writes what the module describes."""

    media_type: str = "image/tiff"
    extension: str = ".tif"

    def write(self, result: SegmentationResult, target: IO[bytes]) -> None:
        """Write any result, stacks as stacks, strip by strip."""
        pages, stack = _imagej_order(result)
        (height, width), dtype = result.size_yx, result.dtype
        rows = max(1, STRIP_BYTES // (width * dtype.itemsize))
        resolution = None
        if result.pixel_size_um is not None:
            resolution = (1 / result.pixel_size_um[1], 1 / result.pixel_size_um[0])
        large = len(pages) * height * width * dtype.itemsize > CLASSIC_LIMIT
        # a nameless file has a number for a name, which tifffile takes for a path
        with tifffile.TiffWriter(tifffile.FileHandle(target, name="result"), bigtiff=large) as writer:
            writer.write(
                _strips(result, pages, rows),
                shape=(len(pages), height, width),
                dtype=dtype,
                photometric="minisblack",
                compression="zlib",
                rowsperstrip=rows,
                metadata=None,
                description=_description(result, len(pages), stack),
                resolution=resolution,
                resolutionunit=None if resolution is None else "NONE",
                software="unet-service",
            )


def _strips(result: SegmentationResult, pages: Sequence[tuple[int, int | None]], rows: int) -> Iterator[bytes]:
    """Compressed strips of all pages; libdeflate is faster and denser than zlib."""
    for plane, channel in pages:
        for band in result.bands(plane, channel, rows):
            strip = band * np.uint8(255) if result.kind == "mask" and len(result.classes) <= 2 else band
            yield bytes(imagecodecs.deflate_encode(strip.tobytes(), level=2))


def _imagej_order(result: SegmentationResult) -> tuple[list[tuple[int, int | None]], dict[str, int]]:
    """Plane and channel of each page in ImageJ's order, channels fastest, then slices, then frames.

    Axes of other meaning become slices.
    """
    order = np.arange(len(result.planes)).reshape(result.stack_shape)
    if result.stack_axes == "ZT":
        order = order.T
    stack: dict[str, int] = {}
    channels: Sequence[int | None] = [None]
    if result.kind == "probabilities":
        channels = range(result.planes[0].shape[0])
        stack["channels"] = len(channels)
    lengths = dict(zip(result.stack_axes, result.stack_shape, strict=True))
    if set(lengths) <= {"T", "Z"}:
        stack |= {"slices": lengths.get("Z", 1), "frames": lengths.get("T", 1)}
    else:
        stack["slices"] = len(result.planes)
    pages = [(plane, channel) for plane in order.reshape(-1).tolist() for channel in channels]
    return pages, {key: length for key, length in stack.items() if length > 1}


def _description(result: SegmentationResult, pages: int, stack: dict[str, int]) -> str:
    lines = ["ImageJ=1.54f"]
    if pages > 1:
        lines += [f"images={pages}", *(f"{key}={length}" for key, length in stack.items())]
        if len(stack) > 1:
            lines.append("hyperstack=true")
        lines.append("mode=grayscale")
    if result.pixel_size_um is not None:
        lines.append("unit=micron")
    lines.append("loop=false")
    return "\n".join([*lines, f"unet_receipt={dump(dict(result.receipt)).decode('ascii')}", ""])
