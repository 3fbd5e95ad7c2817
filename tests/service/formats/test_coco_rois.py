"""COCO documents load in pycocotools, ROI zips in roifile (and so in ImageJ)."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roifile
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray
from pycocotools.coco import COCO

from service.formats import SegmentationResult
from service.formats.geojson import ring_area
from tests.service.formats.results import RECEIPT, encoded, label_planes, labels, mask

# pycocotools 2.0 hands NumPy 2 an object that does not know the copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def rois(result: Any) -> dict[str, roifile.ImagejRoi]:
    with zipfile.ZipFile(io.BytesIO(encoded("rois", result))) as archive:
        return {name: roifile.ImagejRoi.frombytes(archive.read(name)) for name in archive.namelist()}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plane=label_planes())
def test_pycocotools_loads_the_document_and_its_masks(plane: NDArray[np.uint16], tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(encoded("coco", labels(plane)))
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(str(path))
    decoded = np.zeros_like(plane)
    for annotation in dataset.loadAnns(dataset.getAnnIds(imgIds=[1], catIds=[1], iscrowd=False)):
        decoded[dataset.annToMask(annotation).astype(bool)] = annotation["label"]
    np.testing.assert_array_equal(decoded, plane)


def test_coco_numbers_images_annotations_and_categories() -> None:
    document = json.loads(encoded("coco", mask([[1, 2]], [[0, 2]], classes=("background", "a", "b"))))
    assert document["categories"] == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    assert [image["id"] for image in document["images"]] == [1, 2]
    found = [(a["id"], a["image_id"], a["category_id"], a["area"], a["iscrowd"]) for a in document["annotations"]]
    assert found == [(1, 1, 1, 1, 1), (2, 1, 2, 1, 1), (3, 2, 2, 1, 1)]
    assert document["info"]["receipt"] == RECEIPT


def test_coco_names_the_images_file_and_of_a_stack_its_planes_by_their_place() -> None:
    def images(result: SegmentationResult) -> list[tuple[str, list[int] | None]]:
        listed = json.loads(encoded("coco", result))["images"]
        return [(image["file_name"], image.get("stack_index")) for image in listed]

    assert images(labels([[1]], file_name="zelle ü.tif")) == [("zelle ü.tif", None)]
    assert images(labels([[1]], [[1]], file_name="a.tif")) == [("a.tif", [0]), ("a.tif", [1])]
    assert images(labels([[1]], [[1]])) == [("plane-0", [0]), ("plane-1", [1])]


@settings(max_examples=100)
@given(plane=label_planes(largest=3))
def test_rois_enclose_exactly_the_pixels_of_each_label(plane: NDArray[np.uint16]) -> None:
    found = rois(labels(plane))
    assert list(found) == [f"cell-{label:05d}.roi" for label in np.unique(plane[plane > 0])]
    for name, roi in found.items():
        rings = roi.coordinates(multi=True)
        rings = rings if isinstance(rings, list) else [rings]
        pixels = plane == int(name[5:10])
        total = sum(ring_area(_open(np.asarray(ring, dtype=np.int64))) for ring in rings)
        assert total == pixels.sum()
        rows, columns = np.nonzero(pixels)
        assert (roi.left, roi.top) == (columns.min(), rows.min())
        assert (roi.right, roi.bottom) == (columns.max() + 1, rows.max() + 1)


def _open(ring: NDArray[np.int64]) -> NDArray[np.int64]:
    return ring[:-1] if (ring[0] == ring[-1]).all() else ring


def test_outlines_beyond_16_bits_have_float_coordinates() -> None:
    plane = np.zeros((2, 40_000), dtype=np.uint16)
    plane[:, 39_990:39_995] = 1
    (roi,) = rois(labels(plane)).values()
    assert roi.subpixelresolution
    corners = sorted(map(tuple, roi.coordinates().tolist()))
    assert corners == [(39_990.0, 0.0), (39_990.0, 2.0), (39_995.0, 0.0), (39_995.0, 2.0)]


def test_small_outlines_have_integer_coordinates() -> None:
    (roi,) = rois(labels([[0, 1]])).values()
    assert not roi.subpixelresolution
    assert roi.roitype == roifile.ROI_TYPE.POLYGON


def test_an_object_with_a_hole_is_a_composite() -> None:
    (roi,) = rois(labels([[1, 1, 1], [1, 0, 1], [1, 1, 1]])).values()
    assert roi.composite
    assert len(roi.coordinates(multi=True)) == 2


def test_rois_of_a_stack_tell_their_slice_and_frame() -> None:
    planes = np.ones((6, 1, 1))
    found = rois(labels(*planes, stack_axes="TZ", stack_shape=(2, 3)))
    roi = found["t0002-z0003-cell-00001.roi"]
    assert (roi.t_position, roi.z_position) == (2, 3)


def test_the_same_result_gives_the_same_bytes() -> None:
    result = labels([[1, 2], [0, 2]])
    assert len({encoded("rois", result) for _ in range(2)}) == 1
