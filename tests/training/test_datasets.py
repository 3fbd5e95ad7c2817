"""Folders of images and masks: what is read, what is refused before training starts, who validates."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from training.data.datasets import IGNORE, load_images
from training.errors import DatasetError, MaskMismatch, MissingFile, NothingToLearn, UnreadableFile
from training.options import Data, Include


def write(folder: Path, stem: str, image: NDArray[Any], mask: NDArray[Any] | None, suffix: str = ".png") -> None:
    for name, array in (("images", image), ("labels", mask)):
        (folder / name).mkdir(exist_ok=True, parents=True)
        if array is None:
            continue
        path = folder / name / (stem + suffix)
        if suffix == ".png":
            Image.fromarray(array).save(path)
        else:
            tifffile.imwrite(path, array)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(3):
        mask = np.zeros((12, 16), dtype=np.uint16)
        mask[2:6, 3:9], mask[8:, 10:] = 1, 700
        write(tmp_path, f"cell-{number}", rng.integers(0, 255, (12, 16), dtype=np.uint8), mask)
    return tmp_path


def test_images_and_masks_pair_by_stem_and_keep_their_values(folder: Path) -> None:
    loaded = load_images(folder, Data(), 1, 2)
    assert [image.stem for image in loaded] == ["cell-0", "cell-1", "cell-2"]
    assert loaded[0].image_yxc.shape == (12, 16, 1)
    assert loaded[0].image_yxc.dtype == np.uint8
    assert np.unique(loaded[0].labels_yx).tolist() == [0, 1, 700]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
def test_png_and_tiff_of_8_and_16_bit_keep_every_value(tmp_path: Path, dtype: type, suffix: str) -> None:
    image: NDArray[Any] = np.linspace(0, np.iinfo(dtype).max, 80).astype(dtype).reshape(8, 10)
    write(tmp_path, "ramp", image, np.eye(8, 10, dtype=np.uint8), suffix)
    (loaded,) = load_images(tmp_path, Data(), 1, 2)
    assert loaded.image_yxc.dtype == dtype
    np.testing.assert_array_equal(loaded.image_yxc[..., 0], image)


def test_semantic_values_become_classes(tmp_path: Path) -> None:
    mask = np.array([[0, 128, 255, 7]], dtype=np.uint8)
    write(tmp_path, "slice", np.zeros((1, 4), dtype=np.uint8), mask)
    data = Data(kind="semantic", class_values=(255, 0, 128), ignore_value=7)
    (loaded,) = load_images(tmp_path, data, 1, 3)
    assert loaded.labels_yx.tolist() == [[1, 2, 0, IGNORE]]


def test_two_classes_are_background_and_the_rest(tmp_path: Path) -> None:
    write(tmp_path, "slice", np.zeros((1, 3), dtype=np.uint8), np.array([[0, 255, 1]], dtype=np.uint8))
    (loaded,) = load_images(tmp_path, Data(kind="semantic"), 1, 2)
    assert loaded.labels_yx.tolist() == [[0, 1, 1]]


def test_a_missing_mask_is_named(folder: Path) -> None:
    (folder / "labels" / "cell-1.png").unlink()
    with pytest.raises(MissingFile, match=r"1 of 3 have no mask.*labels/cell-1"):
        load_images(folder, Data(), 1, 2)


def test_masks_without_an_image_are_named(folder: Path) -> None:
    for stem in ("cell-3", "cell-4"):
        shutil.copy(folder / "labels" / "cell-0.png", folder / "labels" / f"{stem}.png")
    with pytest.raises(MissingFile, match=r"2 of 5 masks have no image, .*labels/cell-3.png is the first.* found none"):
        load_images(folder, Data(), 1, 2)
    (folder / "index.csv").write_text("id,kind\ncell-0,good\n")
    data = Data(include=Include(csv="index.csv", column="kind", value="good"))
    assert len(load_images(folder, data, 1, 2)) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_chooses_images_whether_or_not_it_has_a_byte_order_mark(folder: Path, encoding: str) -> None:
    """Spreadsheets put one in front of the first column's name."""
    (folder / "index.csv").write_text("kind,id\ngood,cell-0\nbad,cell-1\ngood,cell-2\n", encoding=encoding)
    data = Data(include=Include(csv="index.csv", column="kind", value="good"))
    assert [image.stem for image in load_images(folder, data, 1, 2)] == ["cell-0", "cell-2"]


