"""Layout ``geojson``: for each image a GeoJSON file of polygons with holes, as QuPath exports objects.

Coordinates are pixels of the image from its upper left corner (:mod:`training.layouts.raster`). A feature is an object:
annotation, detection or cell; of a cell the outline counts, not the nucleus. A class of the name ``Ignore*`` marks what
nobody has annotated, and so do all classes whose names end in ``*``, as QuPath has it
(``qupath.lib.objects.classes.PathClassTools.isIgnoredClass``), but ``Region*``: where a file has such regions, only
what lies in them is annotated. An annotation without a class around cells or detections is what they were looked for
in, as QuPath needs one for that: such a region too, no object.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, BeforeValidator, Field, TypeAdapter

from training.errors import MaskMismatch, UnreadableFile
from training.layouts.beside import list_beside, recognise_beside
from training.layouts.documents import Entry, hold, parse_json
from training.layouts.raster import fill_rings, unite
from training.layouts.shapes import Shape, number_pixels
from training.layouts.source import Source
from training.options import Data

_log = logging.getLogger(__name__)

EXPECTS = "images/NAME.tif, with NAME.geojson (QuPath) in labels/ or beside it"

_SUFFIXES = (".geojson",)

_GEOMETRIES = ("Polygon", "MultiPolygon", "GeometryCollection", "Point", "MultiPoint", "LineString", "MultiLineString")
_FEWEST_CORNERS = 3
_MOST_OF_A_NAME = 60
_FOUND = ("cell", "detection", "tile")
_FEWEST_FOUND = 2
_MOST_NAMED = 5
_REMEDY = (
    "expected an area: Polygon, MultiPolygon or a GeometryCollection of them, with rings of 3 corners or more. Take it "
    "away, or draw the object's area"
)

_Ring = list[Annotated[list[float], Field(min_length=2)]]


class _Plane(Entry):
    z: int = 0
    t: int = 0


class _Polygon(Entry):
    type: Literal["Polygon"]
    coordinates: list[_Ring]
    plane: _Plane = _Plane()


class _MultiPolygon(Entry):
    type: Literal["MultiPolygon"]
    coordinates: list[list[_Ring]]
    plane: _Plane = _Plane()


class _Arealess(Entry):
    type: Literal["Point", "MultiPoint", "LineString", "MultiLineString"]


class _Collection(Entry):
    type: Literal["GeometryCollection"]
    geometries: list[Annotated[_Polygon | _MultiPolygon | _Arealess, Field(discriminator="type")]]


_Geometry = _Polygon | _MultiPolygon | _Arealess | _Collection


def _named(classification: object) -> object:
    return {"name": classification} if isinstance(classification, str) else classification


class _Classification(Entry):
    """``name``, or for a class derived from another the ``names`` from the base on."""

    name: str | None = None
    names: tuple[str, ...] = ()


class _Properties(Entry):
    """``name`` is for messages alone, so that numbers and all else will do. QuPath 0.3 wrote ``object_type``."""

    name: object = None
    kind: object = Field(default=None, validation_alias=AliasChoices("objectType", "object_type"))
    classification: Annotated[_Classification | None, BeforeValidator(_named)] = None


class _Feature(Entry):
    type: Literal["Feature"]
    geometry: Annotated[_Geometry, Field(discriminator="type")] | None
    properties: _Properties | None = None

    @property
    def name(self) -> str:
        name = (self.properties or _Properties()).name
        return str("" if name is None else name)[:_MOST_OF_A_NAME] or self.category or "without a name"

    @property
    def category(self) -> str | None:
        classification = (self.properties or _Properties()).classification or _Classification()
        return classification.name or ": ".join(classification.names) or None


_FEATURES = TypeAdapter(list[_Feature])


def recognise(folder: Path, data: Data) -> str | None:
    """Say how many images and files there are; None where one kind is missing."""
    return recognise_beside(folder, data, _SUFFIXES)


def list_sources(folder: Path, data: Data, wanted: Sequence[str] | None) -> list[Source]:
    """List images with their files.

    Raises
    ------
    MissingFile
        Where there is no image, or an image has no file.
    MaskMismatch
        Where two files share a stem.

    """
    return list_beside(folder, data, wanted, _SUFFIXES, read=read_shapes, read_categories=read_categories)


def read_shapes(path: Path, size_yx: tuple[int, int]) -> list[Shape]:
    """Read the features of a FeatureCollection or of a list, one feature, or a geometry, which is one object.

    Features without geometry are left out, and annotations around cells are regions; the log says so.

    Raises
    ------
    UnreadableFile
        Where the file is not JSON or no GeoJSON, or a feature has no area.
    MaskMismatch
        Where a feature belongs to another plane than the first.

    """
    features, shapes, kinds = _read(path), [], []
    for number, feature in enumerate(features):
        if feature.geometry is not None:
            shapes.append(_shape(feature, feature.geometry, number, path, size_yx))
            kinds.append((feature.properties or _Properties()).kind)
    if len(shapes) < len(features):
        bare = len(features) - len(shapes)
        _log.warning("%s: %d of %d features have no geometry: left out", path, bare, len(features))
    around = _around_others(shapes, kinds, size_yx)
    if around:
        names = ", ".join(shapes[place].name for place in around[:_MOST_NAMED])
        more = f" and {len(around) - _MOST_NAMED} more" if len(around) > _MOST_NAMED else ""
        _log.info("%s: taken as regions, not as objects, for the cells in them: %s%s", path, names, more)
    return [replace(shape, role="region") if place in around else shape for place, shape in enumerate(shapes)]


def read_categories(path: Path) -> set[str]:
    """Read the names of the categories that the objects of a file have.

    Raises
    ------
    UnreadableFile
        Where the file is not JSON or no GeoJSON.

    """
    return {name for feature in _read(path) if (name := feature.category) is not None and _role(name) == "object"}


def _read(path: Path) -> list[_Feature]:
    document = parse_json(path)
    if isinstance(document, dict):
        document = document.get("features") if document.get("type") == "FeatureCollection" else [document]
    if isinstance(document, list):
        document = [_as_feature(entry) for entry in document]
    return hold(document, _FEATURES, path)


def _as_feature(entry: object) -> object:
    """Make a geometry a feature of its own."""
    is_geometry = isinstance(entry, dict) and entry.get("type") in _GEOMETRIES
    return {"type": "Feature", "geometry": entry} if is_geometry else entry


def _shape(feature: _Feature, geometry: _Geometry, number: int, path: Path, size_yx: tuple[int, int]) -> Shape:
    name, category = f"feature {number} ({feature.name})", feature.category
    parts = geometry.geometries if isinstance(geometry, _Collection) else [geometry]
    polygons = [polygon for part in parts for polygon in _polygons(part, f"{path}: {name}")]
    if not polygons:
        raise UnreadableFile(f"{path}: {name} is a {geometry.type} without polygons; {_REMEDY}")
    patch = unite([fill_rings([_corners(ring) for ring in rings], size_yx) for rings in polygons])
    return Shape(name, patch, category, _role(category))


def _around_others(shapes: Sequence[Shape], kinds: Sequence[object], size_yx: tuple[int, int]) -> list[int]:
    """Places of the annotations without a class that cover most of two cells or detections, or of more."""
    found = [shape for shape, kind in zip(shapes, kinds, strict=True) if kind in _FOUND and shape.role == "object"]
    numbers = number_pixels(found, size_yx)
    areas = np.bincount(numbers.ravel(), minlength=len(found) + 1)
    around = []
    for place, (shape, kind) in enumerate(zip(shapes, kinds, strict=True)):
        if kind != "annotation" or shape.category is not None or len(found) < _FEWEST_FOUND:
            continue
        covered = np.bincount(shape.patch.of(numbers)[shape.patch.mask_yx], minlength=len(found) + 1)
        if np.count_nonzero(2 * covered[1:] > areas[1:]) >= _FEWEST_FOUND:
            around.append(place)
    return around


def _polygons(geometry: _Polygon | _MultiPolygon | _Arealess, where: str) -> list[list[_Ring]]:
    """Rings of each polygon; whatever encloses nothing, or lies in another plane, is refused."""
    if isinstance(geometry, _Arealess):
        raise UnreadableFile(f"{where} is of type {geometry.type}; {_REMEDY}")
    if geometry.plane.z or geometry.plane.t:
        raise MaskMismatch(
            f"{where} lies in plane z {geometry.plane.z}, t {geometry.plane.t}; expected the only plane of an "
            "image (z 0, t 0). Export each plane with its own image"
        )
    polygons = [geometry.coordinates] if isinstance(geometry, _Polygon) else geometry.coordinates
    for rings in polygons:
        corners = [len(ring) for ring in rings]
        if min(corners, default=0) < _FEWEST_CORNERS:
            found = f"rings of {corners} corners" if rings else "no ring"
            raise UnreadableFile(f"{where} is a {geometry.type} with {found}; {_REMEDY}")
    return polygons


def _role(category: str | None) -> Literal["object", "unknown", "region"]:
    if category is None or not category.endswith("*"):
        return "object"
    return "region" if category == "Region*" else "unknown"


def _corners(ring: list[list[float]]) -> NDArray[np.float64]:
    """(n, 2) corners; a third coordinate, which GeoJSON allows, is left out."""
    return np.array([corner[:2] for corner in ring], dtype=np.float64)
