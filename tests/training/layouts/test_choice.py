"""Which layout a folder has: recognised where one fits, refused with what was found where none or two do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from training.data.datasets import find_sources
from training.errors import MaskMismatch, MissingFile
from training.layouts.choice import LAYOUTS, layout_of
from training.options import Data


def touch(folder: Path, name: str, content: str = "") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".tif"):
        tifffile.imwrite(path, np.zeros((5, 6, 7) if "volume" in name or "stack" in name else (6, 7), dtype=np.uint8))
    else:
        path.write_text(content)


CASES = {
    "folders": ("images/a.tif", "labels/a.tif"),
    "ctc": ("01/t000.tif", "01_ST/SEG/man_seg000.tif"),
    "volume": ("train-volume.tif", "train-labels.tif"),
    "coco": ("images/a.tif", "set.json"),
    "rois": ("images/a.tif", "labels/a.zip"),
    "geojson": ("images/a.tif", "images/a.geojson"),
}


def fill(folder: Path, layout: str) -> None:
    for name in CASES[layout]:
        touch(folder, name, '{"images": [], "annotations": []}' if name.endswith(".json") else "")


def test_every_layout_has_a_case_and_a_place_among_the_options() -> None:
    assert set(CASES) == set(LAYOUTS)
    assert {"auto", *LAYOUTS} == set(Data.model_json_schema()["properties"]["layout"]["enum"])


@pytest.mark.parametrize("layout", CASES)
def test_a_layout_is_recognised_by_what_lies_there(
    tmp_path: Path, layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, layout)
    with caplog.at_level("INFO", logger="training"):
        assert layout_of(tmp_path, Data()) == (LAYOUTS[layout], Data())
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}: layout {layout}, ")


def test_stacks_in_folders_are_a_volume(tmp_path: Path) -> None:
    touch(tmp_path, "images/stack.tif")
    touch(tmp_path, "labels/stack.tif")
    assert layout_of(tmp_path, Data())[0] is LAYOUTS["volume"]


def test_the_word_of_the_recipe_is_taken(tmp_path: Path) -> None:
    fill(tmp_path, "folders")
    assert layout_of(tmp_path, Data(layout="rois"))[0] is LAYOUTS["rois"]


def load_named(folder: Path, data: Data) -> list[tuple[str, str, str]]:
    return [
        (
            source.stem,
            str(Path(source.image_name).relative_to(folder)),
            str(Path(source.labels_name).relative_to(folder)),
        )
        for source in find_sources(folder, data)
    ]


def test_masks_may_lie_in_a_folder_of_that_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """StarDist's examples have ``images`` and ``masks``."""
    touch(tmp_path, "images/a.tif")
    touch(tmp_path, "masks/a.tif")
    with caplog.at_level("INFO", logger="training"):
        for _ in range(2):  # a command may read a folder more than once
            assert load_named(tmp_path, Data()) == [("a", "images/a.tif", "masks/a.tif")]
    assert caplog.messages == [f"{tmp_path}: layout folders, 1 image in images/, 1 mask in masks/"]
    touch(tmp_path, "labels/a.tif")
    assert load_named(tmp_path, Data()) == [("a", "images/a.tif", "labels/a.tif")]
    with pytest.raises(MissingFile, match="fits no layout"):
        layout_of(tmp_path, Data(masks="truth"))


