"""Results out: segmentations are written here, without HTTP and without the model; uploads: :mod:`model.images`."""

from __future__ import annotations

from collections.abc import Mapping

from service.formats.coco import CocoEncoder
from service.formats.encoder import Encoder
from service.formats.errors import UnknownFormat, UnsupportedOutput
from service.formats.geojson import GeoJsonEncoder
from service.formats.negotiate import choose_format
from service.formats.npy import NpyEncoder
from service.formats.placement import UNPLACED, Placement
from service.formats.png import PngEncoder
from service.formats.result import OutputKind, SegmentationResult
from service.formats.rle import RleEncoder
from service.formats.rois import RoiZipEncoder
from service.formats.table import CsvEncoder
from service.formats.tiff import TiffEncoder

ENCODERS: Mapping[str, Encoder] = {
    encoder.name: encoder
    for encoder in (
        PngEncoder(),
        TiffEncoder(),
        RleEncoder(),
        CocoEncoder(),
        GeoJsonEncoder(),
        RoiZipEncoder(),
        CsvEncoder(),
        NpyEncoder(),
    )
}
"""Encoder by the name that ``format=`` takes, in the service's order of preference."""

FORMAT_OF_MEDIA: Mapping[str, str] = {
    encoder.media_type: next(name for name, other in ENCODERS.items() if other.media_type == encoder.media_type)
    for encoder in ENCODERS.values()
}
"""The first that has it: ``coco`` shares ``application/json`` and is had by name only."""

PLACED_FORMATS = tuple(name for name, encoder in ENCODERS.items() if encoder.placed)
"""Formats whose coordinates can be those of a larger image."""


def negotiate(accept: str | None, format: str | None) -> str:  # noqa: A002 - the query parameter's own name
    """Name the output format: ``format`` where it is given, else by the Accept header, else ``png``.

    Raises
    ------
    UnknownFormat
        No such format, or none is acceptable.
    """
    return choose_format(accept, format, ENCODERS, FORMAT_OF_MEDIA)


__all__ = [
    "ENCODERS",
    "FORMAT_OF_MEDIA",
    "PLACED_FORMATS",
    "UNPLACED",
    "Encoder",
    "OutputKind",
    "Placement",
    "SegmentationResult",
    "UnknownFormat",
    "UnsupportedOutput",
    "negotiate",
]
