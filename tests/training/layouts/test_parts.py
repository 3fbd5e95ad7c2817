"""Data folders that part their images themselves: recognised, never mixed, trained and judged by their parts."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from training.cli import main
from training.data.datasets import find_sources, load_images
from training.data.splits import describe_split, split_for_run, split_images
from training.errors import MissingFile, NothingToLearn, RecipeError
from training.layouts.parts import find_parts
from training.options import Data
from training.recipe import Recipe, read_recipe, recipe_from
from training.runs.checkpoint import load_checkpoint

STARDIST = ("train/images", "train/masks", "test/images", "test/masks")
PARTED = Data(parts=("train", "test"))


def fill(folder: Path, *places: str, names: tuple[str, ...] = ("a", "b")) -> Path:
    """Write images and masks of one object; the grey values are those of the place's first letter."""
    for place in places:
        (folder / place).mkdir(parents=True)
        for name in names:
            is_mask = place.endswith(("masks", "labels"))
            array = np.eye(10, 12, dtype=np.uint8) if is_mask else np.full((10, 12), ord(place[1]), dtype=np.uint8)
            tifffile.imwrite(folder / place / f"{name}.tif", array)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The layout of StarDist's data: images of one name in both parts."""
    return fill(tmp_path, *STARDIST)


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory, nuclei_folder: Path) -> Path:
    """Five pictures for training, three for testing."""
    folder = tmp_path_factory.mktemp("parted")
    for number, image in enumerate(sorted((nuclei_folder / "images").iterdir())):
        for source, kind in ((image, "images"), (next((nuclei_folder / "labels").glob(f"{image.stem}.*")), "masks")):
            target = folder / ("train" if number < 5 else "test") / kind
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return folder


def test_parts_are_read_each_as_a_folder_of_its_own(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="training"):
        images = load_images(folder, PARTED, 1, 2)
    assert [image.stem for image in images] == ["train-a", "train-b", "test-a", "test-b"]
    assert [chr(image.image_yxc[0, 0, 0]) for image in images] == ["r", "r", "e", "e"]
    assert f"{folder}: train/ is trained on, test/ validates" in caplog.messages
    assert f"{folder / 'test'}: layout folders, 2 images in images/, 2 masks in masks/" in caplog.messages


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (STARDIST, ("train", "test")),
        (("Train/images", "Train/labels", "TEST/images", "TEST/labels"), ("Train", "TEST")),
        ((*STARDIST, "val/images", "val/labels"), ("train", "val")),
        (("training/images", "training/masks", "valid/images", "valid/masks"), ("training", "valid")),
        (("train/images", "train/masks"), None),
        (("test/images", "test/masks"), None),
        (("train/images", "train/masks", "test/images"), None),
        ((*STARDIST, "images", "labels"), None),
        (("images", "labels"), None),
    ],
)
def test_parts_are_known_by_their_names(tmp_path: Path, places: tuple[str, ...], expected: object) -> None:
    assert find_parts(fill(tmp_path, *places), Data()) == expected


def test_other_parts_are_left_out_and_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(folder, "val/images", "val/labels")
    with caplog.at_level("INFO", logger="training"):
        sources = find_sources(folder, Data(parts=("train", "val")))
    assert [source.stem for source in sources] == ["train-a", "train-b", "val-a", "val-b"]
    assert f"{folder}: train/ is trained on, val/ validates; left out: test/" in caplog.messages


@pytest.mark.parametrize("data", [Data(), Data(split="blocks"), Data(fold=(1, 2))])
def test_parts_are_never_mixed(folder: Path, data: Data) -> None:
    expected = (
        f"{folder} parts its images itself, into train/ and test/, which a split by their names would mix. To train on "
        'train/ and validate on test/, set data.parts = ["train", "test"] in the recipe; to read one of them alone, '
        f"name it: --data {folder / 'test'}"
    )
    with pytest.raises(MissingFile, match=re.escape(expected)):
        find_sources(folder, data)
    assert [source.stem for source in find_sources(folder / "test", data)] == ["a", "b"]


