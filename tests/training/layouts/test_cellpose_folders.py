"""Folders as Cellpose's command line leaves them: masks, and what it writes beside them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from roifile import ROI_TYPE, ImagejRoi

from training.data.datasets import find_sources, load_images
from training.errors import MissingFile
from training.options import Data

MASKS = np.repeat(np.arange(4, dtype=np.uint16), 30).reshape(10, 12)
PLACES = [("images", "images"), (".", "."), ("images", "labels")]
"""Folder of the images, and of all that Cellpose writes."""


def write(folder: Path, images: str, results: str, masks: str = "_cp_masks.png") -> None:
    """Two images, with masks of three objects where ``masks`` ends their names."""
    for place in (images, results):
        (folder / place).mkdir(exist_ok=True)
    for stem in ("a", "b"):
        tifffile.imwrite(folder / images / f"{stem}.tif", np.zeros((10, 12), dtype=np.uint8))
        if masks:
            Image.fromarray(MASKS).save(folder / results / f"{stem}{masks}")


def write_rois(folder: Path, ending: str = "_rois.zip") -> None:
    """One object of 4 x 4 px for each image."""
    for stem in ("a", "b"):
        with zipfile.ZipFile(folder / f"{stem}{ending}", "w") as archive:
            archive.writestr("cell.roi", ImagejRoi(roitype=ROI_TYPE.RECT, left=0, top=0, right=4, bottom=4).tobytes())


def objects(folder: Path, data: Data | None = None) -> dict[str, int]:
    return {image.stem: int(image.labels_yx.max()) for image in load_images(folder, data or Data(), 1, 2)}


@pytest.mark.parametrize(("images", "results"), PLACES)
def test_masks_go_before_the_outlines_that_lie_beside_them(
    tmp_path: Path, images: str, results: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, images, results)
    write_rois(tmp_path / results)
    with caplog.at_level("WARNING", logger="training"):
        assert objects(tmp_path) == {"a": 3, "b": 3}
    (message,) = caplog.messages
    where = f"{(tmp_path / results).name}/"
    assert message == (
        f"{tmp_path}: left out: 2 files .zip in {where}. Where they are meant, set data.layout (in the recipe, "
        "or --set data.layout=rois)"
    )
    assert objects(tmp_path, Data(layout="rois")) == {"a": 1, "b": 1}


@pytest.mark.parametrize("ending", ["_rois.zip", "_RoiSet.zip", ".tif_rois.zip", "_labels.zip"])
@pytest.mark.parametrize(("images", "results"), PLACES)
def test_outlines_alone_are_read(tmp_path: Path, images: str, results: str, ending: str) -> None:
    write(tmp_path, images, results, masks="")
    write_rois(tmp_path / results, ending)
    assert objects(tmp_path) == {"a": 1, "b": 1}


def test_outlines_of_imagej_beside_masks_are_a_second_layout(tmp_path: Path) -> None:
    write(tmp_path, "images", "labels")
    write_rois(tmp_path / "labels", "_RoiSet.zip")
    with pytest.raises(MissingFile, match="fits 2 layouts"):
        find_sources(tmp_path, Data())


@pytest.mark.parametrize("more", ["", "_cp_masks"])
@pytest.mark.parametrize(("images", "results"), PLACES)
def test_pictures_beside_masks_are_left_out_and_the_log_says_so(
    tmp_path: Path, images: str, results: str, more: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, images, results)
    for stem in ("a", "b"):
        picture = np.zeros((10, 12, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / results / f"{stem}_outlines{more}.png")
        tifffile.imwrite(tmp_path / results / f"{stem}_flows{more}.tif", picture, photometric="rgb")
        tifffile.imwrite(tmp_path / results / f"{stem}_dP{more}.tif", np.zeros((2, 10, 12), dtype=np.float32))
    with caplog.at_level("INFO", logger="training"):
        assert objects(tmp_path) == {"a": 3, "b": 3}
    assert [
        message
        for message in caplog.messages
        if "are labels of other images, or pictures that Cellpose wrote with them: left out" in message
    ]


def test_an_image_called_as_pictures_are_keeps_its_mask(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for stem in ("a", "a_flows"):
        tifffile.imwrite(tmp_path / "images" / f"{stem}.tif", np.zeros((10, 12), dtype=np.uint8))
        Image.fromarray(MASKS).save(tmp_path / "images" / f"{stem}_cp_masks.png")
    assert objects(tmp_path) == {"a": 3, "a_flows": 3}


def test_an_image_without_a_mask_is_named_whatever_lies_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "images", "images")
    for name in ("a_flows.tif", "c_flows.tif"):
        tifffile.imwrite(tmp_path / "images" / name, np.zeros((10, 12), dtype=np.uint8))
    with pytest.raises(MissingFile, match=r"1 of 3 have no mask .*images/c_flows with"):
        find_sources(tmp_path, Data())
