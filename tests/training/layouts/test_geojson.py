"""QuPath's GeoJSON: polygons with holes, classes, what nobody has annotated, what is refused."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from training.data.datasets import IGNORE, load_images
from training.errors import MaskMismatch, MissingFile, UnreadableFile
from training.options import Data


def square(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(*rings: list[list[float]], name: str | None = None, **geometry: Any) -> dict[str, Any]:
    properties = {"objectType": "annotation"} | ({"classification": {"name": name}} if name else {})
    shape = {"type": "Polygon", "coordinates": list(rings)} | geometry
    return {"type": "Feature", "geometry": shape, "properties": properties}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", np.zeros((10, 12), dtype=np.uint8))
    return tmp_path


def write(folder: Path, *features: Any, name: str = "images/a.geojson") -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))


def labels(folder: Path, **options: Any) -> NDArray[np.int32]:
    (image,) = load_images(folder, Data.model_validate(options), 1, 3 if "categories" in options else 2)
    return image.labels_yx


def test_features_are_objects_in_their_order_and_holes_stay_open(folder: Path) -> None:
    write(folder, feature(square(1, 1, 6, 6), square(2, 2, 4, 4)), feature(square(8, 0, 12, 3)))
    expected = np.zeros((10, 12), dtype=np.int32)
    expected[1:6, 1:6], expected[2:4, 2:4], expected[0:3, 8:12] = 1, 0, 2
    np.testing.assert_array_equal(labels(folder), expected)


@pytest.mark.parametrize("place", ["images", "labels", "."])
@pytest.mark.parametrize(
    "name",
    [
        "a.geojson",
        "a.json",
        "a.geojson.gz",
        "a_labels.JSON.GZ",
        "a.ome.tif.json",
        "a.ome.tif - a.geojson",
        "a.ome.tif - Series 1 - 20x.geojson.gz",
        "a.ome.tif - b.ome.tif.json",
    ],
)
def test_files_are_named_as_qupath_names_them(folder: Path, name: str, place: str) -> None:
    (folder / "images" / "a.tif").rename(folder / "images" / "a.ome.tif")
    if place == ".":
        (folder / "images" / "a.ome.tif").rename(folder / "a.ome.tif")
        (folder / "images").rmdir()
    write(folder, feature(square(1, 1, 6, 6)), name=f"{place}/{name}")
    path = folder / place / name
    if name.lower().endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert np.count_nonzero(labels(folder)) == 25


def test_files_of_two_series_of_an_image_are_refused(folder: Path) -> None:
    for series in ("1", "2"):
        write(folder, feature(square(1, 1, 6, 6)), name=f"labels/a.tif - {series}.geojson")
    with pytest.raises(MaskMismatch, match=r"a.tif - 1.geojson and .*a.tif - 2.geojson are of the same image, a"):
        labels(folder)


@pytest.mark.parametrize("features", ["[]", " [ ] ", '{"features": [], "type" : "FeatureCollection"}'])
def test_json_without_features_is_an_image_without_objects(folder: Path, features: str) -> None:
    tifffile.imwrite(folder / "images" / "b.tif", np.zeros((10, 12), dtype=np.uint8))
    write(folder, feature(square(1, 1, 6, 6)), name="labels/a.json")
    (folder / "labels" / "b.json").write_text(features)
    assert [np.count_nonzero(image.labels_yx) for image in load_images(folder, Data(), 1, 2)] == [25, 0]


OTHERS = {
    "run lengths": {"receipt": {}, "planes": [{"objects": []}]},
    "drawn by others": {"shapes": [{"label": "cell", "points": [[1, 1], [2, 2], [1, 2]], "shape_type": "polygon"}]},
    "a list": [1, 2],
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_json_beside_images_counts_for_nothing(folder: Path, other: str) -> None:
    write(folder, feature(square(1, 1, 6, 6)), name="images/a.geojson")
    for name in ("a.json", "b.json", "a_labels.json.gz"):
        text = json.dumps(OTHERS[other]).encode()
        (folder / "images" / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert np.count_nonzero(labels(folder)) == 25
    (folder / "images" / "a.geojson").unlink()
    with pytest.raises(MissingFile, match="fits no layout"):
        labels(folder)


def test_damaged_geojson_with_the_suffix_of_coco_is_named_and_no_coco(folder: Path) -> None:
    write(folder, feature(square(1, 1, 6, 6)), name="a.json")
    (folder / "images" / "a.tif").rename(folder / "a.tif")
    (folder / "images").rmdir()
    os.truncate(folder / "a.json", 80)
    with pytest.raises(UnreadableFile, match=r"a.json is not JSON"):
        labels(folder)
    (folder / "a.json").unlink()
    write(folder, feature(square(1, 1, 6, 6)), name="annotations/a.json")
    with pytest.raises(MissingFile, match="fits no layout"):
        labels(folder)


@pytest.mark.parametrize(
    "damaged",
    # without the time: processes that share the tests must find the same ones
    [b"\x1f\x8b", b"no gzip at all", gzip.compress(b"{}" * 500, mtime=0)[:-9]],
    ids=["its beginning", "none", "cut"],
)
def test_a_damaged_gzip_is_named(folder: Path, damaged: bytes) -> None:
    (folder / "images" / "a.geojson.gz").write_bytes(damaged)
    with pytest.raises(UnreadableFile, match=r"a.geojson.gz is not JSON: .*; export it again"):
        labels(folder)


def test_a_multipolygon_is_one_object(folder: Path) -> None:
    parts = [[square(0, 0, 2, 2)], [square(5, 5, 9, 9), square(6, 6, 7, 7)]]
    write(folder, feature(type="MultiPolygon", coordinates=parts))
    expected = np.zeros((10, 12), dtype=np.int32)
    expected[:2, :2], expected[5:9, 5:9], expected[6, 6] = 1, 1, 0
    np.testing.assert_array_equal(labels(folder), expected)


def test_later_objects_have_the_pixels(folder: Path) -> None:
    write(folder, feature(square(0, 0, 6, 6)), feature(square(4, 4, 9, 9)))
    found = labels(folder)
    assert (found[4:9, 4:9] == 2).all()
    assert np.count_nonzero(found == 1) == 36 - 4


@pytest.mark.parametrize("name", ["Ignore*", "Necrosis*"])
def test_ignored_classes_are_unknown_but_where_an_object_is(folder: Path, name: str) -> None:
    write(folder, feature(square(0, 0, 4, 4)), feature(square(2, 0, 8, 4), name=name))
    expected = np.zeros((10, 12), dtype=np.int32)
    expected[:4, :8], expected[:4, :4] = IGNORE, 1
    np.testing.assert_array_equal(labels(folder), expected)


def test_beyond_regions_nothing_is_known_but_objects(folder: Path) -> None:
    write(folder, feature(square(0, 0, 6, 10), name="Region*"), feature(square(4, 4, 8, 8)))
    expected = np.zeros((10, 12), dtype=np.int32)
    expected[:, 6:], expected[4:8, 4:8] = IGNORE, 1
    np.testing.assert_array_equal(labels(folder), expected)


def typed(kind: Any, *rings: list[list[float]], name: str | None = None) -> dict[str, Any]:
    found = feature(*rings, name=name)
    found["properties"]["objectType"] = kind
    return found


CELLS = [typed("cell", square(1, 1, 3, 3)), typed("detection", square(5, 1, 7, 3))]


@pytest.mark.parametrize("key", ["objectType", "object_type"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_annotation_around_cells_is_a_region(
    folder: Path, place: int, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="training.layouts")
    features = [*CELLS[:place], feature(square(0, 0, 8, 6)), *CELLS[place:]]
    features = [one | {"properties": {key: one["properties"]["objectType"]}} for one in features]
    write(folder, *features)
    expected = np.full((10, 12), IGNORE, dtype=np.int32)
    expected[:6, :8], expected[1:3, 1:3], expected[1:3, 5:7] = 0, 1, 2
    np.testing.assert_array_equal(labels(folder), expected)
    (message,) = [message for message in caplog.messages if "a.geojson" in message]
    assert message == (
        f"{folder}/images/a.geojson: taken as regions, not as objects, for cells were looked for in them: "
        f"feature {place} (without a name)"
    )


def test_annotations_around_annotations_stay_objects(folder: Path) -> None:
    write(folder, feature(square(0, 0, 12, 10)), feature(square(1, 1, 3, 3)), feature(square(5, 1, 7, 3)))
    assert np.unique(labels(folder)).tolist() == [1, 2, 3]


def test_categories_become_classes_in_the_order_of_the_recipe(folder: Path) -> None:
    write(
        folder,
        feature(square(0, 0, 2, 2), name="stroma"),
        feature(square(4, 0, 6, 2), name="tumour"),
        feature(square(8, 0, 10, 2), name="glass"),
    )
    found = labels(folder, kind="semantic", categories=["tumour", "stroma"])
    assert (found[0, 0], found[0, 4], found[0, 8]) == (2, 1, 0)


def test_categories_choose_objects(folder: Path) -> None:
    write(folder, feature(square(0, 0, 9, 9), name="tissue"), feature(square(4, 4, 6, 6), name="cell"))
    assert np.count_nonzero(labels(folder, categories=["cell"])) == 4


def test_categories_that_no_file_has_are_named_with_those_found(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", logger="training")
    write(folder, feature(square(0, 0, 9, 9), name="tissue"), feature(square(4, 4, 6, 6), name="cell"))
    with pytest.raises(
        MissingFile, match=r"has the category 'cells', .* found \['cell', 'tissue'\]. Correct the recipe"
    ):
        labels(folder, categories=["cells"])
    assert np.count_nonzero(labels(folder, categories=["cell", "tissues"])) == 4
    (message,) = caplog.messages
    assert message.endswith("has the category 'tissues', which data.categories names; found ['cell', 'tissue']")


def test_features_without_geometry_are_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, feature() | {"geometry": None}, feature(square(0, 0, 2, 2)))
    with caplog.at_level("WARNING", logger="training"):
        assert np.count_nonzero(labels(folder)) == 4
    assert caplog.messages == [f"{folder}/images/a.geojson: 1 of 2 features have no geometry: left out"]


def test_several_categories_need_names_to_be_classes(folder: Path) -> None:
    write(folder, feature(square(0, 0, 2, 2), name="stroma"), feature(square(4, 0, 6, 2), name="tumour"))
    with pytest.raises(MaskMismatch, match=r"a.geojson has shapes of the categories stroma, tumour; .*categories"):
        labels(folder, kind="semantic")


def test_a_derived_class_has_all_its_names(folder: Path) -> None:
    one = feature(square(0, 0, 2, 2))
    one["properties"]["classification"] = {"names": ["Tumor", "Positive"]}
    write(folder, one, feature(square(4, 0, 6, 2), name="Tumor"))
    assert np.count_nonzero(labels(folder, categories=["Tumor: Positive"])) == 4


def test_a_class_may_be_a_plain_word(folder: Path) -> None:
    one = feature(square(0, 0, 2, 2))
    one["properties"]["classification"] = "Tumor"
    write(folder, one, feature(square(4, 0, 9, 2), name="Stroma"))
    assert np.count_nonzero(labels(folder, categories=["Tumor"])) == 4


@pytest.mark.parametrize("name", [7, 0, 1.5, ["a"], {"first": "a"}])
def test_names_are_for_messages_alone(folder: Path, name: Any, caplog: pytest.LogCaptureFixture) -> None:
    lost = feature(square(90, 0, 94, 4))
    lost["properties"]["name"] = name
    write(folder, feature(square(0, 0, 2, 2)), lost)
    assert np.count_nonzero(labels(folder)) == 4
    assert f"feature 1 ({name}) lies outside" in caplog.text


PARTS = {"type": "MultiPolygon", "coordinates": [[square(0, 0, 2, 2)], [square(5, 0, 7, 2)]]}
COLLECTION = {
    "type": "GeometryCollection",
    "geometries": [
        {"type": "Polygon", "coordinates": [square(0, 0, 2, 2)]},
        {"type": "MultiPolygon", "coordinates": [[square(5, 0, 7, 2)]]},
    ],
}


@pytest.mark.parametrize("geometry", [PARTS, COLLECTION])
@pytest.mark.parametrize("place", ["feature", "document", "list"])
def test_a_geometry_of_several_parts_is_one_object(folder: Path, geometry: dict[str, Any], place: str) -> None:
    document = {"feature": feature() | {"geometry": geometry}, "document": geometry, "list": [geometry]}[place]
    (folder / "images" / "a.geojson").write_text(json.dumps(document))
    expected = np.zeros((10, 12), dtype=np.int32)
    expected[:2, :2], expected[:2, 5:7] = 1, 1
    np.testing.assert_array_equal(labels(folder), expected)


@pytest.mark.parametrize("collection", [False, True])
def test_a_list_or_one_feature_is_read_like_a_collection(folder: Path, *, collection: bool) -> None:
    one = feature(square(0, 0, 2, 2))
    (folder / "images" / "a.geojson").write_text(json.dumps([one] if collection else one))
    assert np.count_nonzero(labels(folder)) == 4


def test_measurements_may_be_no_numbers(folder: Path) -> None:
    one = feature(square(0, 0, 2, 2))
    one["properties"]["measurements"] = {"Solidity": float("nan")}
    write(folder, one)
    assert np.count_nonzero(labels(folder)) == 4


def test_files_lie_among_the_masks_too_and_may_be_named_after_the_whole_image(folder: Path) -> None:
    write(folder, feature(square(0, 0, 2, 2)), name="labels/a.tif.geojson")
    assert np.count_nonzero(labels(folder)) == 4


def test_images_may_lie_in_the_data_folder_itself(folder: Path) -> None:
    (folder / "images" / "a.tif").rename(folder / "a.tif")
    (folder / "images").rmdir()
    write(folder, feature(square(0, 0, 2, 2)), name="a.geojson")
    assert np.count_nonzero(labels(folder)) == 4


def test_lost_objects_are_named_in_the_log(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", logger="training")
    write(
        folder,
        feature(square(0, 0, 2, 2), name="hidden"),
        feature(square(0, 0, 4, 4), name="kept"),
        feature(square(90, 0, 94, 4), name="far"),
        feature(square(5.6, 0, 6.4, 4), name="thin"),
    )
    assert np.unique(labels(folder)).tolist() == [0, 2]
    assert caplog.messages == [
        f"{folder}/images/a.geojson: 3 of 4 objects have no pixel: feature 0 (hidden) is hidden by later ones; "
        "feature 2 (far) lies outside of the image (10 x 12 px); feature 3 (thin) covers the centre of no pixel"
    ]


def test_a_file_of_which_no_object_is_in_the_image_is_refused(folder: Path) -> None:
    write(folder, feature(square(90, 0, 94, 4)))
    with pytest.raises(MaskMismatch, match=r"a.geojson: 1 of 1 object .*outside.*upper left corner"):
        labels(folder)


def test_an_image_without_objects_is_background(folder: Path) -> None:
    tifffile.imwrite(folder / "images" / "b.tif", np.zeros((10, 12), dtype=np.uint8))
    write(folder, feature(square(0, 0, 2, 2)))
    write(folder, name="images/b.geojson")
    assert not load_images(folder, Data(), 1, 2)[1].labels_yx.any()


def test_an_image_without_a_file_is_named(folder: Path) -> None:
    tifffile.imwrite(folder / "images" / "b.tif", np.zeros((10, 12), dtype=np.uint8))
    write(folder, feature(square(0, 0, 2, 2)))
    with pytest.raises(MissingFile, match=r"1 of 2 have no file of shapes: expected .*images/b with suffix .geojson"):
        labels(folder)


def test_a_file_without_an_image_is_named(folder: Path) -> None:
    (folder / "labels").mkdir()
    write(folder, feature(square(0, 0, 2, 2)), name="labels/a.geojson")
    write(folder, feature(square(0, 0, 2, 2)), name="labels/slide.czi.geojson")
    (folder / "images" / "slide.czi").touch()
    with pytest.raises(
        MissingFile, match=r"1 of 2 files of shapes have no image, .*found .*images/slide.czi, which is"
    ):
        labels(folder)


def test_other_files_beside_the_images_are_left_out_and_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, feature(square(0, 0, 2, 2)))
    for number in range(7):
        (folder / "images" / f"project-{number}.geojson").write_text("{}")
    assert labels(folder).any()
    (message,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert message == (
        f"{folder / 'images'}: no image has the name of project-0.geojson, project-1.geojson, project-2.geojson, "
        "project-3.geojson, project-4.geojson and 2 more; left out"
    )


def test_two_files_of_one_image_are_refused(folder: Path) -> None:
    write(folder, feature(square(0, 0, 2, 2)))
    write(folder, feature(square(0, 0, 2, 2)), name="images/a.tif.geojson")
    with pytest.raises(MaskMismatch, match="are of the same image"):
        labels(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type": "FeatureCollection", "features": [', r"a.geojson is not JSON: .*export it again"),
        ("\xff\xfe", r"a.geojson is not JSON"),
        ('{"type": "FeatureCollection"}', r"a.geojson, document: .*valid list; found None"),
        ("[3]", r"a.geojson, 0: .*found 3"),
        ('{"type": ["Polygon"]}', r"a.geojson, 0.type: Input should be 'Feature'; found \['Polygon'\]"),
        (
            '{"type": "Point", "coordinates": [1, 2]}',
            r"a.geojson: feature 0 \(without a name\) is of type Point; expected",
        ),
    ],
)
def test_what_is_no_geojson_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "images" / "a.geojson").write_bytes(text.encode("latin-1"))
    with pytest.raises(UnreadableFile, match=message):
        labels(folder)


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ({"type": "Polygon", "coordinates": [[[1], [3], [4]]]}, "at least 2 items"),
        ({"type": "Polygon", "coordinates": [[[1, 2], [3, "x"], [4, 5]]]}, "found 'x'"),
        ({"type": "Polygon", "coordinates": [[[1, 2], [3, float("nan")], [4, 5]]]}, "finite number; found nan"),
        ({"type": "Polygon", "coordinates": [[[1, 2], [3, float("inf")], [4, 5]]]}, "finite number; found inf"),
        ({"type": "Circle", "radius": 3}, "'Circle' .*'Polygon', 'MultiPolygon'"),
    ],
)
def test_geometry_that_is_none_is_named(folder: Path, geometry: Any, message: str) -> None:
    write(folder, feature(square(0, 0, 2, 2)), feature() | {"geometry": geometry})
    with pytest.raises(UnreadableFile, match=rf"a.geojson, 1.geometry.*{message}"):
        labels(folder)


LINE = {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}


@pytest.mark.parametrize(
    ("geometry", "found"),
    [
        (LINE, "is of type LineString"),
        ({"type": "MultiLineString", "coordinates": [[[1, 2], [3, 4]]]}, "is of type MultiLineString"),
        ({"type": "Point", "coordinates": [1, 2]}, "is of type Point"),
        ({"type": "MultiPoint", "coordinates": [[1, 2]]}, "is of type MultiPoint"),
        ({"type": "Polygon", "coordinates": []}, "is a Polygon with no ring"),
        ({"type": "Polygon", "coordinates": [[]]}, "is a Polygon with rings of [0] corners"),
        ({"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}, "is a Polygon with rings of [2] corners"),
        ({"type": "MultiPolygon", "coordinates": []}, "is a MultiPolygon without polygons"),
        (
            {"type": "MultiPolygon", "coordinates": [[square(0, 0, 2, 2), [[1, 2]]]]},
            "is a MultiPolygon with rings of [5, 1] corners",
        ),
        ({"type": "GeometryCollection", "geometries": []}, "is a GeometryCollection without polygons"),
        ({"type": "GeometryCollection", "geometries": [LINE]}, "is of type LineString"),
    ],
)
def test_geometry_that_encloses_nothing_is_named_with_its_remedy(folder: Path, geometry: Any, found: str) -> None:
    write(folder, feature(square(0, 0, 2, 2)), feature(name="cell") | {"geometry": geometry})
    expected = (
        f"{folder}/images/a.geojson: feature 1 (cell) {found}; expected an area: Polygon, MultiPolygon or a "
        "GeometryCollection of them, with rings of 3 corners or more. Take it away, or draw the object's area"
    )
    with pytest.raises(UnreadableFile, match=re.escape(expected)):
        labels(folder)


@pytest.mark.parametrize("plane", [{"z": 2, "t": 0, "c": -1}, {"z": 0, "t": 1, "c": -1}])
def test_other_planes_are_refused(folder: Path, plane: dict[str, int]) -> None:
    write(folder, feature(square(0, 0, 2, 2), plane=plane))
    with pytest.raises(MaskMismatch, match=rf"a.geojson: feature 0 .* plane z {plane['z']}, t {plane['t']}"):
        labels(folder)
