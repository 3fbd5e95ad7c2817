"""The survey of a folder: what the masks mean, how large the objects are, what the grey values and names tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from training.data.datasets import IGNORE, load_images
from training.data.survey import Survey, survey_folder
from training.data.survey_images import grey_values, likeness
from training.data.survey_objects import guess_kind, measure_objects
from training.errors import MaskMismatch, MissingFile, UnreadableFile
from training.options import Data


def squares(side: int, count: int, apart: int, size: int = 96) -> NDArray[np.uint16]:
    """Return a mask of ``count`` numbered squares in a row, ``apart`` pixels between them."""
    mask = np.zeros((size, size), dtype=np.uint16)
    for index in range(count):
        left = 8 + index * (side + apart)
        mask[20 : 20 + side, left : left + side] = index + 1
    return mask


def write(folder: Path, name: str, image: NDArray[Any], mask: NDArray[Any]) -> None:
    for kind, array in (("images", image), ("labels", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / kind / f"{name}.tif", array)


def test_the_smallest_objects_of_several_classes_are_those_of_the_class_that_has_the_least() -> None:
    mask = np.zeros((400, 400), dtype=np.int32)
    for y in range(0, 380, 20):
        for x in range(0, 380, 20):
            mask[y : y + 15, x : x + 15] = 1
    alone = measure_objects([mask], "semantic")
    assert (alone.small_area_px, alone.small_class) == (225, None)
    mask[100:115, 100:115] = mask[200:215, 200:215] = 0
    mask[102:106, 102:107] = mask[202:206, 202:207] = 2
    mask[0:3, 0:3] = 2  # a part of an object of the other class
    found = measure_objects([mask], "semantic")
    assert (found.small_area_px, found.small_class) == (20, 2)


def test_objects_with_large_holes_are_counted() -> None:
    mask = squares(12, 4, 6).astype(np.int32)
    mask[24:28, 12:16] = 0  # a hole of an eighth of what is left
    mask[24:26, 30:32] = 0  # a slip
    mask[24:28, 48:52] = 9  # another object lies in this one
    mask[24:28, 62:70] = 0  # open at the side
    assert measure_objects([mask], "instances").hollow == 1 / 5
    assert measure_objects([(mask > 0).astype(np.int32)], "semantic").hollow == 0


def grey(size: int = 96, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(10, 200, (size, size)).astype(np.uint8)


def survey_of(folder: Path) -> Survey:
    return survey_folder(folder)[0]


def test_numbered_objects_are_counted_and_measured(tmp_path: Path) -> None:
    write(tmp_path, "a", grey(), squares(12, 4, apart=0))
    write(tmp_path, "b", grey(seed=1), squares(12, 4, apart=6))
    write(tmp_path, "c", grey(seed=2)[:80], np.zeros((80, 96), dtype=np.uint8))
    survey, data, _ = survey_folder(tmp_path)
    assert (survey.images, survey.empty, survey.channels) == (3, 1, 1)
    assert (survey.smallest_yx, survey.median_yx, survey.largest_yx) == ((80, 96), (96, 96), (96, 96))
    assert (survey.guess.kind, data.kind, data.class_values) == ("instances", "instances", None)
    assert survey.objects.count == 8
    assert survey.objects.touching == 0.5
    assert survey.objects.diameter_px == pytest.approx([2 * 12 / np.pi**0.5] * 3)
    assert survey.objects.small_area_px == 144
    assert survey.foreground == pytest.approx(8 * 144 / (2 * 96 * 96 + 80 * 96))
    assert (survey.grey.dtype, survey.grey.lowest, survey.grey.highest) == ("uint8", 10, 199)


def test_objects_with_numbers_far_above_the_size_of_the_image_are_measured_like_others() -> None:
    mask = squares(12, 4, apart=0).astype(np.int32)
    mask[0] = IGNORE
    numbered = np.where(mask > 0, mask * 500_000_000, mask).astype(np.int32)  # a table by number would take 16 GB
    assert measure_objects([numbered], "instances") == measure_objects([mask], "instances")


def test_objects_that_the_edge_cuts_do_not_count_for_the_diameter() -> None:
    mask = np.zeros((100, 300), dtype=np.int32)
    for index in range(10):
        mask[40:50, 10 + 20 * index : 20 + 20 * index] = index + 1
    mask[0:3, 0:3] = 11
    assert measure_objects([mask], "instances").diameter_px[0] == pytest.approx(2 * 10 / np.pi**0.5)
    assert measure_objects([mask], "instances").small_area_px < 100


def test_objects_that_unannotated_pixels_cut_do_not_count_for_the_diameter() -> None:
    mask = np.zeros((100, 300), dtype=np.int32)
    for index in range(10):
        mask[40:50, 10 + 20 * index : 20 + 20 * index] = index + 1
    mask[60:63, 10:13] = 11
    mask[63:, :] = IGNORE
    assert measure_objects([mask], "instances").diameter_px == pytest.approx([2 * 10 / np.pi**0.5] * 3)
    assert measure_objects([np.where(mask > 0, 1, mask)], "semantic").diameter_px[0] > 10


def test_small_pieces_of_every_class_are_measured() -> None:
    """Large pieces of class 1, small ones of class 2: some within the large ones, most by themselves."""
    mask = np.zeros((200, 400), dtype=np.int32)
    for index in range(8):
        mask[10:40, 10 + 45 * index : 40 + 45 * index] = 1
        mask[20:26, 20 + 45 * index : 26 + 45 * index] = 2
    for place in np.ndindex(4, 10):
        top, left = 60 + 30 * place[0], 20 + 30 * place[1]
        mask[top : top + 6, left : left + 6] = 2
    objects = measure_objects([mask], "semantic")
    assert objects.small_area_px == 36, "the label rule joins all classes: those by themselves are the smallest"
    assert objects.count == 8 + 8 + 40
    assert objects.diameter_px[0] == pytest.approx(2 * 6 / np.pi**0.5)
    within = mask[:50]
    assert measure_objects([within], "semantic").small_area_px == 900, "and those within belong to what is around"


@pytest.mark.parametrize("width", [1, 2, 3, 6, 7, 24])
def test_the_width_of_a_strip_is_its_width(width: int) -> None:
    mask = np.zeros((60, 200), dtype=np.int32)
    mask[20 : 20 + width] = 1
    assert measure_objects([mask], "instances").width_px == pytest.approx(width, rel=0.05, abs=0.5 + 0.5 * (width < 2))


def test_neighbours_part_each_others_width() -> None:
    mask = np.zeros((60, 200), dtype=np.int32)
    mask[10:20], mask[20:30], mask[30:40] = 1, 2, 3
    assert measure_objects([mask], "instances").width_px < 14


def pieces(values: list[int], each: int) -> NDArray[np.int32]:
    """Return a mask with ``each`` separate pixels of every value."""
    mask = np.zeros((2 * len(values), 2 * each), dtype=np.int32)
    for row, value in enumerate(values):
        mask[2 * row, ::2] = value
    return mask


@pytest.mark.parametrize(
    ("marks", "each", "kind", "class_values"),
    [
        ([1], 5, "semantic", (0, 1)),
        ([255], 5, "semantic", (0, 255)),
        ([128, 255], 1, "semantic", (0, 128, 255)),
        ([1, 2, 3], 6, "semantic", (0, 1, 2, 3)),
        ([1, 2, 3], 1, "instances", None),
        (list(range(1, 40)), 1, "instances", None),
        (list(range(1, 40)), 5, "instances", None),
    ],
)
def test_what_the_values_mean_is_guessed(
    marks: list[int], each: int, kind: str, class_values: tuple[int, ...] | None
) -> None:
    guess = guess_kind([pieces(marks, each)], (0, *marks))
    assert (guess.kind, guess.class_values) == (kind, class_values)
    assert guess.reason


def write_coco(folder: Path, categories: list[str]) -> None:
    """Two images of one object for each category, each object in three parts."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for image in range(2):
        tifffile.imwrite(folder / "images" / f"{image}.tif", grey(seed=image))
        images.append({"id": image, "file_name": f"{image}.tif", "height": 96, "width": 96})
        for number in range(len(categories)):
            corners = [(10 + 20 * part, 10 + 20 * number) for part in range(3)]
            parts = [[x, y, x + 12, y, x + 12, y + 12, x, y + 12] for x, y in corners]
            annotations.append(
                {"id": 9 * image + number, "image_id": image, "category_id": number, "segmentation": parts}
            )
    named = [{"id": number, "name": name} for number, name in enumerate(categories)]
    document = {"images": images, "annotations": annotations, "categories": named}
    (folder / "all.json").write_text(json.dumps(document))


