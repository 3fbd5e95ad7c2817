"""The Cell Tracking Challenge's layout: frames with a mask, gold before silver, what gold lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from training.data.datasets import IGNORE, AnnotatedImage, load_images
from training.data.splits import split_images
from training.errors import MaskMismatch, MissingFile
from training.options import Data

LEFT, RIGHT = np.s_[2:6, 2:6], np.s_[2:6, 9:13]


def write_mask(folder: Path, name: str, number: int, **objects: int) -> None:
    mask = np.zeros((8, 16), dtype=np.uint16)
    for side, value in objects.items():
        mask[{"left": LEFT, "right": RIGHT}[side]] = value
    path = folder / name / "SEG" / f"man_seg{number:03d}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, mask)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sequence 01: five frames; gold for 1 and 3 (3 lacks the right cell), silver for 0, 1, 2, 3. Sequence 02: bare."""
    for name, count in (("01", 5), ("02", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            tifffile.imwrite(tmp_path / name / f"t{number:03d}.tif", np.full((8, 16), number, dtype=np.uint8))
    write_mask(tmp_path, "01_GT", 1, left=4, right=9)
    write_mask(tmp_path, "01_GT", 3, left=4)
    for number in range(4):
        write_mask(tmp_path, "01_ST", number, left=1, right=2)
    return tmp_path


def load(folder: Path, **options: object) -> dict[str, AnnotatedImage]:
    data = Data.model_validate({"layout": "ctc"} | options)
    return {image.stem: image for image in load_images(folder, data, 1, 2)}


def test_gold_takes_the_frames_drawn_by_hand(folder: Path) -> None:
    images = load(folder)
    assert list(images) == ["01-t001", "01-t003"]
    assert (images["01-t003"].image_yxc == 3).all()
    assert np.unique(images["01-t001"].labels_yx).tolist() == [0, 4, 9]


def test_silver_takes_the_computed_masks(folder: Path) -> None:
    images = load(folder, truth="silver")
    assert list(images) == ["01-t000", "01-t001", "01-t002", "01-t003"]
    assert np.unique(images["01-t001"].labels_yx).tolist() == [0, 1, 2]
    assert not any(image.training_only for image in images.values())


def test_silver_fills_in_for_gold_and_only_trains(folder: Path) -> None:
    images = load(folder, truth="gold, else silver")
    assert [(stem, image.training_only) for stem, image in images.items()] == [
        ("01-t000", True),
        ("01-t001", False),
        ("01-t002", True),
        ("01-t003", False),
    ]
    assert np.unique(images["01-t001"].labels_yx).tolist() == [0, 4, 9]
    assert np.unique(images["01-t002"].labels_yx).tolist() == [0, 1, 2]


def test_silver_frames_among_the_validating_ones_are_on_neither_side(folder: Path) -> None:
    data = Data(layout="ctc", truth="gold, else silver", split="blocks", fold=(2, 2))
    training, validation = split_images(load_images(folder, data, 1, 2), data)
    assert [image.stem for image in training] == ["01-t000", "01-t001"]
    assert [image.stem for image in validation] == ["01-t003"]


def test_silver_alone_validates_where_there_is_no_gold(folder: Path) -> None:
    for path in (folder / "01_GT" / "SEG").iterdir():
        path.unlink()
    images = load(folder, truth="gold, else silver")
    assert [image.training_only for image in images.values()] == [False] * 4


def test_what_gold_lacks_is_unknown(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="training"):
        labels = load(folder)["01-t003"].labels_yx
    expected = np.zeros((8, 16), dtype=np.int32)
    expected[LEFT], expected[RIGHT] = 4, IGNORE
    np.testing.assert_array_equal(labels, expected)
    assert "01-t003: gold truth lacks 1 object of silver truth: taken as unknown" in caplog.messages


def test_what_gold_lacks_can_be_background(folder: Path) -> None:
    assert np.unique(load(folder, lacking="background")["01-t003"].labels_yx).tolist() == [0, 4]


def test_what_gold_lacks_can_be_taken_from_silver(folder: Path) -> None:
    labels = load(folder, lacking="silver")["01-t003"].labels_yx
    assert (labels[LEFT] == 4).all()
    assert (labels[RIGHT] == 6).all()  # silver's 2 after gold's largest number, 4
    assert np.count_nonzero(labels) == 32


def test_a_silver_object_half_covered_by_gold_is_not_lacked(folder: Path) -> None:
    mask = np.zeros((8, 16), dtype=np.uint16)
    mask[LEFT], mask[2:4, 9:13] = 4, 5  # two of the right cell's four rows
    tifffile.imwrite(folder / "01_GT" / "SEG" / "man_seg003.tif", mask)
    np.testing.assert_array_equal(load(folder)["01-t003"].labels_yx, mask)


def test_several_sequences_sort_one_after_the_other(folder: Path) -> None:
    write_mask(folder, "02_GT", 0, left=1)
    assert list(load(folder)) == ["01-t001", "01-t003", "02-t000"]
    assert list(load(folder, sequences=["02"])) == ["02-t000"]


def test_long_sequences_sort_by_frame(folder: Path) -> None:
    tifffile.imwrite(folder / "01" / "t1000.tif", np.zeros((8, 16), dtype=np.uint8))
    write_mask(folder, "01_GT", 1000, left=1)
    assert list(load(folder)) == ["01-t0001", "01-t0003", "01-t1000"]


def test_the_layout_is_recognised_and_the_log_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="training"):
        assert list(load(folder, layout="auto", lacking="background")) == ["01-t001", "01-t003"]
    assert caplog.messages == [f"{folder}: layout ctc, sequence 01, 2 gold and 4 silver masks"]


def test_a_mask_without_its_frame_is_named(folder: Path) -> None:
    (folder / "01" / "t003.tif").unlink()
    with pytest.raises(MissingFile, match=r"man_seg003.tif has no image: expected .*01/t003.tif, found 4 other"):
        load(folder)


def test_a_named_sequence_without_truth_is_refused(folder: Path) -> None:
    with pytest.raises(MissingFile, match=r"sequence 02 .* has no gold truth; found 0 gold"):
        load(folder, sequences=["02"])


def test_a_sequence_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(MissingFile, match=r"07 is not a folder; .*found the sequences \['01'\]"):
        load(folder, sequences=["07"])


def test_truth_that_is_nowhere_is_named_with_what_is_there(folder: Path) -> None:
    for path in (folder / "01_GT" / "SEG").iterdir():
        path.unlink()
    with pytest.raises(MissingFile, match=r"has no gold truth; found 0 gold masks .* and 4 silver ones.*data.truth"):
        load(folder)


def test_frames_and_masks_of_other_names_are_counted_and_named(folder: Path) -> None:
    for path in [*(folder / "01").iterdir(), *(folder / "01_GT" / "SEG").iterdir()]:
        path.rename(path.with_name(path.name.replace("00", "0")))
    with pytest.raises(MissingFile) as caught:
        load(folder)
    assert str(caught.value) == (
        f"sequence 01 of {folder} has no gold truth; found 0 gold masks in 01_GT/SEG (2 files there not named "
        "man_seg000.tif, such as man_seg01.tif) and 4 silver ones in 01_ST/SEG. Rename them, or change data.truth"
    )
    with pytest.raises(
        MissingFile,
        match=r"found 0 other frames \(5 files there not named t000.tif, such as t00.tif\). Rename them",
    ):
        load(folder, truth="silver")


def test_gold_of_other_names_is_warned_of_where_silver_stands_for_it(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = folder / "01_GT" / "SEG"
    (place / "man_seg003.tif").rename(place / "seg003.tif")
    with caplog.at_level("WARNING", logger="training"):
        for _ in range(2):  # a command may read a folder more than once
            assert load(folder, truth="gold, else silver")["01-t003"].training_only
    assert caplog.messages == [
        f"{place}: masks are passed over (1 file there not named man_seg000.tif, such as seg003.tif); rename "
        "them, or move them away"
    ]


def test_slices_of_volumes_are_refused(folder: Path) -> None:
    tifffile.imwrite(folder / "01_GT" / "SEG" / "man_seg_004_002.tif", np.zeros((8, 16), dtype=np.uint16))
    with pytest.raises(MaskMismatch, match=r"man_seg_004_002.tif is a slice of a volume"):
        load(folder)


def test_silver_of_another_size_is_named_with_both_shapes(folder: Path) -> None:
    tifffile.imwrite(folder / "01_ST" / "SEG" / "man_seg003.tif", np.ones((8, 15), dtype=np.uint16))
    with pytest.raises(MaskMismatch, match=r"man_seg003.tif has shape \(8, 15\), .*man_seg003.tif has \(8, 16\)"):
        load(folder)


@pytest.mark.parametrize("truth", ["01_GT", "01_ST"])
def test_floats_that_are_whole_are_taken(folder: Path, truth: str) -> None:
    path = folder / truth / "SEG" / "man_seg003.tif"
    mask = tifffile.imread(path).astype(np.float32)
    expected = load(folder)["01-t003"].labels_yx
    tifffile.imwrite(path, mask)
    np.testing.assert_array_equal(load(folder)["01-t003"].labels_yx, expected)
    tifffile.imwrite(path, mask + np.float32(0.5))
    with pytest.raises(
        MaskMismatch, match=rf"{truth}/SEG/man_seg003.tif holds float32 values, 128 of which are no whole"
    ):
        load(folder)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "gold", "silver", "unknown"), [("PhC-C2DH-U373", 15, 33, 0), ("DIC-C2DH-HeLa", 9, 24, 137_661)]
)
def test_the_challenge_images_are_read(data_root: Path, name: str, gold: int, silver: int, unknown: int) -> None:
    images = load(data_root / "ctc" / name, layout="auto", truth="gold, else silver").values()
    assert sum(not image.training_only for image in images) == gold
    assert sum(image.training_only for image in images) == silver
    assert sum(int((image.labels_yx == IGNORE).sum()) for image in images) == unknown
