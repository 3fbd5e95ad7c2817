"""A card says of its figures only what is so."""

from __future__ import annotations

import pytest
import torch

from training.packaging.card import run_card
from training.recipe import Recipe
from training.runs.checkpoint import Provenance
from training.runs.state import fresh_state


@pytest.mark.parametrize(
    ("keep", "validation", "words", "not_words"),
    [
        ("best", ["a"], "chosen by these images", "did not choose it"),
        ("last", ["a"], "these images did not choose it", "chosen by these images"),
        ("last", [], "Not validated: every image was trained on", "Means over"),
    ],
)
def test_the_card_tells_what_the_validation_images_have_chosen(
    tiny_recipe: Recipe, keep: str, validation: list[str], words: str, not_words: str
) -> None:
    torch.manual_seed(0)
    schedule = tiny_recipe.schedule.model_copy(update={"keep": keep})
    recipe = tiny_recipe.model_copy(update={"schedule": schedule})
    split = {"training": ["b"], "validation": validation}
    checkpoint = fresh_state(recipe, "cpu").checkpoint(recipe, Provenance(split), resumable=False)
    readme = run_card(checkpoint, recipe, version="1.0.0", author="A", license_text="MIT", command="fit").readme
    assert words in readme
    assert not_words not in readme
