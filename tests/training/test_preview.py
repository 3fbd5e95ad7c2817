"""unet-train preview: it shows the run's own tiles, and says what a person should look at."""

from __future__ import annotations

import io
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model.label_rule import LabelRule
from training.cli import main
from training.data.datasets import IGNORE, AnnotatedImage, load_images
from training.data.splits import split_images
from training.data.tiles import TileDataset, class_weights, prepare
from training.options import Data, Targets
from training.recipe import Recipe
from training.report.facts import ImageFacts, cautions, class_shares, image_facts
from training.report.pictures import GRID, class_picture, display_size, heat_picture, resize
from training.report.preview import OnDemand, strip, view_tiles

RECIPE = """
name = "tiny"
tile_output_px = 60
data = { validation_fraction = 0.3 }
net = { base_width = 4, depth = 2 }
"""

Scheme = Literal["foreground", "boundary", "contact"]


def images_of(folder: Path, recipe: Recipe) -> list[AnnotatedImage]:
    return load_images(folder, recipe.data, recipe.net.in_channels, len(recipe.targets.classes))


def image(labels_yx: NDArray[np.int32], image_yx: NDArray[np.uint8] | None = None) -> AnnotatedImage:
    if image_yx is None:
        image_yx = np.random.default_rng(0).integers(0, 200, labels_yx.shape).astype(np.uint8)
        image_yx[0, 0] = 255
    return AnnotatedImage("one", image_yx[..., None], labels_yx)


def facts_of(recipe: Recipe, labels_yx: NDArray[np.int32], image_yx: NDArray[np.uint8] | None = None) -> ImageFacts:
    return image_facts(image(labels_yx, image_yx), recipe, validates=False)


