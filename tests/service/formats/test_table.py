"""CSV: a row for each object, with what scikit-image measures of it."""

from __future__ import annotations

import csv
import io
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.measure import regionprops

from service.engine.stages.needs import encoder_memory
from service.formats import UnsupportedOutput
from service.formats.table import ObjectTable, measure
from tests.service.formats.results import encoded, label_planes, labels, mask, probabilities


def table(result: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(encoded("csv", result).decode("ascii"))))


@settings(max_examples=200)
@given(plane=label_planes())
def test_rows_are_what_scikit_image_measures(plane: NDArray[np.uint16]) -> None:
    expected = regionprops(plane.astype(np.int32))
    rows = table(labels(plane))
    assert [int(row["label"]) for row in rows] == [region.label for region in expected]
    for row, region in zip(rows, expected, strict=True):
        top, left, bottom, right = region.bbox
        assert (float(row["y"]), float(row["x"])) == pytest.approx(region.centroid, abs=0.0006)
        assert int(row["area_px"]) == region.area
        box = [int(row[f"bbox_{side}"]) for side in ("left", "top", "width", "height")]
        assert box == [left, top, right - left, bottom - top]
        assert row["area_um2"] == row["score"] == ""


@settings(max_examples=100)
@given(plane=label_planes(), band_px=st.integers(1, 40))
def test_where_bands_end_changes_nothing(plane: NDArray[np.uint16], band_px: int) -> None:
    whole, banded = measure(plane, plane.size), measure(plane, band_px)
    for column in ("area", "sum_y", "sum_x", "top", "bottom", "left", "right"):
        np.testing.assert_array_equal(getattr(banded, column), getattr(whole, column))


def test_the_bytes_of_a_small_table() -> None:
    result = labels(
        [[1, 1, 0], [0, 0, 2]],
        [[0, 0, 0], [0, 1, 1]],
        scores=(np.array([0.5, 0.75], dtype=np.float32), np.array([0.98766], dtype=np.float32)),
        pixel_size_um=(0.5, 0.25),
    )
    assert encoded("csv", result).decode("ascii").split("\n") == [
        "label,plane,y,x,area_px,area_um2,score,bbox_left,bbox_top,bbox_width,bbox_height",
        "1,0,0.000,0.500,2,0.25,0.5,0,0,2,1",
        "2,0,1.000,2.000,1,0.125,0.75,2,1,1,1",
        "1,1,1.000,1.500,2,0.25,0.9877,1,1,2,1",
        "",
    ]


def test_more_objects_than_16_bits_hold_have_a_row_each() -> None:
    plane = np.arange(1, 300 * 300 + 1).reshape(300, 300)
    result = labels(plane, dtype=np.uint32, scores=(np.full(90_000, 0.1234),), pixel_size_um=(0.123, 0.456))
    rows = table(result)
    assert len(rows) == 90_000
    last = rows[-1]
    assert (last["label"], last["y"], last["x"], last["area_px"]) == ("90000", "299.000", "299.000", "1")
    tables = sum(getattr(measure(plane, plane.size), name.name).nbytes for name in fields(ObjectTable))
    assert len(encoded("csv", result)) + tables < encoder_memory(result, "csv")


def test_without_objects_there_is_the_header_alone() -> None:
    assert encoded("csv", labels(np.zeros((3, 5)))).count(b"\n") == 1


@pytest.mark.parametrize("result", [mask([[1]]), probabilities(np.zeros((2, 3, 4)))], ids=["mask", "probabilities"])
def test_what_has_no_numbered_objects_is_refused_with_the_remedy(result: Any) -> None:
    with pytest.raises(UnsupportedOutput, match="ask for output=labels"):
        encoded("csv", result)
