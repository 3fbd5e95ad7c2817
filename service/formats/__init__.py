"""Results out: segmentations are written here, without HTTP and without the model; uploads: :mod:`model.images`."""

from __future__ import annotations

from collections.abc import Mapping

from service.formats.coco import CocoEncoder
from service.formats.errors import UnknownFormat, UnsupportedOutput
from service.formats.geojson import GeoJsonEncoder
from service.formats.negotiate import choose_format
from service.formats.npy import NpyEncoder
from service.formats.placement import PLACED_FORMATS, UNPLACED, Placement
from service.formats.png import PngEncoder
from service.formats.result import Encoder, OutputKind, SegmentationResult, refuse_kind
from service.formats.rle import RleEncoder
from service.formats.rois import RoiZipEncoder
from service.formats.table import CsvEncoder
from service.formats.tiff import TiffEncoder

ENCODERS: Mapping[str, Encoder] = {
    "png": PngEncoder(),
    "rle": RleEncoder(),
    "coco": CocoEncoder(),
    "tiff": TiffEncoder(),
    "geojson": GeoJsonEncoder(),
    "rois": RoiZipEncoder(),
    "csv": CsvEncoder(),
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
    "PLACED_FORMATS",
    "UNPLACED",
    "Encoder",
    "OutputKind",
    "Placement",
    "SegmentationResult",
    "UnknownFormat",
    "UnsupportedOutput",
    "negotiate",
    "refuse_kind",
]
