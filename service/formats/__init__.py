"""Images in, results out: uploads are read here and segmentations written, without HTTP and without the model."""

from __future__ import annotations

from collections.abc import Mapping

from service.formats.coco import CocoEncoder
from service.formats.errors import (
    FormatError,
    ImageTooLarge,
    UndecodableImage,
    UnknownFormat,
    UnsupportedImageFormat,
    UnsupportedOutput,
)
from service.formats.geojson import GeoJsonEncoder
from service.formats.image import PIXEL_SIZE_LIMITS_UM, ImageHeader, ImageReader, ReadLimits
from service.formats.negotiate import choose_format
from service.formats.npy import NpyEncoder
from service.formats.png import PngEncoder
from service.formats.reader import open_image
from service.formats.result import Encoder, SegmentationResult
from service.formats.rle import RleEncoder
from service.formats.rois import RoiZipEncoder
from service.formats.tiff import TiffEncoder

ENCODERS: Mapping[str, Encoder] = {
    "png": PngEncoder(),
    "rle": RleEncoder(),
    "coco": CocoEncoder(),
    "tiff": TiffEncoder(),
    "geojson": GeoJsonEncoder(),
    "rois": RoiZipEncoder(),
    "npy": NpyEncoder(),
}
"""Encoder by the name that ``format=`` takes."""


def negotiate(accept: str | None, format: str | None) -> str:  # noqa: A002 - the query parameter's own name
    """Name the output format: ``format`` where it is given, else by the Accept header, else ``png``.

    Raises
    ------
    UnknownFormat
        No such format, or none is acceptable.
    """
    return choose_format(accept, format, ENCODERS)


__all__ = [
    "ENCODERS",
    "PIXEL_SIZE_LIMITS_UM",
    "Encoder",
    "FormatError",
    "ImageHeader",
    "ImageReader",
    "ImageTooLarge",
    "ReadLimits",
    "SegmentationResult",
    "UndecodableImage",
    "UnknownFormat",
    "UnsupportedImageFormat",
    "UnsupportedOutput",
    "negotiate",
    "open_image",
]
