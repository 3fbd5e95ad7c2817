"""Names in either form of Unicode: macOS may write two characters where others write one."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import tifffile
from roifile import ROI_TYPE, ImagejRoi

from training.data.datasets import find_sources, load_images
from training.errors import MaskMismatch, MissingFile
from training.options import Data, Include

NFC, NFD = normalize("NFC", "Zähler"), normalize("NFD", "Zähler")
RECTANGLE = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 4]]]}
FORMS = pytest.mark.parametrize(("image", "labels"), [(NFC, NFD), (NFD, NFC), (NFD, NFD)])


def write_image(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    tifffile.imwrite(folder / f"{name}.tif", np.zeros((10, 12), dtype=np.uint8))


def write_mask(folder: Path, name: str) -> None:
    (folder / "labels").mkdir()
    tifffile.imwrite(folder / "labels" / f"{name}.tif", np.eye(10, 12, dtype=np.uint8))


def write_rois(folder: Path, name: str) -> None:
    with zipfile.ZipFile(folder / "images" / f"{name}.zip", "w") as archive:
        archive.writestr("cell.roi", ImagejRoi(roitype=ROI_TYPE.RECT, left=0, top=0, right=4, bottom=4).tobytes())


def write_geojson(folder: Path, name: str) -> None:
    (folder / "images" / f"{name}.tif.geojson").write_text(json.dumps(RECTANGLE))


def write_coco(folder: Path, name: str) -> None:
    images = [{"id": 7, "file_name": f"{name}.tif", "height": 10, "width": 12}]
    annotations = [{"id": 1, "image_id": 7, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]}]
    (folder / "set.json").write_text(json.dumps({"images": images, "annotations": annotations}))


@FORMS
@pytest.mark.parametrize("write", [write_mask, write_rois, write_geojson, write_coco])
def test_image_and_labels_match_in_either_form(
    tmp_path: Path, write: Callable[[Path, str], None], image: str, labels: str
) -> None:
    write_image(tmp_path / "images", image)
    write(tmp_path, labels)
    (loaded,) = load_images(tmp_path, Data(), 1, 2)
    assert loaded.stem == NFC
    assert loaded.labels_yx.any()


@FORMS
def test_stacks_match_in_either_form(tmp_path: Path, image: str, labels: str) -> None:
    for name in (f"{image}-volume", f"{labels}-labels", f"{labels} b", f"{image} c"):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.ones((5, 10, 12), dtype=np.uint8))
    data = Data(layout="volume", images=f"{image} b.tif", masks=f"{labels} c")
    assert {source.stem for source in find_sources(tmp_path, data)} == {
        f"{NFC}{more}-{page:03d}" for more in ("", " b") for page in range(5)
    }


@FORMS
@pytest.mark.parametrize("write", [write_mask, write_rois, write_coco])
def test_a_table_and_a_recipe_name_images_in_either_form(
    tmp_path: Path, write: Callable[[Path, str], None], image: str, labels: str
) -> None:
    write_image(tmp_path / "images", image)
    write(tmp_path, image)
    (tmp_path / "index.csv").write_text(f"id,kind\n{labels},cells\n", encoding="utf-8")
    include = Include(csv="index.csv", column="kind", value="cells")
    data = Data.model_validate({"include": include, "incomplete": [labels]})
    assert [source.stem for source in find_sources(tmp_path, data)] == [NFC]


def test_one_name_in_both_forms_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "images", NFC)
    write_image(tmp_path / "images", NFD)
    if len(list((tmp_path / "images").iterdir())) == 1:
        pytest.skip("this file system takes both forms for one name")
    write_mask(tmp_path, NFC)
    with pytest.raises(MaskMismatch, match="share a stem"):
        find_sources(tmp_path, Data())


@pytest.mark.parametrize("form", [NFC, NFD])
def test_an_image_of_a_kind_that_is_not_read_is_named_in_either_form(tmp_path: Path, form: str) -> None:
    write_image(tmp_path / "images", "a")
    write_mask(tmp_path, "a")
    tifffile.imwrite(tmp_path / "labels" / f"{NFC}.tif", np.eye(10, 12, dtype=np.uint8))
    (tmp_path / "images" / f"{form}.czi").touch()
    with pytest.raises(MissingFile, match=f"found .*{form}.czi, which is of a kind that is not read"):
        find_sources(tmp_path, Data())