@pytest.mark.parametrize("count", [1, 3])
def test_drawn_shapes_are_objects_however_few_and_in_however_many_parts(tmp_path: Path, count: int) -> None:
    write_coco(tmp_path, ["cell", "nucleus", "vessel"][:count])
    survey, data, _ = survey_folder(tmp_path)
    assert (data.kind, data.class_values, survey.guess.reason) == ("instances", None, "shapes are objects")
    assert survey.objects.count == 2 * count


@pytest.mark.parametrize(
    ("categories", "values", "shares"),
    [(("vessel", "cell"), (0, 1, 2), [3 * 144, 3 * 144]), (("cell",), (0, 1), [3 * 144]), (None, None, None)],
)
def test_drawn_shapes_are_classes_where_that_is_said(
    tmp_path: Path, categories: tuple[str, ...] | None, values: tuple[int, ...] | None, shares: list[int] | None
) -> None:
    write_coco(tmp_path, ["cell", "nucleus", "vessel"])
    asked = Data(kind="semantic", categories=categories)
    if shares is None:
        with pytest.raises(MaskMismatch, match=r"expected data\.categories to name them"):
            survey_folder(tmp_path, asked)
        return
    survey, data, _ = survey_folder(tmp_path, asked)
    assert (data.kind, data.class_values, data.categories) == ("semantic", values, categories)
    assert survey.class_shares[1:] == pytest.approx([share / 96**2 for share in shares])