def test_an_image_that_is_not_read_for_its_suffix_is_named(folder: Path) -> None:
    (folder / "images" / "cell-2.png").rename(folder / "images" / "cell-2.gif")
    with pytest.raises(MissingFile, match=r"1 of 3 .* found .*images/cell-2.gif, which is of a kind .* Convert it"):
        load_images(folder, Data(), 1, 2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "cell-1.jpg",
            "and JPEG changes the numbers that it stores, so that no labels are read from it. Save it as .png",
        ),
        ("cell-1_mask.JPEG", "and JPEG changes the numbers that it stores"),
        ("cell-1.bmp", "which is of a kind that is not read. Convert it to one of these"),
    ],
)
def test_a_mask_that_is_not_read_for_its_suffix_is_named(folder: Path, name: str, said: str) -> None:
    (folder / "labels" / "cell-1.png").unlink()
    Image.fromarray(np.zeros((12, 16), dtype=np.uint8)).save(folder / "labels" / name)
    with pytest.raises(MissingFile) as caught:
        load_images(folder, Data(), 1, 2)
    assert f"1 of 3 have no mask: expected {folder}/labels/cell-1 with suffix .png" in str(caught.value)
    assert f"found {folder}/labels/{name}, {said}" in str(caught.value)


@pytest.mark.parametrize("place", ["images", "labels"])
def test_a_folder_in_the_place_of_a_file_is_called_one(folder: Path, place: str) -> None:
    path = folder / place / "cell-1.png"
    path.unlink()
    path.mkdir()
    with pytest.raises(UnreadableFile, match=rf"{place}/cell-1.png is a folder; expected an image .* Put the file in"):
        load_images(folder, Data(), 1, 2)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="images is not a folder"):
        load_images(tmp_path, Data(layout="folders"), 1, 2)


def test_a_mask_of_another_size_is_named_with_both_sizes(folder: Path) -> None:
    Image.fromarray(np.ones((5, 16), dtype=np.uint8)).save(folder / "labels" / "cell-1.png")
    with pytest.raises(
        MaskMismatch, match=r"cell-1.png is 5 x 16 px, its image 12 x 16 px; save the mask at the size of"
    ):
        load_images(folder, Data(), 1, 2)


def test_a_mask_in_colours_is_refused(folder: Path) -> None:
    Image.fromarray(np.ones((12, 16, 3), dtype=np.uint8)).save(folder / "labels" / "cell-2.png")
    with pytest.raises(MaskMismatch, match=r"cell-2.png has shape \(12, 16, 3\).*not colours .* in grey of 16 bits"):
        load_images(folder, Data(), 1, 2)


def test_an_image_of_other_channels_is_refused(folder: Path) -> None:
    Image.fromarray(np.ones((12, 16, 3), dtype=np.uint8)).save(folder / "images" / "cell-2.png")
    with pytest.raises(UnreadableFile, match=r"cell-2.png has shape \(12, 16, 3\); expected .* correct the recipe"):
        load_images(folder, Data(), 1, 2)
    with pytest.raises(UnreadableFile, match=r"\(12, 16, 3\); expected \(y, x, 1\), as most of .* or take it away$"):
        load_images(folder, Data(), None, 2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_no_number_is_named_with_its_file(folder: Path, dtype: type, value: float) -> None:
    (folder / "images" / "cell-1.png").unlink()
    image: NDArray[Any] = np.ones((12, 16), dtype=dtype)
    image[3, 4:6] = value
    tifffile.imwrite(folder / "images" / "cell-1.tif", image)
    with pytest.raises(UnreadableFile, match=r"1 broken of 3 (?s:.*)cell-1.tif: 2 of 192 pixel values are NaN or inf"):
        load_images(folder, Data(), 1, 2)


def test_floats_are_read_as_stored(folder: Path) -> None:
    (folder / "images" / "cell-1.png").unlink()
    image = np.linspace(-1e30, 1e30, 192, dtype=np.float32).reshape(12, 16)
    tifffile.imwrite(folder / "images" / "cell-1.tif", image)
    np.testing.assert_array_equal(load_images(folder, Data(), 1, 2)[1].image_yxc[..., 0], image)


def test_an_image_that_is_neither_whole_numbers_nor_floats_is_refused(folder: Path) -> None:
    (folder / "images" / "cell-1.png").unlink()
    tifffile.imwrite(folder / "images" / "cell-1.tif", np.ones((12, 16), dtype=np.complex64))
    with pytest.raises(UnreadableFile, match=r"cell-1.tif cannot be read: samples of type complex64 are not supported"):
        load_images(folder, Data(), 1, 2)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_corrupt_file_in_the_middle_is_named(folder: Path, suffix: str) -> None:
    (folder / "images" / "cell-1.png").rename(folder / "images" / f"cell-1{suffix}")
    path = folder / "images" / f"cell-1{suffix}"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UnreadableFile, match=r"1 broken of 3 images(?s:.*)cell-1"):
        load_images(folder, Data(), 1, 2)


