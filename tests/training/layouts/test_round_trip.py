"""What the service writes is what training reads: the same labels, number by number."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from service.formats.coco import CocoEncoder
from service.formats.encoder import Encoder
from service.formats.geojson import GeoJsonEncoder
from service.formats.png import PngEncoder
from service.formats.result import SegmentationResult
from service.formats.rois import RoiZipEncoder
from service.formats.tiff import TiffEncoder
from training.data.datasets import load_images
from training.options import Data

ENCODERS: dict[str, Encoder] = {
    "geojson": GeoJsonEncoder(),
    "rois": RoiZipEncoder(),
    "coco": CocoEncoder(),
    "tiff": TiffEncoder(),
    "png": PngEncoder(),
}


def result(labels_yx: NDArray[np.uint16]) -> SegmentationResult:
    return SegmentationResult(
        kind="labels",
        planes=(labels_yx,),
        classes=("background", "cell"),
        stack_axes="",
        stack_shape=(),
        pixel_size_um=(0.5, 0.5),
        scores=None,
        receipt={},
        file_name="a.tif",
    )


def through_training(folder: Path, form: str, labels_yx: NDArray[np.uint16]) -> NDArray[np.int32]:
    file = io.BytesIO()
    ENCODERS[form].write(result(labels_yx), file)
    tifffile.imwrite(folder / "a.tif", np.zeros(labels_yx.shape, dtype=np.uint8))
    (folder / f"a_labels{ENCODERS[form].extension}").write_bytes(file.getvalue())
    (image,) = load_images(folder, Data(layout="auto"), 1, 2)
    return image.labels_yx


def numbered(plane: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Numbers from 1 without gaps, as the service gives them; at least one object."""
    plane[0, 0] = max(1, plane[0, 0])
    values = np.unique(plane[plane > 0])
    return np.where(plane > 0, 1 + np.searchsorted(values, plane), 0).astype(np.uint16)


small = arrays(np.uint16, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 4)).map(numbered)
planes = small.filter(lambda plane: np.unique(plane).size > 1)  # one object that fills everything is not trained on


@pytest.mark.parametrize("form", ENCODERS)
@given(planes)
def test_labels_come_back_number_by_number(form: str, labels_yx: NDArray[np.uint16]) -> None:
    """Holes, parts that touch at corners, objects within objects: whatever small planes hold."""
    with tempfile.TemporaryDirectory() as folder:
        np.testing.assert_array_equal(through_training(Path(folder), form, labels_yx), labels_yx)


@pytest.mark.parametrize("form", ENCODERS)
def test_coordinates_beyond_16_bit_come_back(tmp_path: Path, form: str) -> None:
    labels = np.zeros((6, 40_000), dtype=np.uint16)
    labels[1:4, 39_000:39_500], labels[2, 39_100] = 1, 0
    labels[3:6, 20:33_000] = 2
    np.testing.assert_array_equal(through_training(tmp_path, form, labels), labels)


@pytest.mark.data
@pytest.mark.parametrize("form", ENCODERS)
def test_hand_drawn_cells_come_back(tmp_path: Path, data_root: Path, form: str) -> None:
    path = min((data_root / "phase-t98g" / "labels").iterdir())
    labels = numbered(tifffile.imread(path))
    np.testing.assert_array_equal(through_training(tmp_path, form, labels), labels)
