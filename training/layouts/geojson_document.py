"""GeoJSON as QuPath writes it, held to its types: features, their outlines, their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, BeforeValidator, Field, TypeAdapter

from training.errors import MaskMismatch, UnreadableFile
from training.layouts.documents import Entry, hold, parse_json
from training.layouts.shapes import Role

_GEOMETRIES = ("Polygon", "MultiPolygon", "GeometryCollection", "Point", "MultiPoint", "LineString", "MultiLineString")
_FEWEST_CORNERS = 3
_MOST_OF_A_NAME = 60
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


class Feature(Entry):
    """One entry of a file; without geometry it shows nothing."""

    type: Literal["Feature"]
    geometry: Annotated[_Geometry, Field(discriminator="type")] | None
    properties: _Properties | None = None

    @property
    def name(self) -> str:
        """Name, else class, for messages."""
        name = (self.properties or _Properties()).name
        return str("" if name is None else name)[:_MOST_OF_A_NAME] or self.category or "without a name"

    @property
    def kind(self) -> object:
        """QuPath's type of the object, such as ``annotation`` or ``cell``."""
        return (self.properties or _Properties()).kind

    @property
    def category(self) -> str | None:
        """Name of its class."""
        classification = (self.properties or _Properties()).classification or _Classification()
        return classification.name or ": ".join(classification.names) or None


@dataclass(frozen=True, slots=True)
class Outline:
    """A feature's polygons, each of rings of (n, 2) corners x, y in pixels: the outer one, then holes."""

    name: str
    kind: object
    category: str | None
    polygons: list[list[NDArray[np.float64]]]

    @property
    def role(self) -> Role:
        """What its class makes of it."""
        return role_of(self.category)


_FEATURES = TypeAdapter(list[Feature])


def read_features(path: Path) -> list[Feature]:
    """Read the features of a FeatureCollection or of a list, one feature, or a geometry, which is one object.

    Raises
    ------
    UnreadableFile
        Where the file is not JSON or no GeoJSON.

    """
    document = parse_json(path)
    if isinstance(document, dict):
        document = document.get("features") if document.get("type") == "FeatureCollection" else [document]
    if isinstance(document, list):
        document = [_as_feature(entry) for entry in document]
    return hold(document, _FEATURES, path)


def outlines_of(features: Sequence[Feature], path: Path) -> list[Outline]:
    """Outlines of the features that have a geometry.

    Raises
    ------
    UnreadableFile
        Where a feature has no area.
    MaskMismatch
        Where a feature belongs to another plane than the first.

    """
    return [
        _outline(feature, feature.geometry, number, path)
        for number, feature in enumerate(features)
        if feature.geometry is not None
    ]


def role_of(category: str | None) -> Role:
    """What QuPath's class of a feature makes of it."""
    if category is None or not category.endswith("*"):
        return "object"
    return "region" if category == "Region*" else "unknown"


def _outline(feature: Feature, geometry: _Geometry, number: int, path: Path) -> Outline:
    name = f"feature {number} ({feature.name})"
    parts = geometry.geometries if isinstance(geometry, _Collection) else [geometry]
    polygons = [polygon for part in parts for polygon in _polygons(part, f"{path}: {name}")]
    if not polygons:
        raise UnreadableFile(f"{path}: {name} is a {geometry.type} without polygons; {_REMEDY}")
    return Outline(name, feature.kind, feature.category, [[_corners(ring) for ring in rings] for rings in polygons])


def _as_feature(entry: object) -> object:
    """Make a geometry a feature of its own."""
    is_geometry = isinstance(entry, dict) and entry.get("type") in _GEOMETRIES
    return {"type": "Feature", "geometry": entry} if is_geometry else entry


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


def _corners(ring: list[list[float]]) -> NDArray[np.float64]:
    """(n, 2) corners; a third coordinate, which GeoJSON allows, is left out."""
    return np.array([corner[:2] for corner in ring], dtype=np.float64)
