"""The split depends on names alone; folds part the images; blocks keep neighbours together."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.datasets import AnnotatedImage, load_images
from training.data.splits import describe_split, is_validation, split_images, take_side, validation_stems
from training.errors import NothingToLearn, RecipeError
from training.options import Data
from training.recipe import read_recipe

STEMS = [f"{number:02d}" for number in range(24)]


def images(count: int) -> list[AnnotatedImage]:
    blank: Any = np.zeros((1, 1), dtype=np.int32)
    return [AnnotatedImage(stem, blank[..., None], blank) for stem in STEMS[:count]]


def test_the_split_is_fixed_for_ever() -> None:
    stems = [f"image-{number}" for number in range(20)]
    assert [stem for stem in stems if is_validation(stem, 0.15)] == ["image-1", "image-9", "image-15"]


@pytest.mark.parametrize(
    "data",
    [Data(), Data(fold=(2, 3)), Data(split="blocks", validation_fraction=0.25), Data(split="blocks", fold=(2, 3))],
)
def test_either_form_of_a_name_falls_on_the_same_side(data: Data) -> None:
    # in the order of characters a composed "ö" follows "z", a decomposed one follows "o"
    stems = [f"{letter}{number}" for letter in "aöoz" for number in range(6)]
    apart = [normalize("NFD", stem) for stem in stems]
    assert apart != stems
    assert {normalize("NFC", stem) for stem in validation_stems(apart, data)} == validation_stems(stems, data)


@given(st.text(min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_fraction_keeps_those_chosen_before(stem: str, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    assert is_validation(stem, larger) or not is_validation(stem, smaller)


@given(
    st.lists(st.text(min_size=1), min_size=1, max_size=40, unique=True),
    st.sampled_from(["hash", "blocks"]),
    st.integers(1, 4),
    st.integers(2, 6),
)
def test_folds_part_the_images(stems: list[str], split: Any, stretches: int, count: int) -> None:
    folds = [
        validation_stems(stems, Data(split=split, stretches=stretches, fold=(number, count)))
        for number in range(1, count + 1)
    ]
    assert sorted(stem for fold in folds for stem in fold) == sorted(stems)


def test_blocks_take_a_contiguous_part_of_each_half() -> None:
    data = Data(split="blocks", stretches=2, fold=(2, 4))
    assert validation_stems(STEMS, data) == {"03", "04", "05", "15", "16", "17"}


def test_blocks_without_a_fold_take_the_end_of_each_stretch() -> None:
    assert validation_stems(STEMS, Data(split="blocks", validation_fraction=0.25)) == set(STEMS[-6:])


def test_a_fold_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match="no fold 4 of 3"):
        split_images(images(6), Data(fold=(4, 3)))


def test_a_side_without_images_is_refused() -> None:
    with pytest.raises(NothingToLearn, match="3 for training and 0 for validation"):
        split_images(images(3), Data(validation_fraction=0.0001))


def test_one_side_can_be_taken_where_the_other_is_empty() -> None:
    none, folder = Data(validation_fraction=0), Path("few")
    chance = Data(validation_fraction=0.0001)
    for data in (none, chance):
        assert len(take_side(images(3), data, "all", folder)) == 3
        assert len(take_side(images(3), data, "training", folder)) == 3
        with pytest.raises(NothingToLearn, match="no image of few is kept for validation; choose another --split"):
            take_side(images(3), data, "validation", folder)
    assert take_side(images(3), none, "validation", folder, required=False) == []
    with pytest.raises(NothingToLearn, match="is kept for validation"):
        take_side(images(3), chance, "validation", folder, required=False)


def test_no_validation_can_be_asked_for() -> None:
    training, validation = split_images(images(3), Data(validation_fraction=0))
    assert (len(training), len(validation)) == (3, 0)


@pytest.mark.parametrize("fold", ["2", "0/3", "4/3", "1/1", "a/b", "1/2/3", ""])
def test_a_fold_that_is_none_is_refused(fold: str) -> None:
    with pytest.raises(RecipeError, match="is no fold"):
        read_recipe("nuclei").with_fold(fold)


def test_a_fold_becomes_part_of_the_recipe() -> None:
    assert read_recipe("nuclei").with_fold("2/5").data.fold == (2, 5)


@pytest.mark.data
def test_the_nuclei_recipe_reads_its_541_images_and_holds_85_back(data_root: Path) -> None:
    recipe = read_recipe("nuclei")
    training, validation = split_images(load_images(data_root / "nuclei-dsb2018", recipe.data, 1, 3), recipe.data)
    assert (len(training), len(validation)) == (456, 85)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (Data(validation_fraction=0), "No image was kept"),
        (Data(), "below 0.15"),
        (Data(fold=(2, 5)), "Part 2 of 5 equal parts"),
        (Data(split="blocks", stretches=2, fold=(1, 4)), "Part 1 of 4 contiguous parts of each of 2 stretches"),
        (Data(split="blocks", validation_fraction=0.25), "Part 4 of 4 contiguous parts of the sorted names"),
    ],
)
def test_the_split_is_told_as_it_is(data: Data, words: str) -> None:
    assert words in describe_split(data)