def test_one_part_that_is_missing_is_named_and_a_folder_with_neither_is_taken_whole(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(MissingFile, match=r"has no val/, which data.parts names. Add it, or correct the recipe"):
        find_sources(folder, Data(parts=("train", "val")))
    with caplog.at_level("INFO", logger="training"):
        images = load_images(folder / "test", PARTED, 1, 2)
    assert [image.stem for image in images] == ["a", "b"]
    assert f"{folder / 'test'} has no train/ and no test/: all of its images are taken" in caplog.messages
    with pytest.raises(NothingToLearn, match=r"0 for validation; add images or correct data.parts \(now test/\)"):
        split_images(images, PARTED)


def test_the_parts_decide_alone_which_images_validate(folder: Path) -> None:
    data = PARTED.model_copy(update={"validation_fraction": 0.0, "split": "blocks"})
    training, validation = split_for_run(load_images(folder, data, 1, 2), data, folder)
    assert [image.stem for image in training] == ["train-a", "train-b"]
    assert [image.stem for image in validation] == ["test-a", "test-b"]
    assert describe_split(data) == "The images in test/ validate, those in train/ are trained on."


def test_a_named_recipe_takes_the_parts_of_the_folder(folder: Path, tiny_recipe: Recipe) -> None:
    own = tiny_recipe.for_folder(folder)
    assert own.data == tiny_recipe.data.model_copy(update={"parts": ("train", "test")})
    assert own.for_folder(folder) is own
    assert read_recipe("nuclei").for_folder(folder).data.parts == ("train", "test")
    assert tiny_recipe.for_folder(folder / "train") is tiny_recipe
    assert tiny_recipe.with_fold("1/2").for_folder(folder).data.parts is None
    with pytest.raises(RecipeError, match=r"there is no fold 1/2 where test/ validates \(data.parts\); .* train/ give"):
        own.with_fold("1/2")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"parts": ["train", "test"], "fold": [1, 2]}, "both say which images validate; leave one of them out"),
        ({"parts": ["train", "train"]}, "train and train cannot be told apart"),
        ({"parts": ["train", "train-2"]}, "train and train-2 cannot be told apart"),
        ({"parts": ["a/train", "a/test"]}, "data.parts.0: String should match pattern"),
        ({"parts": "train"}, r"""data.parts: Input should be a list, such as 'data.parts=\["train", "test"\]'"""),
    ],
)
def test_parts_that_are_none_are_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_from({"name": "mine", "data": data}, "mine.toml")
    assert Data(parts=("train", "trains")).parts == ("train", "trains")


def test_a_lone_part_is_pointed_at(tmp_path: Path) -> None:
    fill(tmp_path, "train/images", "train/masks", "more")
    with pytest.raises(MissingFile, match=f"train/ fits one: to read it alone give --data {tmp_path / 'train'}"):
        find_sources(tmp_path, Data())


def test_plan_takes_the_parts_unless_another_split_is_asked_for(
    parted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = tmp_path / "chosen.toml"
    asked = ["plan", "--data", str(parted), "--steps", "5", "--workers", "0"]
    assert main([*asked, "--out", str(chosen)]) == 0
    assert "validation test/: train/ is trained on" in capsys.readouterr().out
    assert read_recipe(str(chosen)).data.parts == ("train", "test")
    assert main([*asked, "--set", "data.fold=[1, 2]"]) == 2
    assert "which a split by their names would mix" in capsys.readouterr().err


def test_a_run_without_a_recipe_is_trained_and_judged_by_the_parts(
    parted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["fit", "--data", str(parted), "--out", str(run), "--steps", "2", "--workers", "0"]) == 0
    split = load_checkpoint(run / "best.pt").split
    assert {stem.partition("-")[0] for stem in split["training"]} == {"train"}
    assert {stem.partition("-")[0] for stem in split["validation"]} == {"test"}
    assert (len(split["training"]), len(split["validation"])) == (5, 3)
    for data, side in ((parted, "validation"), (parted / "test", "all")):
        capsys.readouterr()
        assert main(["evaluate", str(run), "--data", str(data), "--split", side, "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["rows"]) == 3
    report = tmp_path / "report.html"
    assert main(["report", str(run), "--data", str(parted), "--out", str(report)]) == 0
    assert "train/ and test/" in report.read_text()