def titles(facts: list[ImageFacts], recipe: Recipe) -> list[str]:
    return [caution.title for caution in cautions(facts, recipe)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, nuclei_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("preview")
    (folder / "tiny.toml").write_text(RECIPE)
    arguments = ["preview", "--recipe", str(folder / "tiny.toml"), "--data", str(nuclei_folder), "--count", "3"]
    assert main([*arguments, "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_what_is_shown_is_what_the_run_learns_from(tiny_recipe: Recipe, nuclei_folder: Path) -> None:
    training, _ = split_images(images_of(nuclei_folder, tiny_recipe), tiny_recipe.data)
    wc = class_weights(training, tiny_recipe)
    views, highest = view_tiles(training, tiny_recipe, wc, 9)
    dataset = TileDataset(prepare(training, tiny_recipe), tiny_recipe, wc)  # as the trainer makes it
    size = display_size((tiny_recipe.tile_output_px,) * 2, 448)
    for number in (0, 3, 8):  # the last one is of the second round
        tile, targets, weights = (part.numpy() for part in dataset[number])
        assert np.array_equal(views[number].classes, resize(class_picture(targets), size))
        weights = np.where(targets == IGNORE, 0, weights)
        assert np.array_equal(views[number].weights, resize(heat_picture(weights, highest), size))
        assert views[number].values == pytest.approx((tile.min(), tile.mean(), tile.max()))
        assert views[number].stem == dataset.draw(number)[0].image.stem
    assert highest == max(float(dataset[number][2].max()) for number in range(9))


def test_the_grid_stands_out_on_images_that_are_bright(tiny_recipe: Recipe) -> None:
    labels = good_labels()
    bright = image(labels, np.where(labels > 0, 0, 255).astype(np.uint8))
    (view,), _ = view_tiles([bright], tiny_recipe, class_weights([bright], tiny_recipe), 1)
    lines = (view.grid == GRID).all(axis=-1)
    assert 0.02 < lines.mean() < 0.4
    beside = view.grid[~lines].astype(int) @ np.array([299, 587, 114]) // 1000
    assert np.percentile(beside, 98) < (np.array(GRID) @ np.array([299, 587, 114]) // 1000) * 0.7


def test_images_are_prepared_once_and_only_where_they_are_asked_for(tiny_recipe: Recipe, nuclei_folder: Path) -> None:
    images = images_of(nuclei_folder, tiny_recipe)
    on_demand = OnDemand(images, tiny_recipe)
    assert len(on_demand) == len(images)
    assert on_demand[2] is on_demand[2]
    assert on_demand[2].image is images[2]
    assert [prepared.image.stem for prepared in on_demand[1:3]] == [images[1].stem, images[2].stem]


def test_an_undeformed_tile_is_described_so_and_a_deformed_one_by_its_numbers(
    tiny_recipe: Recipe, nuclei_folder: Path
) -> None:
    training, _ = split_images(images_of(nuclei_folder, tiny_recipe), tiny_recipe.data)
    wc = class_weights(training, tiny_recipe)
    still = tiny_recipe.augmentation.model_copy(update={"probability": 0.0, "flip": False, "rotate": False})
    (view,), _ = view_tiles(training, tiny_recipe.model_copy(update={"augmentation": still}), wc, 1)
    assert view.description.endswith("zoomed 1.00 times, turned 0 degrees, not deformed")
    moved = tiny_recipe.augmentation.model_copy(update={"scale": (2.0, 2.0), "flip": False, "rotate": False})
    (view,), _ = view_tiles(training, tiny_recipe.model_copy(update={"augmentation": moved}), wc, 1)
    assert re.search(r"zoomed 2\.00 times, turned 0 degrees, displaced by up to [1-9]\d* px$", view.description)


def test_a_strip_holds_six_pictures_and_a_scale(tiny_recipe: Recipe, nuclei_folder: Path) -> None:
    training, _ = split_images(images_of(nuclei_folder, tiny_recipe), tiny_recipe.data)
    (view,), highest = view_tiles(training, tiny_recipe, class_weights(training, tiny_recipe), 1)
    picture = strip(view, highest)
    assert picture.shape[1] > 5 * picture.shape[0]
    scale = picture[-24, -view.weights.shape[1] // 3 :]  # a row through the colours below the weights
    assert (np.ptp(scale.astype(int), axis=0) > 50).all()


def test_the_page_and_the_pictures_are_written(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [
        "index.html",
        "tile-0000.png",
        "tile-0001.png",
        "tile-0002.png",
    ]
    with Image.open(io.BytesIO((written / "tile-0001.png").read_bytes())) as picture:
        assert picture.size[0] > 1000
    page = (written / "index.html").read_text()
    assert page.count("<article") == 3
    assert page.count("data:image/png;base64,") == 18
    assert page.count(">validation</td>") == 1
    assert page.count(">training</td>") == 7
    assert "Only 1 of 8 images validates" in page


def test_the_page_asks_no_other_machine(written: Path) -> None:
    page = (written / "index.html").read_text()
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')>\s]+)""", page)
    assert links
    assert [link for link in links if not link.startswith(("data:", "#"))] == []
    assert "@import" not in page


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--count", "0"], "--count 0 shows nothing"),
        (["--fold", "3/2"], "--fold 3/2 is no fold"),
        (["--data", "/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(
    nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    fixed = ["preview", "--recipe", "synthetic", "--data", str(nuclei_folder), "--out", str(tmp_path / "out")]
    assert main([*fixed, *arguments]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert reason in message
    assert not (tmp_path / "out").exists()


def test_an_image_is_measured(tiny_recipe: Recipe) -> None:
    labels = np.zeros((50, 80), dtype=np.int32)
    labels[5:15, 5:25] = 3
    labels[30:34, 40:44] = 9
    labels[:, 70:] = IGNORE
    facts = facts_of(tiny_recipe, labels)
    assert (facts.size_yx, facts.channels, facts.dtype) == ((50, 80), 1, "uint8")
    assert facts.diameters_px == pytest.approx((2 * (200 / np.pi) ** 0.5, 2 * (16 / np.pi) ** 0.5))
    assert facts.longest_px == 20
    assert facts.annotated == pytest.approx(7 / 8)
    assert facts.foreground == pytest.approx(216 / 3500)
    assert (facts.lowest, facts.highest, facts.at_highest) == (0, 255, 1 / 4000)


def test_parts_of_a_class_are_its_objects(tiny_recipe: Recipe) -> None:
    semantic = tiny_recipe.model_copy(update={"data": tiny_recipe.data.model_copy(update={"kind": "semantic"})})
    labels = np.zeros((50, 80), dtype=np.int32)
    labels[5:15, 5:25] = labels[30:34, 40:44] = 1
    assert len(facts_of(semantic, labels).diameters_px) == 2
    assert len(facts_of(tiny_recipe, labels).diameters_px) == 1


def test_shares_of_classes_leave_out_what_nobody_annotated(tiny_recipe: Recipe) -> None:
    labels = np.zeros((10, 10), dtype=np.int32)
    labels[:2], labels[5:] = 1, IGNORE
    assert class_shares([image(labels)], tiny_recipe).tolist() == pytest.approx([0.6, 0.4])


def good_labels() -> NDArray[np.int32]:
    labels = np.zeros((100, 100), dtype=np.int32)
    labels[10:25, 10:25], labels[50:70, 50:70] = 1, 2
    return labels


@pytest.mark.parametrize("background", [0, 99_000_000])
def test_large_object_numbers_give_the_facts_of_small_ones(tiny_recipe: Recipe, background: int) -> None:
    near = np.full((100, 100), min(background, 1), dtype=np.int32)
    near[10:30, 10:40], near[50:60, 50:60], near[0], near[::20, 90] = 3, 5, -1, 9
    far = np.select([near < 0, near > 1, near == 1], [near, near * 100_000_000 // 9 + 1_990_000_000, background], 0)
    tracemalloc.start()
    found = facts_of(tiny_recipe, far.astype(np.int32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == facts_of(tiny_recipe, near)
    assert found.scattered == 1
    assert peak < 10_000_000


def test_a_good_folder_raises_no_caution(tiny_recipe: Recipe) -> None:
    facts = [replace(facts_of(tiny_recipe, good_labels()), stem=str(n), validates=n < 3) for n in range(9)]
    assert titles(facts, tiny_recipe) == []


def strange(kind: str) -> tuple[NDArray[np.int32], NDArray[np.uint8] | None]:
    labels, picture = good_labels(), np.random.default_rng(0).integers(0, 255, (100, 100)).astype(np.uint8)
    match kind:
        case "without contrast":
            picture[:] = 7
        case "separate pieces":
            labels[:] = 0
            labels[::10, ::10] = 1
            labels[0:9, 0:9] = 1
        case "soft edges":
            smooth = ndimage.gaussian_filter(255.0 * (labels > 0), 1.5)
            labels = np.round(smooth).astype(np.int32)
        case "empty":
            labels[:] = 0
            labels[0:3, 0:3] = 1
        case "longer than half":
            labels[80:90, 10:50] = 3
        case "smaller than":
            labels[90:93, 90:93] = 3
        case "Masks where 255":
            labels[72:] = 255
            labels[30:33, 30:33] = 4
        case "Saturated":
            picture[:12] = 255
        case "mostly not annotated":
            labels[40:] = IGNORE
        case "Images smaller":
            return labels[:25, :25], picture[:25, :25]
    return labels, picture


@pytest.mark.parametrize(
    "kind",
    [
        "without contrast",
        "separate pieces",
        "soft edges",
        "empty",
        "longer than half",
        "smaller than",
        "Masks where 255",
        "Saturated",
        "mostly not annotated",
        "Images smaller",
    ],
)
def test_what_a_person_should_look_at_is_named(tiny_recipe: Recipe, kind: str) -> None:
    good = [replace(facts_of(tiny_recipe, good_labels()), stem=str(n), validates=n < 3) for n in range(9)]
    odd = replace(facts_of(tiny_recipe, *strange(kind)), stem="odd")
    found = [caution for caution in cautions([*good, odd], tiny_recipe) if kind in caution.title]
    assert [caution.stems for caution in found] == [("odd",)]


def fitting(scheme: Scheme, recipe: Recipe, width_px: int = 1) -> Recipe:
    """Recipe for numbered objects under a scheme."""
    names = ("background", "object") if scheme == "foreground" else ("background", "object", "third")
    rule = LabelRule() if scheme == "foreground" else LabelRule(method="watershed", foreground=(1, 2), seeds=(1,))
    targets = Targets(classes=names, scheme=scheme, boundary_px=width_px)
    return recipe.model_copy(update={"targets": targets, "labels": rule})


@pytest.mark.parametrize(("scheme", "told"), [("foreground", 0), ("contact", 0), ("boundary", 1)])
def test_objects_that_a_named_scheme_cannot_find_are_told(tiny_recipe: Recipe, scheme: Scheme, told: int) -> None:
    thin = good_labels()
    thin[80:82, 10:30] = 3
    recipe = fitting(scheme, tiny_recipe)
    for others, expected in ((4, told), (30, 0)):  # 1 of 11 is many, and 1 of 63 is not
        facts = [facts_of(recipe, labels) for labels in (thin, *[good_labels()] * others)]
        found = [title for title in titles(facts, recipe) if "have no interior" in title]
        assert found == ["By scheme boundary, 1 of 11 objects have no interior, or one in pieces"] * expected


@pytest.mark.parametrize(
    ("scheme", "width", "advice"),
    [
        ("boundary", 1, 'find them: set targets.scheme = "contact"'),
        ("boundary", 3, 'find them: lower targets.boundary_px (3), or set targets.scheme = "contact"'),
        ("contact", 3, "find them: lower targets.boundary_px (3), or scale the images up."),
        ("contact", 1, "find them: scale the images up."),
    ],
)
def test_what_finds_lost_objects_is_told(tiny_recipe: Recipe, scheme: Scheme, width: int, advice: str) -> None:
    recipe = fitting(scheme, tiny_recipe, width)
    facts = replace(facts_of(recipe, good_labels()), lost=1)
    (caution,) = [caution for caution in cautions([facts], recipe) if "have no interior" in caution.title]
    assert advice in caution.advice


@pytest.mark.parametrize("scheme", ["boundary", "contact"])
def test_a_narrower_class_is_no_advice_where_it_loses_as_many_objects(tiny_recipe: Recipe, scheme: Scheme) -> None:
    recipe = fitting(scheme, tiny_recipe, 3)
    facts = replace(facts_of(recipe, good_labels()), lost=1, lost_beside_a_pixel=1, lost_by_contact=1)
    (caution,) = [caution for caution in cautions([facts], recipe) if "have no interior" in caution.title]
    assert caution.advice == "Even a net without a fault does not find them: scale the images up."


def test_what_a_narrower_class_loses_is_counted(tiny_recipe: Recipe) -> None:
    thin = good_labels()
    thin[80:84, 10:30] = 3
    facts = facts_of(fitting("boundary", tiny_recipe, 3), thin)
    assert (facts.lost, facts.lost_beside_a_pixel, facts.lost_by_contact) == (1, 0, 0)


def test_nobody_is_told_to_cross_validate_on_one_image(tiny_recipe: Recipe) -> None:
    facts = replace(facts_of(tiny_recipe, good_labels()), validates=False)
    one, two = (cautions([facts] * count, tiny_recipe)[-1] for count in (1, 2))
    assert one.advice == "No figure will say anything about other images. Annotate another."
    assert two.advice.endswith("Cross-validate with --fold 1/N to --fold N/N.")


def test_contacts_are_no_advice_where_they_lose_as_many_objects(tiny_recipe: Recipe) -> None:
    torn = good_labels()
    torn[60:90, 10:40] = np.arange(30)[:, None] % 3 // 2 * 7  # one object in ten strips
    torn[80:82, 10:30] = 0
    recipe = fitting("boundary", tiny_recipe)
    facts = replace(facts_of(recipe, torn), scattered=0)
    assert (facts.lost, facts.lost_by_contact) == (1, 1)
    (caution,) = [caution for caution in cautions([facts], recipe) if "have no interior" in caution.title]
    assert caution.advice == "Even a net without a fault does not find them: scale the images up."


@pytest.mark.parametrize(
    ("values", "mark"),
    [((0, 1, 255), 255), ((0, 1, 2, 65_535), 65_535), ((0, 128, 255), 0), ((0, 255), 0), ((0, 1, 2), 0)],
)
def test_the_highest_value_beside_classes_from_0_on_may_mark_what_is_unknown(
    tiny_recipe: Recipe, values: tuple[int, ...], mark: int
) -> None:
    classes = tuple(f"class {number}" for number in range(len(values)))
    data = Data(kind="semantic", class_values=values)
    recipe = tiny_recipe.model_copy(update={"data": data, "targets": Targets(classes=classes, scheme="classes")})
    labels = np.arange(100, dtype=np.int32)[:, None] % len(values) * np.ones((1, 100), dtype=np.int32)
    assert facts_of(recipe, labels).mark == mark
    assert facts_of(recipe, np.where(labels == len(values) - 1, 0, labels)).mark == 0


def test_the_highest_number_of_many_is_an_object_like_others(tiny_recipe: Recipe) -> None:
    labels = good_labels()
    labels[72:] = 255
    assert facts_of(tiny_recipe, labels).mark == 255
    for odd in (254, 65_535):
        other = labels.copy()
        other[30:33, 30:33] = odd
        assert facts_of(tiny_recipe, other).mark == 0
    small = good_labels()
    small[75:90, 75:90] = 255
    assert facts_of(tiny_recipe, small).mark == 0


def test_a_value_for_what_is_unknown_that_no_mask_holds_is_told(tiny_recipe: Recipe) -> None:
    recipe = tiny_recipe.model_copy(update={"data": Data(ignore_value=99)})
    partly = good_labels()
    partly[90:] = IGNORE
    whole = [facts_of(recipe, good_labels()) for _ in range(3)]
    told = "No mask holds data.ignore_value = 99"
    assert told in titles(whole, recipe)
    assert told not in titles([*whole, facts_of(recipe, partly)], recipe)
    assert told not in titles(whole, tiny_recipe)


def test_an_only_object_in_several_pieces_is_told_but_for_specks(tiny_recipe: Recipe) -> None:
    labels = np.zeros((100, 100), dtype=np.int32)
    labels[10:20, 10:20] = 255
    labels[50, 50] = 255
    assert facts_of(tiny_recipe, labels).scattered == 0
    labels[50:60, 50:60] = 255
    assert facts_of(tiny_recipe, labels).scattered == 1
    labels[80:90, 80:90] = 7
    assert facts_of(tiny_recipe, labels).scattered == 0


@pytest.mark.parametrize("sigma_px", [0.7, 1.0, 3.0])
def test_smoothed_masks_have_soft_edges(tiny_recipe: Recipe, sigma_px: float) -> None:
    smooth = ndimage.gaussian_filter(255.0 * (good_labels() > 0), sigma_px)
    assert facts_of(tiny_recipe, np.round(smooth).astype(np.int32)).soft


def test_scaled_masks_and_jpegs_have_soft_edges(tiny_recipe: Recipe) -> None:
    mask = Image.fromarray(((good_labels() > 0) * 255).astype(np.uint8))
    scaled = mask.resize((163, 163), Image.Resampling.BICUBIC)
    stored = io.BytesIO()
    mask.save(stored, "JPEG", quality=75)
    for picture in (scaled, Image.open(stored)):
        assert facts_of(tiny_recipe, np.asarray(picture).astype(np.int32)).soft


@pytest.mark.parametrize(("side", "apart"), [(1, 1), (2, 0), (2, 1), (5, 0)])
def test_many_small_objects_have_no_soft_edges(tiny_recipe: Recipe, side: int, apart: int) -> None:
    labels = np.zeros((100, 100), dtype=np.int32)
    for number, place in enumerate(np.ndindex(9, 9), start=1):
        top, left = (10 + (side + apart) * index for index in place)
        labels[top : top + side, left : left + side] = number
    assert not facts_of(tiny_recipe, labels).soft


def test_different_depths_and_few_validation_images_are_told(tiny_recipe: Recipe) -> None:
    facts = [replace(facts_of(tiny_recipe, good_labels()), stem=str(n), validates=n == 0) for n in range(9)]
    facts[4] = replace(facts[4], dtype="uint16")
    found = cautions(facts, tiny_recipe)
    assert [caution.title for caution in found] == [
        "Only 1 of 9 images validates",
        "Images of different depths: uint16, uint8",
    ]
    assert [caution.stems for caution in found] == [("0",), ("4",)]


def test_a_split_that_leaves_no_image_to_validate_is_told_in_log_and_page(
    nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE.replace("0.3", "0.0"))
    arguments = ["preview", "--recipe", str(tmp_path / "tiny.toml"), "--data", str(nuclei_folder), "--count", "1"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    advice = "No figure will say anything about other images. Cross-validate with --fold 1/N to --fold N/N."
    assert f"Only 0 of 8 images validate. {advice}" in caplog.messages
    page = (tmp_path / "out" / "index.html").read_text()
    assert f"<li><strong>Only 0 of 8 images validate</strong>.<p>{advice}</p></li>" in page


def test_tiles_that_seldom_show_an_object_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, array in (("images", np.random.default_rng(0).integers(0, 255, (900, 900))), ("labels", good_labels())):
        (tmp_path / name).mkdir()
        plane = np.zeros((900, 900), dtype=np.uint8)
        plane[: array.shape[0], : array.shape[1]] = array
        Image.fromarray(plane).save(tmp_path / name / "one.png")
    file = tmp_path / "tiny.toml"
    for share, told in ((0.0, 1), (0.5, 0)):
        file.write_text(f"{RECIPE.replace('0.3', '0.0')}augmentation = {{ foreground_share = {share} }}\n")
        caplog.clear()
        arguments = ["--recipe", str(file), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
        assert main(["preview", *arguments, "--count", "1"]) == 0
        found = [message for message in caplog.messages if "of the tiles show an object" in message]
        assert len(found) == told
        assert all("augmentation.foreground_share = 0.5" in message for message in found)


def test_many_images_are_counted_not_listed(tiny_recipe: Recipe) -> None:
    facts = [replace(facts_of(tiny_recipe, good_labels() * 0), stem=f"n{n}", validates=n < 3) for n in range(9)]
    (caution,) = cautions(facts, tiny_recipe)
    assert caution.named == "n0, n1, n2, n3, n4 and 4 more"
