"""TIFF that ImageJ opens with its calibration and as a hyperstack, and every other reader as plain pages.

A mask of two classes is 0 and 255, of more classes the class index (uint8); labels are uint16 or uint32; probabilities
are float32 with one channel per class. The description is ImageJ's (``ij.io.FileInfo``), with the receipt as one more
line ``unet_receipt={...}``. Deflate, without a predictor: ImageJ and Bio-Formats read it.

Pages are strips, which are all that ImageJ reads by itself; above :data:`TILED_ABOVE_PX` they are tiles, of which
viewers of slides (QuPath, napari, OpenSlide) decode only what they show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import IO, Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from service.formats.encoder import Encoder
from service.formats.json_text import dump
from service.formats.result import SegmentationResult

STRIP_BYTES = 1 << 20
TILE_PX = 512
"""Height and width of a tile; TIFF wants multiples of 16."""
TILED_ABOVE_PX = 1 << 28
"""Of a page: 16,384 x 16,384."""
CLASSIC_LIMIT = (1 << 32) - (1 << 25)
RECEIPT = "unet_receipt="
"""What the line of the receipt begins with."""


class TiffEncoder(Encoder):
    """Writes what the module describes."""

    name = "tiff"
    media_type = "image/tiff"
    extension = ".tif"

    def write(self, result: SegmentationResult, target: IO[bytes]) -> None:
        """Write any result, stacks as stacks, strip by strip or tile by tile."""
        pages, stack = _imagej_order(result)
        (height, width), dtype = result.size_yx, result.dtype
        tiled = height * width > TILED_ABOVE_PX
        rows = max(1, STRIP_BYTES // (width * dtype.itemsize))
        resolution = None
        if result.pixel_size_um is not None:
            resolution = (1 / result.pixel_size_um[1], 1 / result.pixel_size_um[0])
        large = len(pages) * height * width * dtype.itemsize > CLASSIC_LIMIT
        # a nameless file has a number for a name, which tifffile takes for a path
        with tifffile.TiffWriter(tifffile.FileHandle(target, name="result"), bigtiff=large) as writer:
            writer.write(
                _encoded(result, pages, None if tiled else rows),
                shape=(len(pages), height, width),
                dtype=dtype,
                photometric="minisblack",
                compression="zlib",
                rowsperstrip=None if tiled else rows,
                tile=(TILE_PX, TILE_PX) if tiled else None,
                metadata=None,
                description=_description(result, len(pages), stack),
                resolution=resolution,
                resolutionunit=None if resolution is None else "NONE",
                software="unet-service",
            )


def _encoded(result: SegmentationResult, pages: Sequence[tuple[int, int | None]], rows: int | None) -> Iterator[bytes]:
    """Compressed strips of so many rows, or tiles, of all pages; libdeflate is faster and denser than zlib."""
    white = np.uint8(255 if result.kind == "mask" and len(result.classes) <= 2 else 1)
    for plane, channel in pages:
        for part in _tiles(result, plane, channel) if rows is None else result.bands(plane, channel, rows):
            values = part * white if result.kind == "mask" else part
            yield bytes(imagecodecs.deflate_encode(values.tobytes(), level=2))


def _tiles(result: SegmentationResult, plane: int, channel: int | None) -> Iterator[NDArray[Any]]:
    """Tiles of a plane, row by row; those at its edge are filled up with zeros."""
    height, width = result.size_yx
    for y, x in product(range(0, height, TILE_PX), range(0, width, TILE_PX)):
        part = result.part(plane, channel, slice(y, y + TILE_PX), slice(x, x + TILE_PX))
        yield np.pad(part, [(0, TILE_PX - length) for length in part.shape])


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
    elif result.spacing_um is not None:
        lines.append("zunit=micron")
    if result.spacing_um is not None:
        lines.append(f"spacing={result.spacing_um:.10g}")
    if result.interval_s is not None:
        lines.append(f"finterval={result.interval_s:.10g}")
    lines.append("loop=false")
    return "\n".join([*lines, f"{RECEIPT}{dump(dict(result.receipt)).decode('ascii')}", ""])
