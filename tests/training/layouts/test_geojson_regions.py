"""QuPath's annotations that cells were looked for in: regions, whether or not cells were found there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tests.training.layouts.test_geojson import CELLS, feature, square, typed, write
from training.data.datasets import IGNORE, load_images
from training.layouts import geojson_document
from training.layouts.documents import parse_json
from training.options import Data

WHOLE = feature(square(0, 0, 12, 10))
HALF = feature(square(0, 0, 8, 6))
ONE = typed("cell", square(1, 1, 3, 3))


def read(folder: Path, *images: list[dict[str, Any]], **options: Any) -> list[NDArray[np.int32]]:
    """Labels of images of 10 x 12 px with these features, one file for each."""
    (folder / "images").mkdir()
    for number, features in enumerate(images):
        tifffile.imwrite(folder / "images" / f"{number}.tif", np.zeros((10, 12), dtype=np.uint8))
        write(folder, *features, name=f"images/{number}.geojson")
    return [image.labels_yx for image in load_images(folder, Data.model_validate(options), 1, 2)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("around", [WHOLE, HALF])
def test_regions_of_controls_without_cells_are_regions(
    tmp_path: Path, around: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The same annotation lies in every image, and images hold no cell, one, and two."""
    found = read(tmp_path, [around], [around, ONE], [around, *CELLS])
    assert [[value for value in np.unique(labels) if value != IGNORE] for labels in found] == [[0], [0, 1], [0, 1, 2]]
    inside = np.zeros((10, 12), dtype=bool)
    inside[(slice(None), slice(None)) if around is WHOLE else (slice(6), slice(8))] = True
    assert all(((labels != IGNORE) == inside).all() for labels in found)
    assert not warnings(caplog)


def test_what_fills_an_image_is_a_region_where_no_image_has_two_cells(tmp_path: Path) -> None:
    empty, one = read(tmp_path, [WHOLE], [WHOLE, ONE])
    assert np.unique(empty).tolist() == [0]
    assert np.count_nonzero(one) == 4


def test_cells_drawn_by_hand_beside_detected_ones_stay_objects(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missed = feature(square(5, 3, 7, 5))
    (labels, other) = read(tmp_path, [HALF, *CELLS, missed], [HALF, missed])
    assert (np.unique(labels).tolist(), np.unique(other).tolist()) == ([-1, 0, 1, 2, 3], [-1, 0, 1])
    assert (labels[3, 5], other[3, 5]) == (3, 1)
    assert not warnings(caplog)


def test_a_cell_drawn_around_pieces_of_it_makes_no_regions_of_cells_drawn_elsewhere(tmp_path: Path) -> None:
    """In size they are nearer to that one than to the pieces, and no far larger than these."""
    around = feature(square(0, 0, 6, 4))
    pieces = [typed("cell", square(1, 1, 3, 3)), typed("cell", square(3, 1, 5, 3))]
    drawn = [feature(square(0, 0, 5, 4)), feature(square(6, 0, 12, 4)), feature(square(0, 5, 5, 10))]
    _, by_hand = read(tmp_path, [around, *pieces], drawn)
    assert np.unique(by_hand).tolist() == [0, 1, 2, 3]


def test_which_images_are_wanted_changes_no_region(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("id,part\n0,mine\n1,others\n")
    include = {"csv": "table.csv", "column": "part", "value": "mine"}
    (labels,) = read(tmp_path, [HALF, ONE], [HALF, *CELLS], include=include)
    assert np.unique(labels).tolist() == [-1, 0, 1]


def test_a_damaged_file_is_named_by_its_own_reading_alone(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("id,part\n0,mine\n1,others\n2,others\n")
    include = {"csv": "table.csv", "column": "part", "value": "mine"}
    line = feature(type="LineString", coordinates=[[0, 0], [1, 1]])
    (labels,) = read(tmp_path, [HALF, ONE], [line, *CELLS], [HALF, *CELLS], include=include)
    assert np.unique(labels).tolist() == [-1, 0, 1]


@pytest.mark.parametrize("options", [{}, {"categories": ["Cell"]}])
def test_each_file_is_parsed_once(tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions are asked for by the second file and by the last."""
    parsed: list[str] = []

    def parse(path: Path) -> object:
        parsed.append(path.name)
        return parse_json(path)

    monkeypatch.setattr(geojson_document, "parse_json", parse)
    cell = feature(square(1, 1, 3, 3), name="Cell")
    read(tmp_path, [cell], [HALF, ONE, cell], [HALF, *CELLS, cell], [HALF, cell], **options)
    assert sorted(parsed) == [f"{number}.geojson" for number in range(4)]


def test_holes_are_no_part_of_an_annotation(tmp_path: Path) -> None:
    ring = feature(square(0, 0, 9, 7), square(0, 0, 8, 6))
    (labels,) = read(tmp_path, [ring, *CELLS])
    assert np.unique(labels).tolist() == [0, 1, 2, 3]
    assert (labels != IGNORE).all()


@pytest.mark.parametrize(
    ("features", "options", "named"),
    [
        ([feature(square(0, 0, 6, 6), name="Tumor"), *CELLS], {}, "feature 0 (Tumor)"),
        ([HALF, ONE, feature(square(8, 8, 10, 10))], {}, "feature 0 (without a name)"),
        ([WHOLE, feature(square(1, 1, 3, 3)), feature(square(5, 1, 7, 3))], {}, "feature 0 (without a name)"),
        ([feature(square(i, 0, i + 1, 10)) for i in range(12)], {}, None),
        ([feature(square(0, 0, 6, 6), name="Tumor"), *CELLS], {"kind": "semantic", "categories": ["Tumor"]}, None),
        ([feature(square(0, 0, 12, 9), name="Tumor")], {"kind": "semantic"}, None),
        ([WHOLE, feature(square(1, 1, 3, 3), name="Cell")], {"categories": ["Cell"]}, None),
    ],
)
def test_objects_that_may_be_regions_are_named(
    tmp_path: Path,
    features: list[dict[str, Any]],
    options: dict[str, Any],
    named: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (labels,) = read(tmp_path, features, **options)
    assert (labels != IGNORE).all()
    expected = (
        f"{tmp_path}/images/0.geojson: taken as objects, though cells lie in them or they fill most of the image: "
        f"{named}. Where they are what cells were looked for in, give them the class Region* in QuPath, or name other "
        "classes as data.categories"
    )
    assert warnings(caplog) == ([expected] if named else [])


@pytest.mark.parametrize(
    "around",
    [
        feature(square(0, 0, 12, 10), name="Nest"),
        feature(square(0, 0, 5.9, 4)),  # all of one cell, not the centre of the other
        typed("detection", square(0, 0, 12, 10)),
        typed(["annotation"], square(0, 0, 12, 10)),
    ],
)
def test_what_has_a_class_or_covers_fewer_cells_stays_an_object(tmp_path: Path, around: dict[str, Any]) -> None:
    (found,) = read(tmp_path, [around, *CELLS])
    assert (found != IGNORE).all()
    assert (found[0, 0], found[1, 1], found[1, 6]) == (1, 2, 3)
