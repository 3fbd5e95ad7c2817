"""What older versions wrote stays usable: recipes that they let pass, checkpoints that lack what came later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.package import Package, read_package
from training.choosing.finetune import package_checkpoint
from training.errors import CheckpointError, RecipeError
from training.evaluation.targets import recipe_of
from training.recipe import Recipe, recipe_from
from training.runs.checkpoint import Checkpoint, load_own_checkpoint

ZOO = Path(__file__).resolve().parents[2] / "model" / "zoo" / "nuclei"
IGNORED = {"class_values": [0, 255]}


def checkpoint(recipe: dict[str, Any]) -> Checkpoint:
    return Checkpoint(recipe=recipe, step=0, elapsed_s=0.0, net={}, averaged=None, optimizer=None, split={})


@pytest.fixture
def package() -> Package:
    """The shipped package, its recipe with class values beside object numbers, as older versions let it pass."""
    shipped = read_package(ZOO)
    recipe = shipped.spec.facts["recipe"]
    recipe = recipe | {"data": recipe["data"] | IGNORED, "name": "older"}
    return replace(shipped, spec=shipped.spec.model_copy(update={"facts": shipped.spec.facts | {"recipe": recipe}}))


@pytest.mark.parametrize("data", [IGNORED, IGNORED | {"kind": "instances"}])
def test_class_values_of_object_numbers_are_left_out_of_a_run(data: dict[str, Any]) -> None:
    recipe = checkpoint({"name": "older", "data": data}).read_recipe()
    assert (recipe.name, recipe.data.kind, recipe.data.class_values) == ("older", "instances", None)
    with pytest.raises(RecipeError, match="means nothing"):
        recipe_from({"name": "older", "data": data}, "mine.toml")


def test_class_values_of_classes_are_kept() -> None:
    assert checkpoint({"name": "older", "data": IGNORED | {"kind": "semantic"}}).read_recipe().data.class_values


def test_class_values_of_object_numbers_are_left_out_of_a_package(package: Package) -> None:
    for recipe in (recipe_of(package, None), package_checkpoint(package).read_recipe()):
        assert (recipe.name, recipe.data.class_values) == ("older", None)


@pytest.mark.parametrize("older", [True, False])
def test_a_run_whose_images_cannot_be_compared_is_resumed_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, older: bool
) -> None:
    recipe, path = Recipe(name="any"), tmp_path / "last.pt"
    digests = {"a": "0123456789abcdef"}
    last = replace(checkpoint(recipe.model_dump(mode="json")), split={"training": ["a"], "validation": []})
    replace(last, digests={} if older else digests).save(path)
    assert load_own_checkpoint(path, last.split, digests, processes=1).split == last.split
    messages = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [message.startswith(f"{path} was written by an older version") for message in messages] == [True] * older


def test_a_recipe_that_is_not_understood_is_named_by_its_value() -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoint({"name": "older", "tile_output_px": 0}).read_recipe()
    assert str(caught.value) == (
        "the checkpoint's recipe is not understood: tile_output_px: Input should be greater than or equal to 1; "
        "found 0. Use it with the version that wrote it, or train again"
    )