def test_masks_may_lie_beside_their_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Cellpose names them so."""
    names = [
        "a.tif",
        "a_cp_masks.tif",
        "b.tif",
        "b_masks.tif",
        "c_img.tif",
        "c_masks.tif",
        "d_img.tif",
        "d_img_cp_masks.tif",
    ]
    for name in names:
        touch(tmp_path, name)
    with caplog.at_level("INFO", logger="training"):
        assert load_named(tmp_path, Data()) == list(zip("abcd", names[::2], names[1::2], strict=True))
    assert caplog.messages == [
        f"{tmp_path}: layout folders, 4 images in ./, 4 masks beside them as NAME_labels, NAME_mask, NAME_cp_masks, "
        "NAME_masks, NAME_label or NAME_seg.npy"
    ]
    touch(tmp_path, "e.tif")
    with pytest.raises(MissingFile, match=r"1 of 5 have no mask \(NAME_labels, .*\): expected .*/e with"):
        find_sources(tmp_path, Data())


def test_two_masks_beside_one_image_are_refused(tmp_path: Path) -> None:
    for name in ("a.tif", "a_masks.tif", "a_cp_masks.tif"):
        touch(tmp_path, name)
    with pytest.raises(MaskMismatch, match=r"a_cp_masks.tif and .*a_masks.tif are of the same image, a; expected one"):
        layout_of(tmp_path, Data())


def test_images_beside_each_other_are_not_taken_for_masks(tmp_path: Path) -> None:
    for name in ("a.tif", "a.png", "b_masks.jpg"):
        touch(tmp_path, name)
    with pytest.raises(MissingFile, match="fits no layout"):
        layout_of(tmp_path, Data())


@pytest.mark.parametrize(
    ("stray", "layout"),
    [
        ("notes.json", "coco"),
        ("annotations/a.json", "coco"),
        ("images/project.geojson", "geojson"),
        ("labels/set.zip", "rois"),
    ],
)
@pytest.mark.parametrize("masks", ["labels", "masks"])
def test_what_may_be_meant_as_a_layout_makes_no_second_one(
    tmp_path: Path, stray: str, layout: str, masks: str, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "images/a.tif")
    touch(tmp_path, f"{masks}/a.tif")
    touch(tmp_path, stray.replace("labels", masks), '{"lens": 20}\n{"lens": 40}\n')
    with caplog.at_level("WARNING", logger="training"):
        assert load_named(tmp_path, Data()) == [("a", "images/a.tif", f"{masks}/a.tif")]
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}: left out: ")
    assert message.endswith(f". Where they are meant, set data.layout (in the recipe, or --set data.layout={layout})")


def test_what_may_be_meant_is_read_where_nothing_else_fits(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif")
    touch(tmp_path, "b.json", "{")
    assert layout_of(tmp_path, Data())[0] is LAYOUTS["coco"]
    touch(tmp_path, "images/b.zip")
    with pytest.raises(MissingFile, match="fits no layout"):
        layout_of(tmp_path, Data())
    (tmp_path / "b.json").unlink()
    with pytest.raises(MissingFile, match=r"1 of 1 have no file of shapes: .*; found b.zip, named after no image. Ren"):
        find_sources(tmp_path, Data())


@pytest.mark.parametrize("kind", ["folders", "volume", "geojson"])
def test_images_in_sub_folders_are_said_not_to_be_read(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = "stack" if kind == "volume" else "a"
    touch(tmp_path, f"images/{name}.tif")
    touch(tmp_path, f"labels/{name}.geojson" if kind == "geojson" else f"labels/{name}.tif")
    for nested in ("day1/b.tif", "day1/c.tif", "day2/late/d.tif", ".cache/e.tif"):
        touch(tmp_path, f"images/{nested}")
    with caplog.at_level("WARNING", logger="training"):
        assert find_sources(tmp_path, Data())
    assert caplog.messages == [
        f"{tmp_path}/images: not read, in sub-folders: 3 images, the first 2 in day1/. Move images and masks "
        "up, or name one sub-folder of each as data.images and data.masks"
    ]


def test_where_all_images_lie_in_sub_folders_the_refusal_says_so(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        touch(tmp_path, f"{folder}/day1/a.tif")
    with pytest.raises(
        MissingFile,
        match=r"fits no layout; (?s:.*)/images: not read, in sub-folders: 1 image, the first 1 in day1/. Mo",
    ):
        find_sources(tmp_path, Data())
    assert load_named(tmp_path, Data(images="images/day1", masks="labels/day1")) == [
        ("a", "images/day1/a.tif", "labels/day1/a.tif")
    ]


@pytest.mark.parametrize(
    ("names", "data"),
    [
        (("a.tif", "labels/a.tif", "old/b.tif"), Data()),
        (("images/a.tif", "images/truth/a.tif", "images/truth/old/a.tif"), Data(masks="images/truth")),
        (("a.tif", "a_masks.tif", "old/b.tif"), Data()),
    ],
)
def test_sub_folders_of_the_data_folder_and_of_masks_are_no_matter(
    tmp_path: Path, names: tuple[str, ...], data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    for name in names:
        touch(tmp_path, name)
    with caplog.at_level("WARNING", logger="training"):
        assert load_named(tmp_path, data) == [("a", *names[:2])]
    assert not caplog.messages


@pytest.mark.parametrize(("one", "other"), [("folders", "coco"), ("rois", "geojson"), ("ctc", "volume")])
def test_two_that_fit_are_both_named(tmp_path: Path, one: str, other: str) -> None:
    fill(tmp_path, one)
    fill(tmp_path, other)
    with pytest.raises(
        MissingFile, match=rf"fits 2 layouts; name one .*--set data.layout={one}\):(?s:.*){one}: (?s:.*){other}: "
    ):
        layout_of(tmp_path, Data())


def test_where_none_fits_all_are_listed_with_what_was_found(tmp_path: Path) -> None:
    touch(tmp_path, "pictures/a.tif")
    touch(tmp_path, "notes.txt")
    with pytest.raises(MissingFile) as caught:
        layout_of(tmp_path, Data())
    message = str(caught.value)
    assert "fits no layout; found notes.txt, pictures/ (1 file)" in message
    for name, layout in LAYOUTS.items():
        assert f"  {name}: {layout.EXPECTS}" in message


def test_an_empty_folder_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="fits no layout; found nothing"):
        layout_of(tmp_path, Data())


def test_a_long_listing_ends(tmp_path: Path) -> None:
    for number in range(11):
        touch(tmp_path, f"{number:02d}.txt")
    with pytest.raises(MissingFile, match=r"07.txt and 3 more; expected"):
        layout_of(tmp_path, Data())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="nowhere is not a folder"):
        layout_of(tmp_path / "nowhere", Data(layout="ctc"))


def test_hidden_files_do_not_count(tmp_path: Path) -> None:
    fill(tmp_path, "folders")
    touch(tmp_path, "labels/._a.zip")
    touch(tmp_path, ".index.json", "{")
    assert layout_of(tmp_path, Data())[0] is LAYOUTS["folders"]
