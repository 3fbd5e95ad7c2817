"""Labels that are named after their images: the service's results, Cellpose's masks; two of one image are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tifffile
from PIL import Image

from service.cli import main as serve
from tests.images import disc
from tests.packages import write_tiny_package
from training.cli import main as train
from training.data.datasets import find_sources, load_images
from training.errors import MaskMismatch, MissingFile
from training.layouts.pairing import ENDINGS
from training.options import Data

PLACES = [("labels", "images"), ("masks", "images"), ("images", "images"), ("labels", "."), (".", ".")]
"""Folder of the masks, and of their images."""


def write_image(folder: Path, name: str, pages: int = 0) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    tifffile.imwrite(folder / name, np.zeros((pages, 10, 12) if pages else (10, 12), dtype=np.uint8))


def write_mask(folder: Path, name: str, pages: int = 0) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    mask = np.eye(10, 12, dtype=np.uint8)
    if name.endswith(".png"):
        Image.fromarray(mask).save(folder / name)
    else:
        tifffile.imwrite(folder / name, np.stack([mask] * pages) if pages else mask)


def write_shapes(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    square = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 4]]]}
    (folder / name).write_text(json.dumps(square))


def stems(folder: Path, data: Data | None = None) -> dict[str, str]:
    """Names of the files of labels by the stem of the image."""
    return {source.stem: Path(source.labels_name).name for source in find_sources(folder, data or Data())}


@pytest.mark.parametrize("ending", [*ENDINGS, "_Labels", "_MASK"])
@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize(("masks", "images"), PLACES)
def test_masks_named_after_their_images_are_taken(
    tmp_path: Path, masks: str, images: str, suffix: str, ending: str
) -> None:
    for stem in ("a", "a_1"):
        write_image(tmp_path / images, f"{stem}.tif")
        write_mask(tmp_path / masks, f"{stem}{ending}{suffix}")
    assert stems(tmp_path) == {stem: f"{stem}{ending}{suffix}" for stem in ("a", "a_1")}


@pytest.mark.parametrize(("masks", "images"), PLACES)
@pytest.mark.parametrize(
    ("image", "mask"),
    [("a.ome.tif", "a_masks.tif"), ("a.ome.tif", "a_masks.ome.tif"), ("a.tif", "a_masks.ome.tif")],
)
def test_masks_of_ome_files_are_found_with_and_without_its_suffix(
    tmp_path: Path, image: str, mask: str, masks: str, images: str
) -> None:
    write_image(tmp_path / images, image)
    write_mask(tmp_path / masks, mask)
    assert stems(tmp_path) == {image.removesuffix(".tif"): mask}


@pytest.mark.parametrize(
    ("image", "mask"), [("a.ome.tif", "a.tif"), ("a.tif", "a.ome.tif"), ("a.ome.tif", "a.ome.tif")]
)
def test_a_mask_may_have_the_name_of_an_ome_file(tmp_path: Path, image: str, mask: str) -> None:
    write_image(tmp_path / "images", image)
    write_mask(tmp_path / "labels", mask)
    assert stems(tmp_path) == {image.removesuffix(".tif"): mask}


def test_an_image_and_an_ome_file_of_one_name_have_each_its_own_mask(tmp_path: Path) -> None:
    for name in ("a.tif", "a.ome.tif"):
        write_image(tmp_path / "images", name)
        write_mask(tmp_path / "labels", name)
    assert stems(tmp_path) == {"a": "a.tif", "a.ome": "a.ome.tif"}


def test_masks_of_other_names_are_named_where_one_is_missing(tmp_path: Path) -> None:
    write_image(tmp_path / "images", "a.tif")
    for number in range(5):
        write_mask(tmp_path / "labels", f"mask{number}.tif")
    with pytest.raises(
        MissingFile,
        match=r"no mask: .*; found mask0.tif, mask1.tif, mask2.tif and 2 more, named after no image. Rename it, add",
    ):
        find_sources(tmp_path, Data())


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("shapes", ["labels", "images"])
def test_shapes_named_after_their_images_are_taken(tmp_path: Path, shapes: str, ending: str) -> None:
    write_image(tmp_path / "images", "a.tif")
    write_shapes(tmp_path / shapes, f"a{ending}.geojson")
    assert stems(tmp_path) == {"a": f"a{ending}.geojson"}


@pytest.mark.parametrize(("masks", "images"), PLACES)
def test_stacks_named_after_their_images_are_taken(tmp_path: Path, masks: str, images: str) -> None:
    write_image(tmp_path / images, "a.tif", pages=5)
    write_mask(tmp_path / masks, "a_labels.tif", pages=5)
    assert list(stems(tmp_path)) == [f"a-{page:03d}" for page in range(5)]


def test_a_mask_of_the_very_name_is_that_of_the_image(tmp_path: Path) -> None:
    """An image may be called as masks are."""
    for name in ("a.tif", "a_mask.tif", "b_labels.tif"):
        write_image(tmp_path / "images", name)
        write_mask(tmp_path / "labels", name)
    assert stems(tmp_path) == {"a": "a.tif", "a_mask": "a_mask.tif", "b_labels": "b_labels.tif"}


@pytest.mark.parametrize("image", ["a_label.tif", "a_LABELS.tif", "a_Mask.ome.tif"])
@pytest.mark.parametrize("mask", ["{}_labels.tif", "{}_cp_masks.png", "{}_seg.npy"])
def test_an_image_beside_its_own_mask_may_be_called_as_masks_are(tmp_path: Path, image: str, mask: str) -> None:
    stem = image.removesuffix(".tif")
    own = mask.format(stem.removesuffix(".ome"))
    for name in ("a.tif", image):
        write_image(tmp_path, name)
    write_mask(tmp_path, "a_masks.tif")
    if own.endswith(".npy"):
        np.save(tmp_path / own, np.array({"masks": np.eye(10, 12, dtype=np.uint16)}))
    else:
        write_mask(tmp_path, own)
    assert stems(tmp_path) == {"a": "a_masks.tif", stem: own}


def test_two_masks_beside_an_image_may_be_a_mask_and_an_image(tmp_path: Path) -> None:
    write_image(tmp_path, "a.tif")
    for name in ("a_label.tif", "a_labels.tif"):
        write_mask(tmp_path, name)
    with pytest.raises(MaskMismatch, match="where one of them is an image, move images and masks apart"):
        find_sources(tmp_path, Data())


@pytest.mark.parametrize(
    ("one", "other", "remedy"),
    [
        ("a.tif", "a_labels.tif", "Keep the one that was corrected last, and remove the other, a.tif or a_labels.tif"),
        ("a_cp_masks.png", "a_masks.tif", "Keep the one that was corrected last, and remove the other, a_cp_masks.png"),
        ("a_labels.tif", "a_mask.png", "Remove a_mask.png to learn objects, or a_labels.tif to learn classes"),
    ],
)
def test_two_masks_of_one_image_are_refused(tmp_path: Path, one: str, other: str, remedy: str) -> None:
    write_image(tmp_path / "images", "a.tif")
    for name in (one, other):
        write_mask(tmp_path / "labels", name)
    labels = tmp_path / "labels"
    expected = f"{labels / one} and {labels / other} are of the same image, a; expected one of them. {remedy}"
    with pytest.raises(MaskMismatch, match=re.escape(expected)):
        find_sources(tmp_path, Data())


def test_shapes_that_name_the_image_in_two_ways_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "images", "a.tif")
    for name in ("a.geojson", "a_labels.geojson"):
        write_shapes(tmp_path / "labels", name)
    with pytest.raises(MaskMismatch, match=r"a.geojson and .*a_labels.geojson are of the same image, a; .* corrected"):
        find_sources(tmp_path, Data())


@pytest.mark.parametrize(("masks", "images"), PLACES)
def test_masks_of_classes_among_numbered_objects_are_refused(tmp_path: Path, masks: str, images: str) -> None:
    for stem in ("a", "b"):
        write_image(tmp_path / images, f"{stem}.tif")
    write_mask(tmp_path / masks, "a_labels.tif")
    write_mask(tmp_path / masks, "b_mask.png")
    with pytest.raises(MaskMismatch, match=r"b_mask.png is named as a mask of classes, .*a_labels.tif as numbered"):
        find_sources(tmp_path, Data())


def test_a_mask_without_its_image_is_named_with_the_name_that_is_missing(tmp_path: Path) -> None:
    write_image(tmp_path / "images", "a.tif")
    for stem in ("a", "b"):
        write_mask(tmp_path / "labels", f"{stem}_labels.tif")
    expected = rf"1 of 2 masks have no image, .*b_labels.tif is the first: expected {tmp_path / 'images' / 'b'} with"
    with pytest.raises(MissingFile, match=expected):
        find_sources(tmp_path, Data())


@pytest.mark.parametrize(
    "result",
    [
        ("labels", "tiff", "instances", [0, 1, 2, 3]),
        ("labels", "geojson", "instances", [0, 1, 2, 3]),
        ("mask", "png", "semantic", [0, 1]),
    ],
)
def test_what_the_service_makes_of_a_folder_is_what_training_reads(
    tmp_path: Path,
    result: tuple[str, str, Literal["instances", "semantic"], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Predict, correct, train: nothing is renamed between."""
    output, form, kind, values = result
    write_tiny_package(tmp_path / "packages")
    monkeypatch.setenv("UNET_MODELS_DIR", str(tmp_path / "packages"))
    monkeypatch.setenv("UNET_BACKEND", "cpu")
    cells = tmp_path / "cells"
    (cells / "images").mkdir(parents=True)
    discs = np.concatenate([disc(50, 70)] * 3, axis=1)
    for stem in ("one", "two", "three"):
        tifffile.imwrite(cells / "images" / f"{stem}.tif", discs)
    arguments = [str(cells / "images"), "-o", str(cells / "labels"), "--output", output, "--format", form]
    assert serve(["segment", *arguments]) == 0
    for image in load_images(cells, Data(kind=kind), 1, 2):
        np.testing.assert_array_equal(image.labels_yx > 0, discs > 110)
        assert np.unique(image.labels_yx).tolist() == values
    capsys.readouterr()
    assert train(["plan", "--data", str(cells), "--steps", "2"]) == 0
    assert f"masks: {kind} " in capsys.readouterr().out
