"""Recipes: what ships is valid, what contradicts itself is refused with the reason."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from training.errors import RecipeError
from training.options import Data, Targets
from training.recipe import Recipe, data_from, read_recipe, recipe_from, shipped_recipes

LIMITS: dict[str, tuple[float, float]] = {
    "weights.w0": (0, 10_000),
    "weights.sigma_px": (0.01, 1000),
    "loss.dice": (0, 1000),
    "augmentation.elastic_px": (0, 100_000),
    "augmentation.shift_px": (0, 100_000),
    "augmentation.blur_px": (0, 100_000),
    "augmentation.brightness": (0, 1_000_000),
    "augmentation.noise": (0, 1_000_000),
    "schedule.learning_rate": (1e-9, 100),
    "schedule.weight_decay": (0, 100),
    "schedule.clip_norm": (0, 1_000_000),
    "schedule.max_minutes": (1e-9, 1_000_000),
    "schedule.seed": (0, (1 << 31) - 1),
    "schedule.steps": (1, 1_000_000_000),
    "schedule.batch": (1, 4096),
    "net.base_width": (1, 1024),
}


def with_value(key: str, value: object) -> Recipe:
    table, name = key.split(".")
    return recipe_from({"name": "x", table: {name: value}}, "x.toml")


@pytest.mark.parametrize("key", LIMITS)
def test_numbers_have_both_ends_and_what_is_beyond_them_is_named_with_the_limit(key: str) -> None:
    lowest, highest = LIMITS[key]
    for value in LIMITS[key]:
        with_value(key, value)
    whole = key in {"schedule.seed", "schedule.steps", "schedule.batch", "net.base_width"}
    for value in [lowest - 1, highest + 1, 1 << 63, *([] if whole else [math.inf, -math.inf, math.nan, 1e40])]:
        with pytest.raises(
            RecipeError, match=rf"^x.toml: {key}: Input should be (less|greater) than .*\d; found "
        ) as told:
            with_value(key, value)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "lowest", "highest"), [("scale", 1 / 16, 16), ("gamma", 0.01, 100), ("contrast", 0.01, 100)]
)
def test_ranges_have_ends_of_their_own(name: str, lowest: float, highest: float) -> None:
    with_value(f"augmentation.{name}", [lowest, highest])
    for beyond in ([1e-9, 1e-9], [1, math.inf], [0.9 * lowest, 1], [1, 1.1 * highest]):
        with pytest.raises(RecipeError, match=rf"augmentation.{name}.\d: Input should be .* than or equal to \d"):
            with_value(f"augmentation.{name}", beyond)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid_and_named_after_their_file(name: str) -> None:
    assert read_recipe(name).name == name


def test_the_recipes_that_the_documentation_names_ship() -> None:
    assert {"nuclei", "synthetic"} <= set(shipped_recipes())


def test_defaults_are_the_papers() -> None:
    recipe = Recipe(name="paper")
    assert (recipe.tile_input_px, recipe.tile_output_px) == (572, 388)
    assert (recipe.net.base_width, recipe.net.depth, recipe.net.dropout) == (64, 4, 0.5)
    assert (recipe.weights.w0, recipe.weights.sigma_px) == (10, 5)
    assert (recipe.schedule.optimizer, recipe.schedule.momentum, recipe.schedule.batch) == ("sgd", 0.99, 1)
    assert recipe.augmentation.elastic_px == 10


def test_a_recipe_survives_the_way_through_json() -> None:
    recipe = read_recipe("nuclei")
    assert recipe_from(recipe.model_dump(mode="json"), "json") == recipe


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"tile_output_px": 256}, "the next one is 260"),
        ({"targets": {"scheme": "boundary"}}, "needs 3 classes, targets.classes names 2"),
        ({"targets": {"scheme": "boundary", "classes": ["a", "b", "c"]}, "data": {"kind": "semantic"}}, "instances"),
        ({"targets": {"scheme": "classes", "classes": ["only"]}}, "names 1 class: .* then at least one more"),
        ({"labels": {"foreground": [2]}}, "channel 2, the net has 2"),
        ({"data": {"class_values": [0, 1, 2], "kind": "semantic"}}, "3 values for 2 classes"),
        ({"data": {"class_values": [0, 255]}}, r"class_values = \[0, 255\] means nothing for data.kind = 'instances'"),
        (
            {"augmentation": {"scale": [2, 0.5]}},
            "augmentation.scale: .* begins with 2 and ends with 0.5; give the lower",
        ),
        ({"augmentation": {"gamma": [2, 0.5]}}, "augmentation.gamma: .* lower end first"),
        ({"augmentation": {"contrast": [2, 0.5]}}, "augmentation.contrast: .* lower end first"),
        ({"schedule": {"learning_rate": 0}}, "^x.toml: schedule.learning_rate: .* greater than 0; found 0$"),
        ({"name": "Two Words"}, r"name: String should match pattern '.*'; found 'Two Words'$"),
        ({"name": "A" * 99}, r"; found 'A{59} \.\.\.$"),
        ({"net": {"depth": "x"}, "schedule": {"batch": 0}}, "depth: .*; found 'x'; schedule.batch: .*; found 0$"),
        ({"normalization": [{"id": "scale"}]}, r"normalization.0: .*'scale_range'.*; found {'id': 'scale'}$"),
        ({"scoring": {"measures": []}}, "scoring.measures is empty"),
        ({"scoring": {"measures": ["seg"]}, "data": {"kind": "semantic"}}, "'seg' needs data.kind = 'instances'"),
        ({"scoring": {"measures": ["seg"]}}, "scoring.choose_by must name the figure of 'seg'"),
        ({"scoring": {"choose_by": "seg"}}, "'seg' needs 'seg' in measures"),
        ({"scoring": {"choose_by": "rand_error"}}, "needs 'isbi' in measures"),
        ({"scoring": {"choose_by": "ap@0.5"}, "data": {"kind": "semantic"}}, "needs 'ap' in measures"),
    ],
)
def test_contradictions_are_refused_with_the_reason(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        recipe_from({"name": "x", **values}, "x.toml")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            {"schedule": {"learning_rat": 1}},
            "schedule.learning_rat is no key of a recipe; did you mean schedule.learning_",
        ),
        ({"shedule": {"batch": 1}}, "shedule is no key of a recipe; did you mean schedule?"),
        ({"weights": {"x": 1}}, "weights.x is no key of a recipe; there is w0, sigma_px, class_balance"),
        ({"data": {"include": {"csv": "a", "column": "b", "valeu": "c"}}}, "did you mean data.include.value?"),
        (
            {"normalization": [{"id": "clip", "mim": 0}]},
            "normalization.0.clip.mim is no key of a recipe; did you mean normalization.0.clip.min?",
        ),
        ({"normalization": [{"id": "clip", "percentile": 0}]}, "there is id, min, max"),
        ({"labels": {"treshold": 0.5}}, "did you mean labels.threshold or labels.seed_threshold?"),
    ],
)
def test_an_unknown_key_is_named_with_those_most_like_it(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(reason)):
        recipe_from({"name": "x", **values}, "x.toml")


def test_an_unknown_recipe_names_those_that_ship() -> None:
    with pytest.raises(RecipeError, match="synthetic"):
        read_recipe("no-such-recipe")


def test_text_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(RecipeError, match="not TOML"):
        read_recipe(str(tmp_path / "broken.toml"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_recipes_of_any_editor_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\r\ncard.description = "Zähler"\r\n', encoding, newline="")
    assert read_recipe(str(tmp_path / "mine.toml")).card.description == "Zähler"


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-16", "UTF-16 (byte 0xff at 0)"),
        ("latin-1", "invalid continuation byte (byte 0xe4 at 10)"),
    ],
)
def test_a_recipe_that_is_not_utf_8_is_refused_with_the_remedy(tmp_path: Path, encoding: str, found: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('title = "Zähler"', encoding)
    with pytest.raises(RecipeError) as caught:
        read_recipe(str(file))
    assert str(caught.value) == f"{file} is not UTF-8: found {found}; save it as UTF-8"


def test_a_folder_of_other_images_takes_neither_table_nor_card(tmp_path: Path) -> None:
    recipe = read_recipe("nuclei")
    own = recipe.for_folder(tmp_path)
    assert own.data.include is None
    assert not own.card.data
    assert own.net == recipe.net
    (tmp_path / "index.csv").write_text("id,kind\n")
    assert recipe.for_folder(tmp_path) is recipe


@pytest.mark.parametrize(
    ("assignment", "alike"),
    [
        ("data.kind=semantic", False),
        ("data.ignore_value=7", False),
        ("data.layout=folders", True),
        ("data.validation_fraction=0.5", True),
        ("schedule.batch=2", True),
        ('targets.classes=["background", "cell", "other"]', True),
    ],
)
def test_recipes_read_labels_alike_whichever_images_they_take(assignment: str, *, alike: bool) -> None:
    recipe = Recipe(name="one", targets=Targets(scheme="classes"))
    assert recipe.reads_labels_as(recipe.with_values([assignment])) is alike


def test_the_number_of_classes_changes_how_classes_are_read() -> None:
    two = Recipe(name="two", data=Data(kind="semantic"), targets=Targets(scheme="classes"))
    three = two.with_values(['targets.classes=["background", "cell", "other"]'])
    assert not two.reads_labels_as(three)


def test_single_values_can_be_changed() -> None:
    recipe = read_recipe("em-isbi2012")
    changed = recipe.with_values(
        ["net.base_width=64", "schedule.max_minutes = 5.5", "augmentation.scale=[0.9, 1.1]", "schedule.optimizer=sgd"]
    )
    assert (changed.net.base_width, changed.schedule.max_minutes) == (64, 5.5)
    assert (changed.augmentation.scale, changed.schedule.optimizer) == ((0.9, 1.1), "sgd")
    undone = changed.with_values(["net.base_width=32", "augmentation.scale=[0.85, 1.2]", 'schedule.optimizer="adamw"'])
    assert undone.schedule.model_copy(update={"max_minutes": None}) == recipe.schedule
    assert (undone.net, undone.augmentation, undone.card) == (recipe.net, recipe.augmentation, recipe.card)
    assert recipe.with_values([]) is recipe


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("schedule.batch", "such as schedule.batch=2"),
        ("schedule.bach=2", r"changes nothing that a recipe has.*did you mean schedule.batch\?$"),
        ("schedule.x=2", "changes nothing that a recipe has.*there is optimizer, learning_rate.*, batch, "),
        ("shedule.batch=2", r"changes nothing that a recipe has.*did you mean schedule\?$"),
        ("x.batch=2", "changes nothing that a recipe has.*there is name, data, net, "),
        ("name.first=2", "changes nothing that a recipe has"),
        ("=2", "changes nothing that a recipe has"),
        ("schedule.batch=0", "schedule.batch=0: schedule.batch: Input should be greater"),
        ("schedule.batch=two", "schedule.batch: Input should be a valid integer"),
        ("tile_output_px=510", "the next one is 516"),
    ],
)
def test_a_change_that_is_none_is_refused(assignment: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        read_recipe("em-isbi2012").with_values([assignment])


def test_how_a_folder_is_read_can_be_said_without_a_recipe() -> None:
    asked = data_from(["data.layout=coco", "data.ignore_value = 255", 'data.categories=["cell", "vessel"]'])
    assert asked == Data(layout="coco", ignore_value=255, categories=("cell", "vessel"))
    assert asked.model_fields_set == {"layout", "ignore_value", "categories"}
    assert data_from([]) is None


@pytest.mark.parametrize(
    ("assignments", "reason"),
    [
        (
            ["data.layout=coco", "schedule.batch=2"],
            "--set schedule.batch changes a recipe, and none is named; give --rec",
        ),
        (["data=2"], "--set data changes a recipe, and none is named"),
        (["data.layuot=coco"], r"changes nothing that a recipe has.*did you mean data.layout\?$"),
        (["data.layout=zip"], "--set data.layout=zip: data.layout: Input should be 'auto', 'folders'"),
        (
            ["data.categories=cell"],
            r"data.categories: Input should be a list, such as 'data.categories=\[\"cell\"\]'; found 'cell'$",
        ),
        (["data.fold=1/5"], r"data.fold: Input should be a list, such as 'data.fold=\[1, 5\]'; found '1/5'$"),
        (["data.incomplete=a"], "data.incomplete: Input should be a list; found 'a'$"),
        (["data.fold=[0, 5]"], "data.fold.0: Input should be greater than or equal to 1; found 0$"),
        (["data.layout"], "--set data.layout changes nothing"),
        (["data.kind=instances", "data.class_values=[0, 1]"], "classes have values, objects have none"),
    ],
)
def test_what_a_folder_cannot_be_read_by_is_refused(assignments: list[str], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        data_from(assignments)
