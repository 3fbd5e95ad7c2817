"""Outlines: what is enclosed is exactly what was labelled, holes and corner contacts included."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from service.formats import UnsupportedOutput
from service.formats.outlines import Region, regions
from service.formats.placement import Placement
from tests.service.formats.results import RECEIPT, encoded, label_planes, labels, mask, probabilities

DIAGONAL = np.array([[1, 0], [0, 1]], dtype=np.uint16)
RING_TOUCHING_ITSELF = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=np.uint16)
TWO_HOLES_TOUCHING = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], dtype=np.uint16)


def area(ring: NDArray[np.int64]) -> float:
    """Formula of Gauss, positive where the ring runs clockwise on the screen."""
    x, y = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def fill(rings: list[NDArray[np.int64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centres lie within, by the even-odd rule along each row: another way than the tracer's."""
    crossings = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    for ring in rings:
        for (x0, y0), (x1, y1) in itertools.pairwise([*ring.tolist(), ring[0].tolist()]):
            if x0 == x1:
                crossings[min(y0, y1) : max(y0, y1), x0] += 1
    inside: NDArray[np.bool_] = np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1
    return inside


@settings(max_examples=300)
@given(plane=label_planes(largest=3))
@example(plane=DIAGONAL)
@example(plane=RING_TOUCHING_ITSELF)
@example(plane=TWO_HOLES_TOUCHING)
def test_area_of_the_polygons_is_the_count_of_pixels(plane: NDArray[np.uint16]) -> None:
    totals = dict.fromkeys(range(1, 4), 0.0)
    for region in regions(plane):
        totals[region.label] += sum(area(ring) for ring in region.rings_xy)
    assert totals == {label: float((plane == label).sum()) for label in totals}


@settings(max_examples=200)
@given(plane=label_planes(largest=2))
def test_filling_the_rings_gives_the_pixels_of_one_connected_region(plane: NDArray[np.uint16]) -> None:
    drawn = np.zeros_like(plane)
    for region in regions(plane):
        pixels = fill(list(region.rings_xy), plane.shape)
        assert ndimage.label(pixels)[1] == 1
        assert not drawn[pixels].any()
        drawn[pixels] = region.label
    np.testing.assert_array_equal(drawn, plane)


@settings(max_examples=100)
@given(plane=label_planes(largest=3))
@example(plane=DIAGONAL)
def test_regions_by_label_are_the_same_ones_in_the_order_of_labels(plane: NDArray[np.uint16]) -> None:
    def shown(found: Iterable[Region]) -> list[tuple[int, list[Any]]]:
        return [(region.label, [ring.tolist() for ring in region.rings_xy]) for region in found]

    in_order = sorted(regions(plane), key=lambda region: region.label)
    assert shown(regions(plane, by_label=True)) == shown(in_order)


@settings(max_examples=200)
@given(plane=label_planes(largest=1))
@example(plane=RING_TOUCHING_ITSELF)
@example(plane=TWO_HOLES_TOUCHING)
def test_rings_are_simple_and_the_outer_one_comes_first(plane: NDArray[np.uint16]) -> None:
    for region in regions(plane):
        outer, *holes = region.rings_xy
        assert area(outer) > 0
        assert all(area(hole) < 0 for hole in holes)
        for ring in region.rings_xy:
            assert len(np.unique(ring, axis=0)) == len(ring)
            steps = np.diff(np.concatenate((ring, ring[:1])), axis=0)
            assert ((steps == 0).sum(axis=1) == 1).all()  # along one axis, never in place
            assert ((steps[:, 0] == 0) != (np.roll(steps[:, 0], 1) == 0)).all()  # a corner at every point


@pytest.mark.parametrize(
    ("plane", "parts", "rings"), [(DIAGONAL, 2, 1), (RING_TOUCHING_ITSELF, 1, 2), (TWO_HOLES_TOUCHING, 1, 3)]
)
def test_contacts_at_a_corner_never_join_rings(plane: NDArray[np.uint16], parts: int, rings: int) -> None:
    found = list(regions(plane))
    assert [len(region.rings_xy) for region in found] == [rings] * parts


def test_an_image_larger_than_one_band_is_traced_across_bands() -> None:
    plane = np.zeros((1500, 1500), dtype=np.uint8)
    plane[10:-10, 10:-10] = 1
    plane[20:-20, 20:-20] = 0
    (region,) = regions(plane)
    assert [len(ring) for ring in region.rings_xy] == [4, 4]
    assert sum(area(ring) for ring in region.rings_xy) == plane.sum()


def rings(feature: dict[str, Any]) -> list[list[list[float]]]:
    """Rings of a feature's polygons, one after the other."""
    geometry = feature["geometry"]
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    return [ring for polygon in polygons for ring in polygon]


def geojson(result: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encoded("geojson", result))
    return document


