"""Files beside images that belong to none of them: refused where shapes have a folder of their own, else left out."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from roifile import ROI_TYPE, ImagejRoi

from training.data.datasets import load_images
from training.errors import MissingFile
from training.options import Data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image with a zip of one ROI beside it, 4 x 4 px."""
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", np.zeros((10, 12), dtype=np.uint8))
    with zipfile.ZipFile(tmp_path / "images" / "a.zip", "w") as archive:
        archive.writestr("cell.roi", ImagejRoi(roitype=ROI_TYPE.RECT, left=0, top=0, right=4, bottom=4).tobytes())
    return tmp_path


def labels(folder: Path) -> NDArray[np.int32]:
    (image,) = load_images(folder, Data(), 1, 2)
    return image.labels_yx


@pytest.mark.parametrize("shapes", ["images", "labels"])
def test_an_archive_of_other_files_is_no_file_of_rois(
    folder: Path, shapes: str, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "labels").mkdir()
    (folder / "images" / "a.zip").rename(folder / shapes / "a.zip")
    for place in ("images", "labels"):
        with zipfile.ZipFile(folder / place / "dataset.zip", "w") as archive:
            archive.writestr("a.tif", b"")
    assert np.count_nonzero(labels(folder)) == 16
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_an_archive_beside_masks_makes_no_second_layout(folder: Path) -> None:
    (folder / "labels").mkdir()
    (folder / "images" / "a.zip").unlink()
    tifffile.imwrite(folder / "labels" / "a.tif", np.eye(10, 12, dtype=np.uint8))
    with zipfile.ZipFile(folder / "images" / "dataset.zip", "w") as archive:
        archive.writestr("a.tif", b"")
    assert np.count_nonzero(labels(folder)) == 10


@pytest.mark.parametrize("filled", ["rois", "nothing", "damage"])
def test_rois_without_an_image_are_refused_in_a_folder_of_their_own(
    folder: Path, filled: str, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(folder / "images" / "a.zip", folder / "images" / "b.zip")
    if filled == "nothing":
        zipfile.ZipFile(folder / "images" / "b.zip", "w").close()
    elif filled == "damage":
        (folder / "images" / "b.zip").write_bytes(b"PK")
    assert labels(folder).any()
    assert f"{folder / 'images'}: no image has the name of b.zip; left out" in caplog.messages
    (folder / "labels").mkdir()
    for name in ("a.zip", "b.zip"):
        (folder / "images" / name).rename(folder / "labels" / name)
    with pytest.raises(MissingFile, match=r"1 of 2 files of shapes .*Add the image, or move b.zip out of the folder"):
        labels(folder)
