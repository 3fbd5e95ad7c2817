"""TIFF that ImageJ opens with its calibration and as a hyperstack, and every other reader as plain pages.

A mask of two classes is 0 and 255, of more classes the class index (uint8); labels are uint16 or uint32; probabilities
are float32 with one channel per class. The description is ImageJ's (``ij.io.FileInfo``), with the receipt as one more
line ``unet_receipt={...}``. Deflate, without a predictor: ImageJ and Bio-Formats read it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

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

    def encode(self, result: SegmentationResult) -> bytes:
        """Write any result, stacks as stacks."""
        pages, stack = _imagej_order(result)
        if result.kind == "mask" and len(result.classes) <= 2:
            pages = pages * np.uint8(255)
        file = io.BytesIO()
        resolution = None
        if result.pixel_size_um is not None:
            resolution = (1 / result.pixel_size_um[1], 1 / result.pixel_size_um[0])
        with tifffile.TiffWriter(file, bigtiff=pages.nbytes > CLASSIC_LIMIT) as writer:
            writer.write(
                pages,
                photometric="minisblack",
                compression="zlib",
                compressionargs={"level": 2},
                rowsperstrip=max(1, STRIP_BYTES // (pages.shape[-1] * pages.dtype.itemsize)),
                metadata=None,
                description=_description(result, len(pages), stack),
                resolution=resolution,
                resolutionunit=None if resolution is None else "NONE",
                software="unet-service",
                maxworkers=1,
            )
        return file.getvalue()


def _imagej_order(result: SegmentationResult) -> tuple[np.ndarray, dict[str, int]]:
    """Pages in ImageJ's order, channels fastest, then slices, then frames; axes of other meaning become slices."""
    planes = result.planes.reshape(*result.stack_shape, *result.planes.shape[1:])
    if result.stack_axes == "ZT":
        planes = np.swapaxes(planes, 0, 1)
    stack: dict[str, int] = {}
    if result.kind == "probabilities":
        stack["channels"] = planes.shape[-3]
    lengths = dict(zip(result.stack_axes, result.stack_shape, strict=True))
    if set(lengths) <= {"T", "Z"}:
        stack |= {"slices": lengths.get("Z", 1), "frames": lengths.get("T", 1)}
    else:
        stack["slices"] = len(result.planes)
    return planes.reshape(-1, *result.size_yx), {key: length for key, length in stack.items() if length > 1}


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