@settings(max_examples=150)
@given(plane=label_planes(largest=3))
def test_geojson_has_one_closed_feature_per_label_with_its_area(plane: NDArray[np.uint16]) -> None:
    features = geojson(labels(plane))["features"]
    assert [int(feature["properties"]["name"]) for feature in features] == np.unique(plane[plane > 0]).tolist()
    for feature in features:
        assert feature["geometry"]["type"] in {"Polygon", "MultiPolygon"}
        closed = [np.array(ring) for ring in rings(feature)]
        assert all((ring[0] == ring[-1]).all() for ring in closed)
        pixels = plane == int(feature["properties"]["name"])
        assert sum(area(ring[:-1]) for ring in closed) == pixels.sum()
        assert feature["properties"]["measurements"]["Area px"] == pixels.sum()


def test_geojson_properties_are_those_that_qupath_reads() -> None:
    scores = (np.array([0.5, 0.75], dtype=np.float32),)
    document = geojson(labels([[0, 2, 1]], scores=scores, pixel_size_um=(0.5, 0.5)))
    assert document["type"] == "FeatureCollection"
    assert document["receipt"] == RECEIPT
    second = document["features"][1]
    assert second["type"] == "Feature"
    assert second["geometry"] == {"type": "Polygon", "coordinates": [[[1, 0], [2, 0], [2, 1], [1, 1], [1, 0]]]}
    assert second["properties"] == {
        "objectType": "detection",
        "classification": {"name": "cell", "color": [0, 158, 115]},
        "measurements": {"Area px": 1, "Area µm^2": 0.25, "Score": 0.75},
        "name": "2",
    }


def test_each_region_of_a_mask_is_an_annotation_of_its_class() -> None:
    features = geojson(mask([[1, 0, 1, 2]], classes=("background", "a", "b")))["features"]
    named = [(f["properties"]["objectType"], f["properties"]["classification"]["name"]) for f in features]
    assert named == [("annotation", "a"), ("annotation", "a"), ("annotation", "b")]


def test_geojson_of_a_stack_tells_the_plane() -> None:
    planes = np.ones((6, 1, 1))
    features = geojson(labels(*planes, stack_axes="TZ", stack_shape=(2, 3)))["features"]
    assert features[4]["geometry"]["plane"] == {"c": -1, "z": 1, "t": 1}


@settings(max_examples=100)
@given(
    plane=label_planes(largest=3),
    origin_yx=st.tuples(*[st.sampled_from((0.0, -3.0, 100.25, 80_000.0))] * 2),
    downsample=st.sampled_from((1.0, 4.0, 2.5, 0.25)),
)
def test_geojson_of_a_region_has_the_coordinates_and_areas_of_the_whole_image(
    plane: NDArray[np.uint16], origin_yx: tuple[float, float], downsample: float
) -> None:
    own = geojson(labels(plane))["features"]
    placed = geojson(labels(plane, placement=Placement(origin_yx, downsample)))["features"]
    assert len(placed) == len(own)
    for before, after in zip(own, placed, strict=True):
        corners, moved = (np.concatenate(rings(feature)) for feature in (before, after))
        np.testing.assert_array_equal(moved, corners * downsample + origin_yx[::-1])
        pixels = before["properties"]["measurements"]["Area px"]
        assert after["properties"]["measurements"]["Area px"] == pixels * downsample**2


def test_whole_origin_and_downsample_give_whole_coordinates_and_others_four_decimals() -> None:
    def first(placement: Placement) -> str:
        return encoded("geojson", labels([[0, 1]], placement=placement)).decode().partition('"coordinates":')[2][:33]

    assert first(Placement((2048.0, 10240.0), 4.0)).startswith("[[[10244,2048],[10248,2048],")
    assert first(Placement((0.1, 0.2), 0.3333333)).startswith("[[[0.5333,0.1],[0.8667,0.1],")


def test_areas_in_micrometres_are_those_of_the_image_that_was_sent() -> None:
    placed = labels([[1]], placement=Placement((0.0, 0.0), 4.0), pixel_size_um=(2.0, 2.0))
    (feature,) = geojson(placed)["features"]
    assert feature["properties"]["measurements"] == {"Area px": 16, "Area µm^2": 4.0}


@pytest.mark.parametrize("name", ["geojson", "rois", "coco"])
def test_probabilities_are_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(UnsupportedOutput, match="format=tiff or npy"):
        encoded(name, probabilities(np.zeros((2, 3, 4))))


@pytest.mark.parametrize("name", ["rle", "coco", "geojson", "rois"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5)])
def test_an_image_without_objects_is_an_empty_document(name: str, shape: tuple[int, int]) -> None:
    document_bytes = encoded(name, labels(np.zeros(shape)))
    if name != "rois":
        document = json.loads(document_bytes)
        assert document.get("objects", document.get("annotations", document.get("features"))) == []
    else:
        assert document_bytes == b"PK\x05\x06" + bytes(18)
