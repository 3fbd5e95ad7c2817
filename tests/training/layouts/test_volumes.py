"""Stacks: every page an image, whichever way they were written; stacks of other lengths are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from training.data.datasets import load_images
from training.errors import MaskMismatch, MissingFile, UnreadableFile
from training.options import Data

PAGES: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 255, (5, 8, 10), dtype=np.uint8)
LABELS: NDArray[np.uint8] = (PAGES > 99).astype(np.uint8) * 255


def save(path: Path, pages: NDArray[Any], **options: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, pages, **options)


def check(folder: Path, name: str, **options: Any) -> None:
    images = load_images(folder, Data.model_validate({"kind": "semantic"} | options), 1, 2)
    assert [image.stem for image in images] == [f"{name}-{page:03d}" for page in range(5)]
    np.testing.assert_array_equal(np.stack([image.image_yxc[..., 0] for image in images]), PAGES)
    np.testing.assert_array_equal(np.stack([image.labels_yx for image in images]), LABELS // 255)


def test_the_names_of_the_challenge(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "train-volume.tif", PAGES)
    save(tmp_path / "train-labels.tif", LABELS)
    save(tmp_path / "test-volume.tif", PAGES)  # it has no labels
    with caplog.at_level("INFO", logger="training"):
        check(tmp_path, "train")
    assert caplog.messages == [f"{tmp_path}: layout volume, train-volume.tif with train-labels.tif"]


def test_files_of_the_names_in_the_recipe(tmp_path: Path) -> None:
    save(tmp_path / "images.tif", PAGES)
    save(tmp_path / "labels.tiff", LABELS)
    check(tmp_path, "images")


def test_files_that_the_recipe_names(tmp_path: Path) -> None:
    save(tmp_path / "stack.tif", PAGES)
    save(tmp_path / "membranes.tif", LABELS)
    check(tmp_path, "stack", images="stack.tif", masks="membranes.tif")


def test_stacks_in_folders(tmp_path: Path) -> None:
    save(tmp_path / "images" / "fly.tif", PAGES)
    save(tmp_path / "labels" / "fly.tif", LABELS)
    check(tmp_path, "fly")


@pytest.mark.parametrize(("other", "reason"), [("labels", "stacks of labels have no image"), ("images", "no stack of")])
def test_a_stack_in_a_folder_without_its_partner_is_named(tmp_path: Path, other: str, reason: str) -> None:
    save(tmp_path / "images" / "fly.tif", PAGES)
    save(tmp_path / "labels" / "fly.tif", LABELS)
    save(tmp_path / other / "worm.tif", LABELS)
    with pytest.raises(MissingFile, match=rf"1 of 2 .*{reason}.*worm"):
        load_images(tmp_path, Data(), 1, 2)


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "CYX"])
def test_stacks_of_imagej(tmp_path: Path, axes: str) -> None:
    save(tmp_path / "train-volume.tif", PAGES, imagej=True, metadata={"axes": axes})
    save(tmp_path / "train-labels.tif", LABELS, imagej=True, metadata={"axes": axes})
    check(tmp_path, "train")


def test_pages_written_one_by_one(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "train-volume.tif") as writer:
        for page in PAGES:
            writer.write(page, contiguous=False)
    first, *others = (Image.fromarray(page) for page in LABELS)
    first.save(tmp_path / "train-labels.tif", save_all=True, append_images=others)
    check(tmp_path, "train")


def test_pages_in_colours(tmp_path: Path) -> None:
    colours = np.stack([PAGES] * 3, axis=-1)
    save(tmp_path / "train-volume.tif", colours, photometric="rgb")
    save(tmp_path / "train-labels.tif", LABELS)
    images = load_images(tmp_path, Data(kind="semantic"), 3, 2)
    np.testing.assert_array_equal(np.stack([image.image_yxc for image in images]), colours)


def test_pages_in_which_white_is_zero_are_read_as_the_service_reads_them(tmp_path: Path) -> None:
    save(tmp_path / "train-volume.tif", 255 - PAGES, photometric="miniswhite")
    save(tmp_path / "train-labels.tif", LABELS)
    check(tmp_path, "train")


def test_one_page_that_is_no_mask_is_named_by_number(tmp_path: Path) -> None:
    save(tmp_path / "train-volume.tif", PAGES)
    labels = LABELS.copy()
    labels[3, 0, 0] = 7
    save(tmp_path / "train-labels.tif", labels)
    with pytest.raises(MaskMismatch, match=r"1 broken of 5 (?s:.*)train-labels.tif page 3 holds the values \[7\]"):
        load_images(tmp_path, Data(kind="semantic", class_values=(0, 255)), 1, 2)


def test_stacks_of_other_lengths_are_named_with_both(tmp_path: Path) -> None:
    save(tmp_path / "train-volume.tif", PAGES)
    save(tmp_path / "train-labels.tif", LABELS[:2])
    with pytest.raises(MaskMismatch, match=r"train-labels.tif has 2 pages, .*train-volume.tif has 5"):
        load_images(tmp_path, Data(), 1, 2)


def test_stacks_of_other_page_sizes_are_named_with_both(tmp_path: Path) -> None:
    save(tmp_path / "train-volume.tif", PAGES)
    save(tmp_path / "train-labels.tif", LABELS[:, :7])
    with pytest.raises(MaskMismatch, match=r"train-labels.tif page 0 is 7 x 10 px, its image 8 x 10 px"):
        load_images(tmp_path, Data(), 1, 2)


@pytest.mark.parametrize(("pages", "axes"), [(PAGES[0], "YX"), (np.stack([PAGES, PAGES]), "QQYX")])
def test_what_is_no_stack_is_refused_with_its_axes(tmp_path: Path, pages: NDArray[Any], axes: str) -> None:
    save(tmp_path / "train-volume.tif", pages)
    save(tmp_path / "train-labels.tif", LABELS)
    expected = rf"train-volume.tif has the axes {axes} .*expected one stack of pages.* Write one stack to a file"
    with pytest.raises(UnreadableFile, match=expected):
        load_images(tmp_path, Data(), 1, 2)


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.filterwarnings("ignore:.*stored as RGB with separate component planes:DeprecationWarning")
def test_planes_that_were_written_as_colours_are_refused_with_the_remedy(tmp_path: Path, count: int) -> None:
    save(tmp_path / "train-volume.tif", PAGES[:count])
    save(tmp_path / "train-labels.tif", LABELS[:count], photometric="minisblack")
    with pytest.raises(UnreadableFile, match=rf"axes SYX \({count}, 8, 10\); .* stored as colours: .*'minisblack'"):
        load_images(tmp_path, Data(), 1, 2)
    save(tmp_path / "train-volume.tif", PAGES[:count], photometric="minisblack")
    assert len(load_images(tmp_path, Data(kind="semantic"), 1, 2)) == count


def test_pages_of_several_sizes_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "train-volume.tif") as writer:
        for page in (PAGES[0], PAGES[1, :5]):
            writer.write(page, contiguous=False)
    save(tmp_path / "train-labels.tif", LABELS)
    with pytest.raises(UnreadableFile, match=r"train-volume.tif has the axes  .*expected one stack"):
        load_images(tmp_path, Data(), 1, 2)


def test_a_damaged_stack_is_named(tmp_path: Path) -> None:
    save(tmp_path / "train-volume.tif", PAGES)
    save(tmp_path / "train-labels.tif", LABELS)
    path = tmp_path / "train-labels.tif"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UnreadableFile, match=r"train-labels.tif cannot be read"):
        load_images(tmp_path, Data(), 1, 2)


def test_no_pair_of_stacks_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "train-volume.tif", PAGES)
    with pytest.raises(MissingFile, match=r"holds no pair of stacks; expected NAME-volume.tif"):
        load_images(tmp_path, Data(layout="volume"), 1, 2)


@pytest.mark.data
def test_slices_as_a_stack_are_the_slices_in_a_folder(data_root: Path, tmp_path: Path) -> None:
    data = Data(kind="semantic")
    slices = load_images(data_root / "em-isbi2012", data, 1, 2)
    save(tmp_path / "train-volume.tif", np.stack([image.image_yxc[..., 0] for image in slices]))
    save(tmp_path / "train-labels.tif", np.stack([image.labels_yx.astype(np.uint8) * 255 for image in slices]))
    pages = load_images(tmp_path, data, 1, 2)
    assert len(pages) == len(slices) == 24
    for page, one in zip(pages, slices, strict=True):
        np.testing.assert_array_equal(page.image_yxc, one.image_yxc)
        np.testing.assert_array_equal(page.labels_yx, one.labels_yx)