@pytest.mark.parametrize("place", ["images", "labels"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_link_that_leads_nowhere_is_named_with_its_target(folder: Path, place: str, suffix: str) -> None:
    (folder / place / "cell-1.png").unlink()
    path = folder / place / f"cell-1{suffix}"
    path.symlink_to("/mnt/elsewhere/cell.png")
    with pytest.raises(UnreadableFile) as caught:
        load_images(folder, Data(), 1, 2)
    assert str(caught.value).endswith(
        f"{path} is a link that leads nowhere: expected a file at /mnt/elsewhere/cell.png, found none. Bring it there, "
        "or put the file itself in the place of the link"
    )


@pytest.mark.parametrize("suffix", [".json", ".geojson", ".zip", ".roi"])
def test_shapes_behind_a_link_that_leads_nowhere_are_named(folder: Path, suffix: str) -> None:
    shutil.rmtree(folder / "labels")
    for stem in ("cell-1", "cell-2"):
        (folder / "images" / f"{stem}.png").unlink()
    ((folder if suffix == ".json" else folder / "images") / f"cell-0{suffix}").symlink_to("nowhere")
    with pytest.raises(
        UnreadableFile, match=rf"cell-0{suffix} is a link that leads nowhere: expected a file at nowhere"
    ):
        load_images(folder, Data(), 1, 2)


def test_images_that_viewers_turn_are_read_as_stored_and_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    for stem, orientation in (("cell-0", 1), ("cell-1", 3)):
        exif[0x0112] = orientation
        path = folder / "images" / f"{stem}.png"
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"), exif=exif)
        path.unlink()
    with Image.open(folder / "images" / "cell-2.png") as image:
        stored = np.asarray(image)
    (folder / "images" / "cell-2.png").unlink()
    tifffile.imwrite(folder / "images" / "cell-2.tif", stored, extratags=[(274, 3, 1, 3, True)])
    with caplog.at_level("WARNING", logger="training"):
        images = load_images(folder, Data(), 1, 2)
    np.testing.assert_array_equal(images[2].image_yxc[..., 0], stored)
    (message,) = caplog.messages
    assert message == (
        "2 of 3 images have an orientation other than upright (EXIF, or TIFF's tag), "
        f"{folder}/images/cell-1.jpg is the first: they are read as stored, as the service reads them, where viewers "
        "turn them. Unless the masks were drawn on the pictures as stored, save these upright and draw on those"
    )


def test_a_mask_of_the_turned_picture_is_refused_for_its_size_and_the_orientation_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "images" / "cell-1.png").unlink()
    Image.fromarray(np.zeros((16, 12), dtype=np.uint8)).save(folder / "images" / "cell-1.jpg", exif=exif)
    with pytest.raises(
        MaskMismatch, match=r"1 broken of 3 (?s:.*)cell-1.png is 12 x 16 px, its image 16 x 12 px; turn one of them, or"
    ):
        load_images(folder, Data(), 1, 2)
    assert "1 of 3 images have an orientation other than upright" in caplog.text


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_an_empty_file_is_said_to_be_that(folder: Path, kind: str) -> None:
    (folder / kind / "cell-1.png").write_bytes(b"")
    with pytest.raises(UnreadableFile, match=rf"{kind}/cell-1.png is empty \(0 bytes\); expected .* Copy it again"):
        load_images(folder, Data(), 1, 2)


def test_every_broken_file_is_listed_at_once(folder: Path) -> None:
    for stem in ("cell-0", "cell-2"):
        (folder / "labels" / f"{stem}.png").write_bytes(b"no image")
    with pytest.raises(DatasetError) as caught:
        load_images(folder, Data(), 1, 2)
    assert "2 broken of 3" in str(caught.value)
    assert "cell-0" in str(caught.value)
    assert "cell-2" in str(caught.value)


def test_empty_labels_overall_are_refused(folder: Path) -> None:
    for path in (folder / "labels").iterdir():
        Image.fromarray(np.zeros((12, 16), dtype=np.uint8)).save(path)
    with pytest.raises(NothingToLearn, match="all 3 are background"):
        load_images(folder, Data(), 1, 2)


def test_one_class_only_is_refused(folder: Path) -> None:
    for path in (folder / "labels").iterdir():
        Image.fromarray(np.ones((12, 16), dtype=np.uint8)).save(path)
    with pytest.raises(NothingToLearn, match="one class only"):
        load_images(folder, Data(kind="semantic"), 1, 2)


@pytest.mark.parametrize("values", [(7, 7, 7), (1, 2, 3)])
def test_one_object_that_fills_each_image_is_refused(folder: Path, values: tuple[int, ...]) -> None:
    for path, value in zip(sorted((folder / "labels").iterdir()), values, strict=True):
        Image.fromarray(np.full((12, 16), value, dtype=np.uint8)).save(path)
    with pytest.raises(NothingToLearn, match=r"no label of .* is background \(0\), and no image holds two objects"):
        load_images(folder, Data(), 1, 2)


def test_touching_objects_without_background_are_taken(folder: Path) -> None:
    mask = np.arange(1, 13, dtype=np.uint8).repeat(16).reshape(12, 16)
    for path in (folder / "labels").iterdir():
        Image.fromarray(mask).save(path)
    assert len(load_images(folder, Data(), 1, 2)) == 3


def test_classes_without_the_first_are_taken(folder: Path) -> None:
    for path in (folder / "labels").iterdir():
        Image.fromarray(np.repeat(np.array([1, 2], dtype=np.uint8), 96).reshape(12, 16)).save(path)
    assert len(load_images(folder, Data(kind="semantic"), 1, 3)) == 3


def test_a_negative_number_is_named_and_may_mark_what_is_unknown(folder: Path) -> None:
    write(folder, "cell-9", np.zeros((4, 4), dtype=np.uint8), 4 * np.eye(4, dtype=np.int16) - 3, ".tif")
    with pytest.raises(MaskMismatch, match=r"cell-9\.tif holds the value -3; .*set data\.ignore_value = -3"):
        load_images(folder, Data(), 1, 2)
    assert load_images(folder, Data(ignore_value=-3), 1, 2)[-1].labels_yx.max() == 1


def test_strange_mask_values_are_listed(folder: Path) -> None:
    with pytest.raises(MaskMismatch, match=r"holds the values \[700\]; expected \(0, 1, 2\)"):
        load_images(folder, Data(kind="semantic"), 1, 3)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_labels_of_64_bits_are_taken_by_their_values(tmp_path: Path, dtype: type) -> None:
    mask: NDArray[Any] = np.array([[0, 1, 2**31 - 1]], dtype=dtype)
    write(tmp_path, "a", np.ones((1, 3), dtype=np.uint8), mask, ".tif")
    assert load_images(tmp_path, Data(), 1, 2)[0].labels_yx.tolist() == [[0, 1, 2**31 - 1]]
    write(tmp_path, "a", np.ones((1, 3), dtype=np.uint8), mask + dtype(1), ".tif")
    with pytest.raises(MaskMismatch, match=r"a.tif holds the value 2147483648; expected .* to 2147483647. Number"):
        load_images(tmp_path, Data(), 1, 2)
    taken = load_images(tmp_path, Data(ignore_value=2**31), 1, 2)[0]
    assert taken.labels_yx.tolist() == [[1, 2, IGNORE]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_that_are_whole_are_labels(tmp_path: Path, dtype: type) -> None:
    """ImageJ saves label images of 32 bits as floats."""
    mask: NDArray[Any] = np.array([[0, 1, 2048]], dtype=dtype)
    write(tmp_path, "a", np.ones((1, 3), dtype=np.uint8), mask, ".tif")
    assert load_images(tmp_path, Data(), 1, 2)[0].labels_yx.tolist() == [[0, 1, 2048]]
    assert load_images(tmp_path, Data(ignore_value=1), 1, 2)[0].labels_yx.tolist() == [[0, IGNORE, 2048]]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.5, "0.5"), (np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (1e30, r"1e\+30")]
)
def test_other_floats_are_no_labels(tmp_path: Path, value: float, shown: str) -> None:
    mask = np.array([[0, 1, value, value]], dtype=np.float32)
    write(tmp_path, "a", np.ones((1, 4), dtype=np.uint8), mask, ".tif")
    expected = f"a.tif holds float32 values, 2 of which are no whole numbers, such as {shown}; .* in grey of 16 bits"
    with pytest.raises(MaskMismatch, match=expected):
        load_images(tmp_path, Data(), 1, 2)


