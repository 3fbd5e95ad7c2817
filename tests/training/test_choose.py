"""The choice of a recipe: always a valid one, and the one that a person would write for the folders known here."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.choosing.choose import choose_recipe, recipe_name
from training.choosing.choose_size import Budget, length_caution
from training.choosing.choose_validation import choose_validation
from training.choosing.plan import Plan
from training.data.splits import validation_stems
from training.data.survey import Survey, survey_folder
from training.data.survey_images import Grey
from training.data.survey_objects import Guess, Objects
from training.options import Data, Include, Schedule
from training.recipe import Recipe, read_recipe


def pace(recipe: Recipe) -> float:
    """Seconds of a step as on two CPU cores: by the pixels and the width of the net, half as many in bf16."""
    pixels = recipe.schedule.batch * recipe.tile_input_px**2 / recipe.net.downscale**2
    whole: float = 0.7 * pixels / 444**2 * (recipe.net.base_width / 32) ** 1.5
    return 0.002 + (whole / 2 if recipe.schedule.precision == "bf16" else whole)


def budget(minutes: float | None = None, steps: int | None = None, device: str = "cpu") -> Budget:
    return Budget(minutes, steps, 60.0, device, (True, "this one computes in bfloat16"), pace)


NUCLEI = Survey(
    images=40,
    empty=0,
    smallest_yx=(256, 256),
    median_yx=(256, 320),
    largest_yx=(256, 320),
    channels=1,
    grey=Grey("uint8", 0.0, 255.0, 1e-4, 1.4, (0, 0, 0, 0)),
    guess=Guess("instances", None, "80 values"),
    class_shares=(0.85, 0.15),
    annotated=1.0,
    objects=Objects(900, 40, (8.0, 20.0, 49.0), 6.0, 90.0, 21.0, 0.27),
)
LARGE = replace(NUCLEI, objects=Objects(300, 40, (44.0, 69.0, 118.0), 28.0, 200.0, 1060.0, 0.1))
MEMBRANES = replace(
    NUCLEI,
    guess=Guess("semantic", (0, 255), "two values"),
    class_shares=(0.22, 0.78),
    objects=Objects(2700, 24, (9.0, 45.0, 82.0), 12.0, 9.0, 16.0, 0.0),
    likeness=0.4,
)


def plan(survey: Survey, *, minutes: float | None = None, steps: int | None = None, device: str = "cpu") -> Plan:
    kind, values = survey.guess.kind, survey.guess.class_values
    data = Data(kind=kind, class_values=values)
    if not survey.shows:
        survey = replace(survey, shows={f"image-{index}": frozenset({1}) for index in range(survey.images)})
    return choose_recipe(survey, data, budget(minutes, steps, device), "My cells")


def reason(chosen: Plan, what: str) -> str:
    """Reason of the one choice whose name begins with ``what``."""
    (found,) = [choice for choice in chosen.choices if choice.what.startswith(what)]
    return found.reason


sides = st.integers(8, 4000)
shares = st.floats(0.0005, 0.9995)


@st.composite
def surveys(draw: st.DrawFn) -> Survey:
    low, middle, high = sorted(draw(st.lists(st.floats(0, 900), min_size=3, max_size=3)))
    heights, widths = (sorted(draw(st.lists(sides, min_size=3, max_size=3))) for _ in range(2))
    classes = draw(st.integers(2, 6))
    kind = draw(st.sampled_from(["instances", "semantic"]))
    values = tuple(range(classes)) if kind == "semantic" else None
    foreground = draw(shares)
    count = 2 if values is None else classes
    flat = sorted(draw(st.lists(st.integers(0, 5), min_size=4, max_size=4)), reverse=True)
    return Survey(
        images=draw(st.integers(5, 300)) if draw(st.booleans()) else draw(st.integers(1, 12)),
        empty=0,
        smallest_yx=(heights[0], widths[0]),
        median_yx=(heights[1], widths[1]),
        largest_yx=(heights[2], widths[2]),
        channels=draw(st.integers(1, 5)),
        grey=Grey("uint16", 0, 65535, draw(st.floats(0, 0.1)), 1.5, (flat[0], flat[1], flat[2], flat[3])),
        guess=Guess("semantic" if kind == "semantic" else "instances", values, "drawn"),
        class_shares=(1 - foreground, *(foreground / (count - 1) for _ in range(count - 1))),
        annotated=1.0,
        objects=Objects(
            100, 5, (low, middle, high), draw(st.floats(0, 900)), draw(st.floats(0, 900)), low**2, draw(shares)
        ),
        likeness=draw(st.floats(-0.2, 1)) if draw(st.booleans()) else 0.0,
    )


lengths = st.one_of(
    st.just((None, None)),
    st.tuples(st.floats(0.01, 3000), st.none()),
    st.tuples(st.none(), st.integers(1, 50_000)),
)


@settings(max_examples=300)
@given(survey=surveys(), length=lengths, device=st.sampled_from(["cpu", "cuda"]))
def test_every_survey_gives_a_valid_recipe(
    survey: Survey, length: tuple[float | None, int | None], device: str
) -> None:
    chosen = plan(survey, minutes=length[0], steps=length[1], device=device)
    recipe = Recipe.model_validate(chosen.recipe.model_dump(mode="json"))
    assert recipe == chosen.recipe
    assert recipe.augmentation.scale[0] <= recipe.augmentation.scale[1]
    assert recipe.schedule.max_minutes == length[0]
    if length[1] is not None:
        assert recipe.schedule.steps == length[1]
    validating = validation_stems([f"image-{index}" for index in range(survey.images)], recipe.data)
    assert len(validating) < survey.images, "none is left for training"
    assert bool(validating) == (survey.images > 2)
    assert recipe.tile_output_px <= min(survey.median_yx) + max(recipe.geometry.y.step, recipe.geometry.y.minimum)


@settings(max_examples=50)
@given(survey=surveys())
def test_the_written_recipe_reads_back(survey: Survey, tmp_path_factory: pytest.TempPathFactory) -> None:
    chosen = plan(survey)
    path = tmp_path_factory.mktemp("plan") / "run" / "recipe.toml"
    chosen.write(path)
    assert read_recipe(str(path)) == chosen.recipe
    text = path.read_text()
    assert all(f"# {line}" in text for line in chosen.as_text().splitlines())
    assert tomllib.loads(text)["name"] == "my-cells"


def test_small_touching_objects_get_a_thin_boundary_at_full_resolution() -> None:
    recipe = plan(NUCLEI).recipe
    assert (recipe.targets.scheme, recipe.targets.boundary_px, recipe.net.downscale) == ("boundary", 1, 1)
    assert (recipe.labels.method, recipe.labels.foreground, recipe.labels.min_area_px) == ("watershed", (1, 2), 10)
    assert recipe.augmentation.scale == (0.62, 1.7), "sizes differ sixfold, and the smallest stay 5 px wide"
    assert (recipe.weights.class_balance, recipe.tile_output_px) == (0.0, 260)


def test_large_objects_are_seen_in_blocks_of_pixels() -> None:
    chosen = plan(LARGE)
    assert chosen.recipe.net.downscale == 2
    assert reason(chosen, "downscale 2") == "objects are 69 px across (median), the smallest 5 % 44 px"
    huge = replace(LARGE, objects=replace(LARGE.objects, diameter_px=(90.0, 180.0, 300.0)))
    assert plan(huge).recipe.net.downscale == 4
    thin = replace(LARGE, objects=replace(LARGE.objects, width_px=6.0))
    assert plan(thin).recipe.net.downscale == 1


def test_touching_cells_with_thin_arms_get_a_contact_class() -> None:
    armed = replace(NUCLEI, objects=Objects(1400, 20, (24.0, 47.0, 86.0), 9.7, 198.0, 220.0, 0.42))
    recipe = plan(armed).recipe
    assert (recipe.targets.scheme, recipe.targets.boundary_px, recipe.net.downscale) == ("contact", 4, 2)
    apart = replace(armed, objects=replace(armed.objects, touching=0.0))
    assert plan(apart).recipe.targets.scheme == "boundary"


def strips(thin: int, wide: int) -> NDArray[np.int32]:
    """Mask of numbered strips, ``thin`` of them 2 px wide and ``wide`` of them 12 px."""
    mask = np.zeros((3 + 5 * thin + 15 * wide, 40), dtype=np.int32)
    tops = [*range(3, 3 + 5 * thin, 5), *range(3 + 5 * thin, len(mask), 15)]
    for number, top in enumerate(tops, start=1):
        mask[top : top + (2 if number <= thin else 12), 5:35] = number
    return mask


@pytest.mark.parametrize(("thin", "wide", "scheme"), [(0, 60, "boundary"), (1, 59, "boundary"), (2, 58, "contact")])
def test_objects_without_an_interior_beside_a_boundary_get_a_contact_class(thin: int, wide: int, scheme: str) -> None:
    chosen = plan(replace(NUCLEI, masks_yx=(strips(thin, wide),)))
    assert chosen.recipe.targets.scheme == scheme
    assert (chosen.recipe.labels.method, chosen.recipe.labels.seeds) == ("watershed", (1,))
    if scheme == "contact":
        assert chosen.recipe.targets.classes == ("background", "object", "contact")
        assert reason(chosen, "scheme contact, 2 px wide") == (
            "beside a boundary of 1 px 2 of 60 objects have no interior, or one in pieces, beside contacts 0"
        )


def test_a_boundary_is_as_narrow_as_its_objects_need() -> None:
    wide = replace(NUCLEI, objects=replace(NUCLEI.objects, diameter_px=(40.0, 64.0, 80.0), width_px=30.0))
    assert plan(wide).recipe.targets.boundary_px == 4
    assert plan(replace(wide, masks_yx=(strips(0, 9) % 7,))).recipe.targets.boundary_px == 4
    six = np.zeros((40, 40), dtype=np.int32)
    six[5:11, 5:35], six[20:35, 5:35] = 1, 2
    assert plan(replace(wide, masks_yx=(six,))).recipe.targets.boundary_px == 2


def test_objects_that_no_scheme_finds_keep_their_boundary_class() -> None:
    pairs = np.zeros((40, 40), dtype=np.int32)
    pairs[5:35:3, 5:35], pairs[6:35:3, 5:35] = np.arange(1, 11)[:, None], np.arange(11, 21)[:, None]
    chosen = plan(replace(NUCLEI, masks_yx=(pairs,)))
    assert chosen.recipe.targets.scheme == "boundary"
    assert "20 of 20 objects have no interior, or one in pieces, beside contacts 20" in chosen.as_text()


@pytest.mark.parametrize(("hollow", "filled"), [(0.0, True), (0.02, True), (0.3, False)])
def test_holes_are_filled_but_where_objects_have_some(hollow: float, filled: bool) -> None:
    chosen = plan(replace(NUCLEI, objects=replace(NUCLEI.objects, hollow=hollow)))
    assert chosen.recipe.labels.fill_holes == filled
    assert ("holes kept: 99 % of the objects have at least 21 px, 30% of them have holes" in chosen.as_text()) != filled


def test_two_valued_masks_get_the_papers_weight_map() -> None:
    chosen = plan(MEMBRANES)
    recipe = chosen.recipe
    assert (recipe.targets.scheme, recipe.labels.method) == ("foreground", "components")
    assert (recipe.weights.w0, recipe.weights.sigma_px) == (10, 5)
    assert recipe.net.downscale == 1, "the background between is thin"
    assert (recipe.data.split, recipe.data.fold) == ("blocks", (5, 5))


def test_several_classes_get_their_own_scheme() -> None:
    recipe = plan(
        replace(NUCLEI, guess=Guess("semantic", (0, 7, 9), "three values"), class_shares=(0.6, 0.38, 0.02))
    ).recipe
    assert (recipe.targets.scheme, len(recipe.targets.classes), recipe.data.class_values) == ("classes", 3, (0, 7, 9))
    assert (recipe.labels.foreground, recipe.weights.w0, recipe.weights.class_balance) == ((1, 2), 0, 0.5)


def test_a_class_that_fills_the_images_makes_no_tile_as_large_as_they_are() -> None:
    large = replace(NUCLEI, smallest_yx=(4000, 4000), median_yx=(4000, 4000), largest_yx=(4000, 4000))
    large = replace(large, objects=replace(large.objects, diameter_px=(90.0, 900.0, 3000.0)))
    tissue = replace(large, guess=Guess("semantic", (0, 1, 2), "three"), class_shares=(0.1, 0.5, 0.4))
    assert plan(tissue).recipe.tile_output_px < 400
    assert plan(large).recipe.tile_output_px >= 3000


def test_a_share_that_is_not_nothing_is_not_said_to_be_nothing() -> None:
    classes = replace(NUCLEI, guess=Guess("semantic", (0, 1, 2), "three"), class_shares=(0.8997, 0.1, 0.0003))
    assert reason(plan(classes), "scheme") == "3 classes: 90.0%, 10.0%, 0.03%"
    assert reason(plan(classes), "class_balance 0.5").startswith("the rarest class has 0.03% of the pixels")


def test_a_class_that_no_pixel_has_is_not_balanced() -> None:
    full = replace(NUCLEI, class_shares=(0.0, 1.0))
    assert plan(full).recipe.weights.class_balance == 0


@pytest.mark.parametrize(
    ("images", "fold", "fraction"),
    [(1, None, 0), (2, None, 0), (3, (1, 3), 0), (4, (1, 4), 0), (8, (1, 8), 0), (20, (1, 7), 0), (541, None, 0.15)],
)
def test_few_images_are_not_spent_on_validation(images: int, fold: tuple[int, int] | None, fraction: float) -> None:
    data = plan(replace(NUCLEI, images=images)).recipe.data
    assert (data.fold, data.validation_fraction) == (fold, fraction)


def test_the_net_is_as_large_as_the_time_allows() -> None:
    an_hour, a_minute = plan(NUCLEI).recipe, plan(NUCLEI, minutes=1).recipe
    assert an_hour.net.base_width == 32
    assert an_hour.schedule.max_minutes is None
    assert a_minute.net.base_width == 8
    assert a_minute.schedule.max_minutes == 1
    assert plan(replace(NUCLEI, median_yx=(1040, 1388)), device="cuda").recipe.net.base_width == 64
    few, many = plan(NUCLEI, steps=200).recipe, plan(NUCLEI, steps=5000).recipe
    assert (few.net.base_width, few.schedule.steps) == (8, 200)
    assert (many.net.base_width, many.schedule.steps) == (32, 5000)


def test_the_default_length_is_an_hour_by_the_measured_step() -> None:
    chosen = plan(NUCLEI)
    schedule = chosen.recipe.schedule
    assert 50 < schedule.steps * pace(chosen.recipe) / 60 / 0.85 <= 60
    assert "a step takes" in reason(chosen, "steps")
    assert "minutes in all" in reason(chosen, "steps")


def test_the_faster_precision_is_taken() -> None:
    def slow_in_bf16(recipe: Recipe) -> float:
        return 2.0 if recipe.schedule.precision == "bf16" else 1.0

    for able, expected in ((True, "fp32"), (False, "fp32")):
        slow = Budget(None, None, 60.0, "cpu", (able, "measured"), slow_in_bf16)
        assert choose_recipe(NUCLEI, Data(), slow, "x").recipe.schedule.precision == expected
    assert plan(NUCLEI).recipe.schedule.precision == "bf16"


def test_the_grey_range_follows_what_the_images_hold() -> None:
    def percentile(**changes: object) -> float:
        grey = replace(NUCLEI.grey, **changes)  # type: ignore[arg-type]
        (step,) = plan(replace(NUCLEI, grey=grey)).recipe.normalization
        return float(getattr(step, "max_percentile", -1))

    assert percentile() == 99.8
    assert percentile(at_highest=0.005) == 99.0, "saturated"
    assert percentile(flat=(9, 2, 0, 0)) == 99.98, "dark: two images are of one value up to 99.8"
    assert percentile(flat=(9, 2, 2, 2)) == 99.8, "two blank images have no range anywhere"
    sparse = replace(NUCLEI, class_shares=(0.999, 0.001))
    assert "0.10% of the pixels" in reason(plan(sparse), "normalization percentiles 1 to 99.98")
    colours = plan(replace(NUCLEI, channels=3)).recipe
    assert not getattr(colours.normalization[0], "per_channel", True)


@pytest.mark.parametrize(
    ("name", "expected"), [("My Cells (2)", "my-cells-2"), ("---", "images"), ("T98G_phase", "t98g-phase")]
)
def test_names_of_folders_become_names_of_recipes(name: str, expected: str) -> None:
    assert recipe_name(name) == expected


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "include", "expected"),
    [
        (
            "nuclei-dsb2018",
            Include(csv="index.csv", column="kind", value="grey_fluorescence"),
            {"scheme": "boundary", "boundary_px": 1, "downscale": 1, "tile": 260, "classes": 3, "split": "hash"},
        ),
        (
            "phase-t98g",
            None,
            {"scheme": "contact", "boundary_px": 4, "downscale": 2, "tile": 776, "classes": 3, "split": "hash"},
        ),
        (
            "em-isbi2012",
            None,
            {"scheme": "foreground", "boundary_px": 1, "downscale": 1, "tile": 388, "classes": 2, "split": "blocks"},
        ),
    ],
)
def test_real_folders_get_what_their_shipped_recipes_say(
    data_root: Path, folder: str, include: Include | None, expected: dict[str, object]
) -> None:
    survey, data, _ = survey_folder(data_root / folder, Data(include=include))
    recipe = choose_recipe(survey, data, budget(), folder).recipe
    assert expected == {
        "scheme": recipe.targets.scheme,
        "boundary_px": recipe.targets.boundary_px,
        "downscale": recipe.net.downscale,
        "tile": recipe.tile_output_px,
        "classes": len(recipe.targets.classes),
        "split": recipe.data.split,
    }
    assert (recipe.net.base_width, recipe.net.depth) == (32, 4)


def showing(*classes: str, images_only: str = "") -> Survey:
    """Survey of images that show the classes of these digits each; some of them for training alone."""
    shows = {f"image-{index}": frozenset(map(int, digits)) for index, digits in enumerate(classes)}
    only = frozenset(f"image-{index}" for index in images_only)
    return replace(NUCLEI, images=len(classes), shows=shows, training_only=only)


@pytest.mark.parametrize(
    ("classes", "likeness"),
    [
        (["", "", "1", "", "", "", "1", ""], 0.0),
        (["1", "1", "1", "1", "1", "1", "12", "1"], 0.0),
        (["1", "1", "1", "1", "1", "1", "", ""], 0.9),
        (["1", "", "1", *[""] * 137], 0.0),
    ],
)
def test_objects_are_left_to_both_sides_and_every_class_to_training(classes: list[str], likeness: float) -> None:
    survey = replace(showing(*classes), likeness=likeness)
    data, choice = choose_validation(survey, Data())
    validating = validation_stems(list(survey.shows), data)
    learnt = {kind for stem, kinds in survey.shows.items() if stem not in validating for kind in kinds}
    assert learnt == {int(digit) for digit in "".join(classes)}
    assert any(survey.shows[stem] for stem in validating)
    assert data.fold is not None
    assert choice.what in {f"validation part {data.fold[0]} of {data.fold[1]}", "validation the last fifth"}


@pytest.mark.parametrize(("images", "fold"), [(3, (3, 3)), (4, (4, 4)), (5, (5, 5)), (200, (5, 5))])
def test_a_block_of_slices_or_frames_validates_however_unlike(images: int, fold: tuple[int, int]) -> None:
    data, choice = choose_validation(replace(showing(*["1"] * images), sequences=True), Data())
    assert (data.split, data.fold) == ("blocks", fold)
    assert choice.reason == "by their layout images are frames or slices, so a block of them validates"
    assert choice.what == f"validation the last {'fifth' if images >= 5 else f'of {images}'}"


@pytest.mark.parametrize(
    ("survey", "validating"),
    [
        (replace(showing(*["1"] * 8), sequences=True), 1),
        (showing(*["1"] * 20), 3),
        (showing(*["1"] * 400), 60),
    ],
)
def test_the_images_that_validate_are_counted(survey: Survey, validating: int) -> None:
    assert reason(plan(survey), "validate_every").startswith(f"validated on {validating}: ")


def test_the_images_that_validate_are_counted_in_folders_with_parts() -> None:
    shows = {f"{part}-{index}": frozenset({1}) for part in ("train", "test") for index in range(7)}
    chosen = choose_recipe(replace(NUCLEI, images=14, shows=shows), Data(parts=("train", "test")), budget(), "cells")
    assert reason(chosen, "validate_every") == "validated on 7: enough to choose the net by"


def test_the_usual_part_validates_where_it_leaves_objects_to_both_sides() -> None:
    data, choice = choose_validation(showing(*["1"] * 8), Data())
    assert (data.fold, choice.what, choice.reason) == ((1, 8), "validation part 1 of 8", "1 of 8 images")


def test_images_for_training_alone_do_not_judge() -> None:
    survey = showing("1", "1", "", "", images_only="0")
    data, _ = choose_validation(survey, Data())
    assert validation_stems(list(survey.shows), data) == {"image-1"}


def test_none_validates_where_one_image_alone_shows_objects() -> None:
    data, choice = choose_validation(showing("", "1", "", ""), Data())
    assert (data.fold, data.validation_fraction, choice.what) == (None, 0.0, "validation none")
    assert "leaves objects to both sides" in choice.reason


@pytest.mark.parametrize(("side", "count", "share"), [(8192, 8, 0.5), (8192, 800, 0.0), (512, 8, 0.0), (8192, 0, 0.0)])
def test_tiles_are_drawn_around_objects_where_few_would_show_one(side: int, count: int, share: float) -> None:
    size = (side, side)
    objects = replace(NUCLEI.objects, count=5 * count, images=5, diameter_px=(50.0, 60.0, 70.0))
    survey = replace(NUCLEI, smallest_yx=size, median_yx=size, largest_yx=size, objects=objects)
    chosen = plan(survey)
    assert chosen.recipe.augmentation.foreground_share == share
    assert any(choice.what == "foreground_share 0.5" for choice in chosen.choices) == (share > 0)


@pytest.mark.parametrize(
    ("steps", "minutes", "title", "remedy"),
    [(35, None, "About 35 steps", "--steps 1500"), (70, 1.5, "About 35 steps", "--minutes 65")],
)
def test_a_run_too_short_to_teach_a_fresh_net_is_told(
    steps: int, minutes: float | None, title: str, remedy: str
) -> None:
    caution = length_caution(Schedule(steps=steps, max_minutes=minutes))
    assert caution is not None
    assert caution.title == title
    assert f"Give {remedy} or more" in caution.advice
    assert length_caution(Schedule(steps=600, max_minutes=minutes)) is None


def test_the_least_object_is_that_of_the_class_whose_objects_are_the_smallest() -> None:
    tissue = replace(
        MEMBRANES,
        guess=Guess("semantic", (0, 1, 2), "three values"),
        class_shares=(0.7, 0.29, 0.01),
        objects=replace(MEMBRANES.objects, small_area_px=20.0, small_class=2),
    )
    chosen = plan(replace(tissue, shows={f"image-{index}": frozenset({1, 2}) for index in range(tissue.images)}))
    assert chosen.recipe.labels.min_area_px == 10
    said = "99 % of the objects of class 2, the smallest ones, have at least 20 px"
    assert reason(chosen, "components, min_area_px 10") == said