def test_what_masks_hold_is_not_guessed_where_that_is_said(tmp_path: Path) -> None:
    write(tmp_path, "a", grey(), squares(12, 3, apart=6) * np.uint16(5))
    survey, data, _ = survey_folder(tmp_path, Data(kind="semantic"))
    assert (data.kind, data.class_values) == ("semantic", (0, 5, 10, 15))
    assert survey.class_shares[1:] == pytest.approx([144 / 96**2] * 3)
    survey, data, _ = survey_folder(tmp_path, Data(kind="semantic", class_values=(0, 15, 10, 5)))
    assert data.class_values == (0, 15, 10, 5)
    (tmp_path / "labels" / "a.tif").unlink()
    write(tmp_path, "a", grey(), np.where(squares(12, 3, apart=6) > 0, 255, 0).astype(np.uint8))
    assert survey_of(tmp_path).guess.kind == "semantic"
    survey, data, _ = survey_folder(tmp_path, Data(kind="instances"))
    assert (data.kind, data.class_values, survey.objects.count) == ("instances", None, 1)


def test_masks_of_many_values_are_no_classes_unless_these_are_named(tmp_path: Path) -> None:
    mask = np.arange(96 * 96, dtype=np.uint16).reshape(96, 96) % 20
    write(tmp_path, "a", grey(), mask)
    with pytest.raises(MaskMismatch, match=r"hold 20 values .* expected 16 at most. Name them all \(data.class_values"):
        survey_folder(tmp_path, Data(kind="semantic"))
    _, data, _ = survey_folder(tmp_path, Data(kind="semantic", class_values=tuple(range(20))))
    assert data.kind == "semantic"