def test_floats_beyond_the_largest_number_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", np.ones((1, 2), dtype=np.uint8), np.array([[0, 2.0**31]], dtype=np.float32), ".tif")
    with pytest.raises(MaskMismatch, match=r"a.tif holds the value 2147483648; expected .* to 2147483647. Number"):
        load_images(tmp_path, Data(), 1, 2)


def test_complex_numbers_are_no_labels(tmp_path: Path) -> None:
    write(tmp_path, "a", np.ones((4, 4), dtype=np.uint8), np.ones((4, 4), dtype=np.complex64), ".tif")
    with pytest.raises(MaskMismatch, match="complex64 values; expected whole numbers"):
        load_images(tmp_path, Data(), 1, 2)


def test_two_images_of_one_stem_are_refused(folder: Path) -> None:
    tifffile.imwrite(folder / "images" / "cell-1.tif", np.zeros((12, 16), dtype=np.uint8))
    with pytest.raises(MaskMismatch, match="share a stem"):
        load_images(folder, Data(), 1, 2)


def test_a_table_chooses_the_images(folder: Path) -> None:
    (folder / "index.csv").write_text("id,kind\ncell-0,good\ncell-1,bad\ncell-2,good\n")
    data = Data(include=Include(csv="index.csv", column="kind", value="good"))
    assert [image.stem for image in load_images(folder, data, 1, 2)] == ["cell-0", "cell-2"]


