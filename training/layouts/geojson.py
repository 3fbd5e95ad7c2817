"""Layout ``geojson``: for each image a GeoJSON file of polygons with holes, as QuPath exports objects.

Coordinates are pixels of the image from its upper left corner (:mod:`training.layouts.raster`). A feature is an object:
annotation, detection or cell; of a cell the outline counts, not the nucleus. A class of the name ``Ignore*`` marks what
nobody has annotated, and so do all classes whose names end in ``*``, as QuPath has it
(``qupath.lib.objects.classes.PathClassTools.isIgnoredClass``), but ``Region*``: where a file has such regions, only
what lies in them is annotated. Annotations without a class may be what cells were looked for in: such regions too, no
objects (:mod:`training.layouts.geojson_regions`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from training.layouts.beside import ReadShapes, list_beside, recognise_beside, suspect_beside
from training.layouts.geojson_files import Files
from training.layouts.geojson_regions import Regions, count_found, fills
from training.layouts.raster import fill_rings, unite
from training.layouts.shapes import Shape, is_taken
from training.layouts.source import Source, tell_once
from training.options import Data

_log = logging.getLogger(__name__)

EXPECTS = "images/NAME.tif, with NAME.geojson (QuPath; or .json, .geojson.gz) in labels/ or beside it"

_SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
_MOST_NAMED = 5


def recognise(folder: Path, data: Data) -> str | None:
    """Say how many images and files there are; None where one kind is missing."""
    return recognise_beside(folder, data, _SUFFIXES)


def suspect(folder: Path, data: Data) -> str | None:
    """Say what may be meant as GeoJSON of images where no layout fits."""
    return suspect_beside(folder, data, _SUFFIXES)


def list_sources(folder: Path, data: Data, wanted: Sequence[str] | None) -> list[Source]:
    """List images with their files.

    Raises
    ------
    MissingFile
        Where there is no image, or an image has no file.
    MaskMismatch
        Where two files share a stem.

    """
    files = Files()

    def reader(paths: Sequence[Path]) -> ReadShapes:
        return partial(_read_shapes, files, Regions(files, paths), data)

    return list_beside(folder, data, wanted, _SUFFIXES, reader=reader, read_categories=files.categories)


def _read_shapes(files: Files, regions: Regions, data: Data, path: Path, size_yx: tuple[int, int]) -> list[Shape]:
    """Read the features of a file.

    Features without geometry are left out, and annotations that cells were looked for in are regions; the log says so,
    and names those that may be some, too.

    Raises
    ------
    UnreadableFile
        Where the file is not JSON or no GeoJSON, or a feature has no area.
    MaskMismatch
        Where a feature belongs to another plane than the first.

    """
    drawn = files.take(path)
    outlines = drawn.outlines
    if drawn.bare:
        features = len(outlines) + drawn.bare
        _log.warning("%s: %d of %d features have no geometry: left out", path, drawn.bare, features)
    patches = [unite([fill_rings(rings, size_yx) for rings in outline.polygons]) for outline in outlines]
    shares = [float(patch.mask_yx.sum()) / (size_yx[0] * size_yx[1]) for patch in patches]
    found = count_found(outlines)
    are_regions = regions.among(path, outlines, found, shares)
    shapes = [
        Shape(outline.name, patch, outline.category, "region" if is_region else outline.role)
        for outline, patch, is_region in zip(outlines, patches, are_regions, strict=True)
    ]
    around = [shape for shape, is_region in zip(shapes, are_regions, strict=True) if is_region]
    if around:
        tell_once(
            logging.INFO,
            f"{path}: taken as regions, not as objects, for cells were looked for in them: {_names(around)}",
        )
    doubtful = [
        shape
        for shape, count, share in zip(shapes, found, shares, strict=True)
        if shape.role == "object" and is_taken(shape, data) and (count or fills(share))
    ]
    if doubtful and data.kind == "instances":
        tell_once(
            logging.WARNING,
            f"{path}: taken as objects, though cells lie in them or they fill most of the image: {_names(doubtful)}. "
            "Where they are what cells were looked for in, give them the class Region* in QuPath, or name other "
            "classes as data.categories",
        )
    return shapes


def _names(shapes: Sequence[Shape]) -> str:
    more = f" and {len(shapes) - _MOST_NAMED} more" if len(shapes) > _MOST_NAMED else ""
    return ", ".join(shape.name for shape in shapes[:_MOST_NAMED]) + more