def test_two_valued_masks_are_classes_and_their_pieces_objects(tmp_path: Path) -> None:
    mask = np.where(squares(12, 4, apart=6) > 0, 255, 0).astype(np.uint8)
    mask[90, 90] = 255  # a speck of the annotator's
    write(tmp_path, "a", grey(), mask)
    survey, data, _ = survey_folder(tmp_path)
    assert (data.kind, data.class_values) == ("semantic", (0, 255))
    assert survey.class_shares == pytest.approx((1 - 577 / 96**2, 577 / 96**2))
    assert (survey.objects.count, survey.objects.touching) == (4, 0)


@pytest.mark.parametrize(
    ("values", "asked"),
    [((0, 255), None), ((0, 5, 9), Data(kind="semantic")), ((0, 5, 9), Data(class_values=(0, 9, 5))), ((0, 5), None)],
)
def test_images_are_as_a_run_by_what_was_seen_reads_them(
    tmp_path: Path, values: tuple[int, ...], asked: Data | None
) -> None:
    blocks = np.repeat(np.repeat(np.random.default_rng(0).choice(values, (12, 12)), 8, axis=0), 8, axis=1)
    write(tmp_path, "a", grey(), blocks.astype(np.uint8))
    _, data, images = survey_folder(tmp_path, asked)
    (read,) = load_images(tmp_path, data, 1, len(data.class_values or (0, 1)))
    assert [image.digest() for image in images] == [read.digest()]


def test_colour_images_with_transparency_have_three_channels(tmp_path: Path) -> None:
    mask = squares(12, 4, apart=6)
    for name, channels in (("a", 3), ("b", 4), ("c", 3)):
        write(tmp_path, name, grey(), mask)
        (tmp_path / "images" / f"{name}.tif").unlink()
        Image.fromarray(np.stack([grey(seed=seed) for seed in range(channels)], axis=-1)).save(
            tmp_path / "images" / f"{name}.png"
        )
    assert survey_of(tmp_path).channels == 3


def test_one_colour_image_among_grey_ones_is_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path, name, grey(), squares(12, 4, apart=6))
    tifffile.imwrite(tmp_path / "images" / "b.tif", np.stack([grey()] * 3, axis=-1))
    with pytest.raises(UnreadableFile, match=r"1 broken of 3 images.*\n.*b\.tif has shape \(96, 96, 3\)"):
        survey_of(tmp_path)