def test_a_folder_without_the_table_is_taken_whole_and_the_log_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Data(include=Include(csv="index.csv", column="kind", value="good"))
    with caplog.at_level("INFO", logger="training"):
        assert [image.stem for image in load_images(folder, data, 1, 2)] == ["cell-0", "cell-1", "cell-2"]
    assert caplog.messages == [
        f"{folder}: layout folders, 3 images in images/, 3 masks in labels/",
        f"{folder / 'index.csv'} is not there: all 3 images are taken",
    ]


@pytest.mark.parametrize("table", ["", "id,colour\ncell-0,red\n"])
def test_a_table_that_lacks_the_column_is_refused(folder: Path, table: str) -> None:
    (folder / "index.csv").write_text(table)
    with pytest.raises(MissingFile, match=r"the table .*index.csv"):
        load_images(folder, Data(include=Include(csv="index.csv", column="kind", value="good")), 1, 2)


def test_the_background_of_an_incomplete_image_is_unknown(folder: Path) -> None:
    whole, part = load_images(folder, Data(incomplete=("cell-1",)), 1, 2)[:2]
    assert (whole.labels_yx >= 0).all()
    np.testing.assert_array_equal(part.labels_yx, np.where(whole.labels_yx == 0, IGNORE, whole.labels_yx))


def test_an_incomplete_image_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(MissingFile, match=r"data.incomplete names cell-9, .*3 images.*such as cell-0"):
        load_images(folder, Data(incomplete=("cell-9",)), 1, 2)
