"""What ``iscrowd`` stands for: a region that nobody has parted, or one object of CVAT's brush."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tests.training.layouts.test_coco import SIZE, SQUARE, annotation, labels, write
from training.data.datasets import IGNORE
from training.errors import NothingToLearn

OTHER = [8, 6, 12, 6, 12, 10, 8, 10]
OF_CVAT: dict[str, Any] = {"attributes": {"occluded": False}}
EMPTY_INFO = {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""}
RUNS = {"size": [10, 12], "counts": [86, 4, 6, 4, 6, 4, 6, 4]}  # columns 8 to 11, rows 6 to 9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", np.zeros(SIZE, dtype=np.uint8))
    return tmp_path


def expected(of_crowd: int) -> NDArray[np.int32]:
    labels_yx = np.zeros(SIZE, dtype=np.int32)
    labels_yx[1:4, 1:5], labels_yx[6:, 8:] = 1, of_crowd
    return labels_yx


@pytest.mark.parametrize("info", [{}, None, EMPTY_INFO])
@pytest.mark.parametrize("crowds", [(0, 1), (1, 1)])
def test_crowds_of_cvat_are_objects(
    folder: Path, info: Any, crowds: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger="training")
    pair = annotation([SQUARE], iscrowd=crowds[0], **OF_CVAT), annotation(RUNS, 2, iscrowd=crowds[1], **OF_CVAT)
    write(folder, *pair, info=info)
    np.testing.assert_array_equal(labels(folder), expected(2))
    assert caplog.messages == [
        f"{folder}/set.json: {sum(crowds)} of 2 annotations are iscrowd: taken as objects, for CVAT wrote the file, "
        "and writes ellipses and brush masks so. Where they are groups of objects: set data.crowd (in the recipe, or "
        "--set data.crowd=ignore)"
    ]


@pytest.mark.parametrize(
    ("of_first", "of_crowd", "info"),
    [
        ({}, OF_CVAT, {}),
        (OF_CVAT, {}, {}),
        ({"attributes": {}}, {"attributes": {}}, {}),
        (OF_CVAT, OF_CVAT, {"description": "COCO 2017 Dataset", "year": 2017}),
        (OF_CVAT, OF_CVAT, "COCO"),
    ],
)
def test_other_crowds_are_not_annotated_and_the_remedy_is_named(
    folder: Path, of_first: dict[str, Any], of_crowd: dict[str, Any], info: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger="training")
    write(folder, annotation([SQUARE], **of_first), annotation(RUNS, 2, iscrowd=1, **of_crowd), info=info)
    np.testing.assert_array_equal(labels(folder), expected(IGNORE))
    assert caplog.messages == [
        f"{folder}/set.json: 1 of 2 annotations are iscrowd: taken as not annotated, as COCO has it. CVAT writes "
        "ellipses and brush masks so: where each is one object, set data.crowd (in the recipe, or --set "
        "data.crowd=object)"
    ]


@pytest.mark.parametrize(("crowd", "number"), [("object", 2), ("ignore", IGNORE)])
@pytest.mark.parametrize("more", [{}, OF_CVAT])
def test_the_word_of_the_recipe_is_taken(
    folder: Path, crowd: str, number: int, more: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger="training")
    write(folder, annotation([SQUARE], **more), annotation(RUNS, 2, iscrowd=1, **more))
    np.testing.assert_array_equal(labels(folder, crowd=crowd), expected(number))
    assert not caplog.messages


def test_crowds_alone_may_be_classes(folder: Path) -> None:
    """So the service writes the classes of a mask."""
    write(folder, annotation([SQUARE], iscrowd=1, category_id=2), annotation([OTHER], 2, iscrowd=1))
    np.testing.assert_array_equal(labels(folder, kind="semantic", categories=["debris", "cell"]), expected(2))


@pytest.mark.parametrize("crowd", ["auto", "ignore"])
def test_where_crowds_alone_leave_nothing_the_way_out_is_named(folder: Path, crowd: str) -> None:
    write(folder, annotation([SQUARE], iscrowd=1), annotation([OTHER], 2, iscrowd=1))
    with pytest.raises(
        NothingToLearn, match=r"set.json: 2 of 2 annotations are iscrowd, .*nothing is left .*--set data.crowd=object\)"
    ):
        labels(folder, crowd=crowd)
    np.testing.assert_array_equal(labels(folder, crowd="object"), expected(2))