def test_frames_of_a_sequence_resemble_their_neighbours(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    field = np.repeat(np.repeat(rng.integers(0, 200, (12, 48)), 8, axis=0), 8, axis=1).astype(np.uint8)
    for index in range(12):
        write(tmp_path / "film", f"t{index:03d}", field[:, 2 * index : 2 * index + 96], squares(12, 4, apart=6))
        write(tmp_path / "slides", f"s{index:03d}", rng.permutation(field, axis=1)[:, :96], squares(12, 4, apart=6))
    film, slides = survey_of(tmp_path / "film"), survey_of(tmp_path / "slides")
    assert film.likeness - film.chance > 0.3
    assert abs(slides.likeness - slides.chance) < 0.15
    assert not film.sequences


@pytest.mark.parametrize(
    ("sizes", "depths"),
    [
        ([(96, 96)] * 6 + [(90, 120)] * 6, [1] * 12),
        ([(24, 24)] * 12, [1] * 12),
        ([(96, 96)] * 5, [1] * 5),
        ([(96, 96)] * 12, [1, 257] * 6),
    ],
)
def test_neighbours_resemble_each_other_whatever_their_size_number_and_depth(
    sizes: list[tuple[int, int]], depths: list[int]
) -> None:
    rng = np.random.default_rng(0)
    films = {size: np.kron(rng.integers(0, 200, (20, 60)), np.ones((8, 8))) for size in sorted(set(sizes))}
    frames = [
        (films[(height, width)][:height, 3 * index : 3 * index + width, None] * depth)
        for index, ((height, width), depth) in enumerate(zip(sizes, depths, strict=True))
    ]
    alike, chance = likeness(frames)
    assert alike - chance > 0.3
    alike, chance = likeness([rng.permuted(frame) for frame in frames])
    assert alike - chance < 0.15
    assert likeness(frames[:4]) == (0.0, 0.0)


def test_slices_of_stacks_are_known_by_their_layout(tmp_path: Path) -> None:
    for kind, stack in (("images", [grey(seed=seed) for seed in range(3)]), ("labels", [squares(12, 4, 6)] * 3)):
        (tmp_path / kind).mkdir()
        tifffile.imwrite(tmp_path / kind / "a.tif", np.stack(stack), photometric="minisblack")
    assert survey_of(tmp_path).sequences


def test_saturated_images_of_one_depth_are_seen_among_others() -> None:
    bright = np.full((40, 50, 1), 255, dtype=np.uint8)
    bright[:, :25] = 90
    deep = np.arange(2000, 4000, dtype=np.uint16).reshape(40, 50, 1)
    grey = grey_values([bright, deep])
    assert grey.at_highest == pytest.approx((1000 + 1) / 4000)
    assert (grey.dtype, grey.lowest, grey.highest) == ("uint16", 90, 3999)


@pytest.mark.parametrize(
    ("gold", "silver", "truth", "count"),
    [((), ("01", "02"), "silver", 2), (("02",), ("01", "02"), "gold", 1), (("02",), ("01",), "gold", 1)],
)
def test_silver_truth_is_taken_where_no_sequence_has_gold(
    tmp_path: Path, gold: tuple[str, ...], silver: tuple[str, ...], truth: str, count: int
) -> None:
    for sequence in ("01", "02"):
        (tmp_path / sequence).mkdir()
        tifffile.imwrite(tmp_path / sequence / "t000.tif", grey())
    for name in (*(f"{sequence}_GT" for sequence in gold), *(f"{sequence}_ST" for sequence in silver)):
        (tmp_path / name / "SEG").mkdir(parents=True)
        tifffile.imwrite(tmp_path / name / "SEG" / "man_seg000.tif", squares(12, 4, apart=6))
    survey, data, _ = survey_folder(tmp_path)
    assert (survey.images, data.truth) == (count, truth)


def test_truth_that_is_asked_for_is_not_replaced(tmp_path: Path) -> None:
    for name in ("01/t000.tif", "01_ST/SEG/man_seg000.tif"):
        (tmp_path / name).parent.mkdir(parents=True)
        tifffile.imwrite(tmp_path / name, squares(12, 4, apart=6))
    with pytest.raises(MissingFile, match=r"has no gold truth; .* Change data.truth"):
        survey_folder(tmp_path, Data(truth="gold"))


def test_dark_images_and_hot_pixels_are_seen(tmp_path: Path) -> None:
    dark = np.zeros((96, 96), dtype=np.uint16)
    dark[30, 30:34] = 900
    write(tmp_path, "dark", dark, squares(12, 4, apart=6))
    hot = grey().astype(np.uint16)
    hot[50, 50] = 60_000
    for name in ("hot-1", "hot-2"):
        write(tmp_path, name, hot, squares(12, 4, apart=6))
    seen = survey_of(tmp_path).grey
    assert seen.flat == (1, 1, 0, 0)
    assert seen.hot > 100
    assert seen.highest == 60_000


@pytest.mark.data
def test_real_folders_are_what_their_description_says(data_root: Path) -> None:
    membranes = survey_of(data_root / "em-isbi2012")
    assert (membranes.images, membranes.guess.class_values) == (24, (0, 255))
    assert membranes.likeness - membranes.chance > 0.3, "slices of one stack"
    cells = survey_of(data_root / "phase-t98g")
    assert (cells.images, cells.guess.kind, cells.grey.dtype) == (20, "instances", "uint16")
    assert cells.objects.count > 38 * 20
    with pytest.raises(UnreadableFile, match="expected"):
        survey_of(data_root / "nuclei-dsb2018")
