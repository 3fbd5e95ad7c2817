"""GeoJSON as QuPath reads and writes it: a FeatureCollection of polygons with holes, in pixels, origin top left.

Coordinates are pixel corners (:mod:`service.formats.outlines`), those of a larger image where the result has a place in
one (:mod:`service.formats.placement`); areas in pixels likewise. Labels become detections, one feature per label, a
MultiPolygon where the object has several parts; a mask becomes annotations, one per class and connected region.
Properties are those of QuPath 0.4 and later (``qupath.lib.io.PathObjectTypeAdapters``): ``objectType``,
``classification`` with ``name`` and ``color``, ``measurements`` by name. Planes of a stack stand in the geometry's
``plane`` as QuPath has it; the collection carries the receipt.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from service.formats.encoder import NO_PROBABILITIES, Encoder
from service.formats.json_text import dump, dump_object, dump_rows, join_list
from service.formats.outlines import Region, regions
from service.formats.placement import Placement
from service.formats.result import SegmentationResult

COLOURS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (213, 94, 0), (0, 114, 178), (204, 121, 167), (240, 228, 66))
"""Okabe and Ito's palette, told apart by the colour-blind."""


class GeoJsonEncoder(Encoder):
    """Writes the collection that the module describes."""

    name = "geojson"
    media_type = "application/geo+json"
    extension = ".geojson"
    kinds = frozenset({"mask", "labels"})
    refusal = f"geojson {NO_PROBABILITIES}"
    placed = True  # run lengths and pixels cannot be, nor ImageJ's ROIs, which count in 16 bits
    outlined = of_edges = True

    def write(self, result: SegmentationResult, target: IO[bytes]) -> None:
        """Write all planes of a mask or of labels.

        Raises
        ------
        UnsupportedOutput
            ``result`` holds probabilities.
        """
        self.check_kind(result.kind)
        features = (feature for plane in range(len(result.planes)) for feature in _features(result, plane))
        # feature by feature: as text they take more memory than the outlines that they are made of
        target.write(b'{"type":"FeatureCollection","features":[')
        for number, feature in enumerate(features):
            target.write(b"," + feature if number else feature)
        target.write(b'],"receipt":' + dump(dict(result.receipt)) + b"}")


def grouped(result: SegmentationResult, plane: int) -> Iterator[tuple[int, list[Region]]]:
    """Label (or class index) and regions of each thing in one plane that is drawn as one.

    All regions of a label belong together and come in the order of labels; each region of a mask stands alone.
    """
    if result.kind == "mask":
        for region in regions(result.planes[plane]):
            yield region.label, [region]
        return
    for label, parts in groupby(regions(result.planes[plane], by_label=True), key=attrgetter("label")):
        yield label, list(parts)


def ring_area(ring_xy: NDArray[np.int64]) -> int:
    """Pixels that a ring of :mod:`service.formats.outlines` encloses; negative for a hole."""
    # Every other side is horizontal; the formula of the trapezoid leaves only those.
    x, y = ring_xy[:, 0], ring_xy[:, 1]
    return int(((x - np.roll(x, -1)) * y).sum())


def _features(result: SegmentationResult, plane: int) -> Iterator[bytes]:
    for label, parts in grouped(result, plane):
        class_index = label if result.kind == "mask" else 1
        area = sum(ring_area(ring) for part in parts for ring in part.rings_xy)
        measurements: dict[str, float] = {"Area px": result.placement.area(area)}
        if result.pixel_size_um is not None:
            measurements["Area µm^2"] = area * result.pixel_size_um[0] * result.pixel_size_um[1]
        properties: dict[str, Any] = {
            "objectType": "annotation" if result.kind == "mask" else "detection",
            "classification": {
                "name": _name(result, class_index),
                "color": COLOURS[(class_index - 1) % len(COLOURS)],
            },
            "measurements": measurements,
        }
        if result.kind == "labels":
            properties["name"] = str(result.number(plane, label))
            if (score := result.score(plane, label)) is not None:
                measurements["Score"] = score
        yield dump_object(
            {"type": "Feature", "properties": properties},
            geometry=_geometry(parts, _plane(result, plane), result.placement),
        )


def _name(result: SegmentationResult, class_index: int) -> str:
    return result.classes[class_index] if class_index < len(result.classes) else f"class {class_index}"


def _geometry(parts: list[Region], plane: dict[str, Any], placement: Placement) -> bytes:
    polygons = [
        # closed: first corner last
        join_list(dump_rows(placement.corners(np.concatenate((ring, ring[:1])))) for ring in part.rings_xy)
        for part in parts
    ]
    if len(polygons) == 1:
        return dump_object({"type": "Polygon"} | plane, coordinates=polygons[0])
    return dump_object({"type": "MultiPolygon"} | plane, coordinates=join_list(polygons))


def _plane(result: SegmentationResult, plane: int) -> dict[str, Any]:
    """Position in QuPath's image, whose planes have z and t only; other axes count as z."""
    if not result.stack_axes:
        return {}
    position = dict(zip(result.stack_axes, result.plane_index(plane), strict=True))
    if not set(position) <= {"T", "Z"}:
        return {"plane": {"c": -1, "z": plane, "t": 0}}
    return {"plane": {"c": -1, "z": position.get("Z", 0), "t": position.get("T", 0)}}
