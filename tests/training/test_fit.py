"""``fit`` and ``plan`` without a recipe: what is chosen is printed, written, trained by, and resumed."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from training.choosing.composing import compose
from training.choosing.pace import bf16_support, seconds_per_step
from training.choosing.plan import Plan
from training.cli import main
from training.data.datasets import AnnotatedImage
from training.data.splits import validation_stems
from training.layouts import folders
from training.options import Data
from training.recipe import Recipe, read_recipe
from training.runs.checkpoint import Beginning, load_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, nuclei_folder: Path) -> Path:
    out = tmp_path_factory.mktemp("fit") / "run"
    assert fit("--data", nuclei_folder, "--out", out, "--steps", 3) == 0
    return out


def fit(*arguments: object) -> int:
    return main(["fit", *(str(argument) for argument in arguments), "--workers", "0"])


def test_the_chosen_recipe_is_written_and_trained_by(run: Path) -> None:
    recipe = read_recipe(str(run / "recipe.toml"))
    checkpoint = load_checkpoint(run / "best.pt")
    assert checkpoint.read_recipe() == recipe
    assert (checkpoint.step, recipe.schedule.steps, recipe.net.base_width) == (3, 3, 8)
    assert (recipe.targets.scheme, recipe.data.fold) == ("boundary", (1, 8))
    assert {side: len(stems) for side, stems in checkpoint.split.items()} == {"training": 7, "validation": 1}


def test_the_written_recipe_makes_the_same_net_again(run: Path, nuclei_folder: Path, tmp_path: Path) -> None:
    assert fit("--recipe", run / "recipe.toml", "--data", nuclei_folder, "--out", tmp_path / "again") == 0
    first, second = (load_checkpoint(folder / "best.pt").net for folder in (run, tmp_path / "again"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_run_goes_on_by_its_own_recipe(run: Path, nuclei_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--data", nuclei_folder, "--out", run, "--resume") == 0
    assert capsys.readouterr().out.startswith("3 steps in")
    assert fit("--data", nuclei_folder, "--out", run, "--steps", 3, "--resume") == 0


@pytest.mark.parametrize("changed", [["--steps", 9], ["--minutes", 9], ["--from", Path("model/zoo/nuclei").resolve()]])
def test_what_a_resumed_run_would_leave_out_of_account_is_refused(
    run: Path, nuclei_folder: Path, changed: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--data", nuclei_folder, "--out", run, *changed, "--resume") == 2
    expected = (
        f"{changed[0]} {changed[1]} cannot change a run that is resumed: {run} goes on .* to 3 steps. Leave it out"
    )
    assert re.search(expected, capsys.readouterr().err)


def test_neither_a_run_nor_an_edited_recipe_is_overwritten(
    run: Path, nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--data", nuclei_folder, "--out", run) == 2
    assert "--resume" in capsys.readouterr().err
    (tmp_path / "recipe.toml").write_text("edited")
    assert fit("--data", nuclei_folder, "--out", tmp_path) == 2
    assert f"{tmp_path / 'recipe.toml'} is not TOML" in capsys.readouterr().err
    assert main(["plan", "--data", str(nuclei_folder), "--out", str(tmp_path / "recipe.toml")]) == 2
    assert (tmp_path / "recipe.toml").read_text() == "edited"


def test_a_run_that_ended_before_its_first_checkpoint_begins_by_the_recipe_that_is_there(
    run: Path, nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(run / "recipe.toml", tmp_path)
    again = ["--data", nuclei_folder, "--out", tmp_path]
    assert fit(*again, "--steps", 3, "--resume") == 2
    assert "leave --resume out to begin" in capsys.readouterr().err
    assert fit(*again, "--steps", 4) == 2
    assert (
        f"--steps 4 is not what {tmp_path}/recipe.toml says, which is there already: 3 steps" in capsys.readouterr().err
    )
    assert fit(*again, "--steps", 3) == 0
    assert (tmp_path / "recipe.toml").read_bytes() == (run / "recipe.toml").read_bytes()
    first, second = (load_checkpoint(folder / "best.pt").net for folder in (run, tmp_path))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_of_two_that_begin_at_once_the_later_does_not_write_over_the_recipe_of_the_other(
    run: Path, nuclei_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def overtaken(
        options: argparse.Namespace, beginning: Beginning | None, asked: Data | None
    ) -> tuple[Plan, list[AnnotatedImage]]:
        composed = compose(options, beginning, asked)
        shutil.copy(run / "recipe.toml", tmp_path)  # by the other, meanwhile
        return composed

    monkeypatch.setattr("training.commands.fit.compose", overtaken)
    assert fit("--data", nuclei_folder, "--out", tmp_path, "--steps", 2) == 2
    assert "--steps 2 is not what" in capsys.readouterr().err
    assert (tmp_path / "recipe.toml").read_bytes() == (run / "recipe.toml").read_bytes()


def test_plan_prints_what_fit_would_do_and_trains_nothing(
    nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = tmp_path / "chosen.toml"
    assert main(["plan", "--data", str(nuclei_folder), "--steps", "5", "--out", str(chosen), "--workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("8 images, 96 x 120 px, 1 channel, uint8")
    assert "steps 5: a step takes" in printed
    assert read_recipe(str(chosen)).schedule.steps == 5
    assert [path.name for path in tmp_path.iterdir()] == ["chosen.toml"]


def test_plan_reads_each_image_and_each_mask_once(nuclei_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def noted(reader: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def reading(path: Path) -> Any:
            read.append(path)
            return reader(path)

        return reading

    for name in ("read_image", "read_array"):
        monkeypatch.setattr(folders, name, noted(getattr(folders, name)))
    assert main(["plan", "--data", str(nuclei_folder), "--steps", "5", "--workers", "0"]) == 0
    assert sorted(read) == sorted(path for kind in ("images", "labels") for path in (nuclei_folder / kind).iterdir())


@pytest.mark.parametrize("origin", [[], ["--from", "model/zoo/nuclei"]])
def test_silver_truth_alone_is_taken_and_said(
    nuclei_folder: Path, tmp_path: Path, origin: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, name in (("images", "01/t{}.tif"), ("labels", "01_ST/SEG/man_seg{}.tif")):
        (tmp_path / name).parent.mkdir(parents=True)
        for number, path in enumerate(sorted((nuclei_folder / kind).iterdir())):
            Image.open(path).save(tmp_path / name.format(f"{number:03d}"))
    chosen = tmp_path / "chosen.toml"
    arguments = ["--data", str(tmp_path), "--steps", "5", "--out", str(chosen), "--workers", "0"]
    assert main(["plan", *arguments, *origin]) == 0
    printed = capsys.readouterr().out
    assert "  truth silver: no sequence has gold truth; figures are against computed masks\n" in printed
    assert read_recipe(str(chosen)).data.truth == "silver"


def test_a_length_that_is_given_beats_the_recipes(nuclei_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text('name = "tiny"\ntile_output_px = 60\nnet = { base_width = 4, depth = 2 }\n')
    assert fit("--recipe", file, "--data", nuclei_folder, "--out", tmp_path / "run", "--steps", 2, "--fold", "1/4") == 0
    checkpoint = load_checkpoint(tmp_path / "run" / "best.pt")
    assert (checkpoint.step, len(checkpoint.split["validation"])) == (2, 2)
    assert not (tmp_path / "run" / "recipe.toml").exists()


TINY = """
name = "tiny"
tile_output_px = 60
net = { base_width = 4, depth = 2 }
schedule = { steps = 3, max_minutes = 1e-6 }
"""


@pytest.mark.parametrize(
    ("given", "minutes"),
    [
        ([], 1e-6),
        (["--steps", 4], None),
        (["--steps", 4, "--set", "schedule.max_minutes=1e-6"], 1e-6),
        (["--steps", 4, "--set", "schedule.steps=9", "--set", "schedule.max_minutes=50"], 50.0),
    ],
)
def test_a_number_of_steps_lifts_the_clock_of_the_recipe_but_not_one_that_is_asked_for(
    nuclei_folder: Path, tmp_path: Path, given: list[object], minutes: float | None
) -> None:
    file, out = tmp_path / "tiny.toml", tmp_path / "run"
    file.write_text(TINY)
    command = ["--recipe", file, *given, "--data", nuclei_folder, "--out", out]
    assert fit(*command) == 0
    checkpoint = load_checkpoint(out / "last.pt")
    assert checkpoint.read_recipe().schedule.max_minutes == minutes
    by_the_clock = minutes == 1e-6  # which a first step or two outlast
    assert checkpoint.step < 3 if by_the_clock else checkpoint.step == 4
    assert fit(*command, "--resume") == 0


def test_steps_that_end_a_run_before_its_minutes_are_told(
    nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    assert fit("--recipe", file, "--minutes", 500, "--data", nuclei_folder, "--out", tmp_path / "run") == 0
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 3
    assert any(
        message.startswith("the run ends after 500 minutes, or with the recipe's 3 steps")
        for message in caplog.messages
    )
    assert "the recipe's 3 steps ended the run before its 500 minutes" in caplog.messages


@pytest.mark.parametrize(("option", "value"), [("--steps", 10**10), ("--minutes", 1e7)])
def test_a_length_beyond_all_reason_is_refused_with_the_limit(
    nuclei_folder: Path, tmp_path: Path, option: str, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--recipe", "synthetic", option, value, "--data", nuclei_folder, "--out", tmp_path / "run") == 2
    message = capsys.readouterr().err
    assert re.search(rf"fit: {option}: .* less than or equal to \d+; found {re.escape(str(value))}", message)
    assert message.count("\n") == 1


def test_a_run_that_would_see_nothing_annotated_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for name in "ab":
        image = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "data" / "images" / f"{name}.png")
        Image.fromarray((image > 99).astype(np.uint8)).save(tmp_path / "data" / "labels" / f"{name}.png")
    (tmp_path / "tiny.toml").write_text(
        'name = "tiny"\ntile_output_px = 60\nnet = { base_width = 4, depth = 2 }\nschedule = { steps = 2, seed = 2 }\n'
        "data = { validation_fraction = 0 }\naugmentation = { elastic_px = 0, shift_px = 64 }"
    )
    arguments = ["--recipe", tmp_path / "tiny.toml", "--data", tmp_path / "data", "--out", tmp_path / "run"]
    assert fit(*arguments) == 2
    message = capsys.readouterr().err
    assert "hold not one pixel that somebody has annotated" in message
    assert "Lower shift_px" in message
    assert not (tmp_path / "run").exists()


def test_masks_that_a_named_recipe_reads_wrongly_are_cautioned_against(
    nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    shutil.copytree(nuclei_folder, data)
    for path in (data / "labels").iterdir():  # classes, which the recipe takes for one object each
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    arguments = ["--recipe", "synthetic", "--set", "schedule.steps=1", "--data", data, "--out", tmp_path / "run"]
    for more, expected in (([], 1), (["--resume"], 0)):
        caplog.clear()
        with caplog.at_level("INFO", logger="training"):
            assert fit(*arguments, *more) == 0
        assert sum(message.startswith("looking at the images") for message in caplog.messages) == expected
        warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert sum(message.startswith("Objects in many separate pieces (") for message in warnings) == expected


@pytest.mark.parametrize("command", ["plan", "fit"])
def test_without_a_recipe_what_a_person_should_see_is_told_too(
    nuclei_folder: Path, tmp_path: Path, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    shutil.copytree(nuclei_folder, data)
    first = min((data / "labels").iterdir())  # one mask of classes among masks of objects
    Image.fromarray(((np.asarray(Image.open(first)) > 0) * 255).astype(np.uint8)).save(first)
    arguments = ["--data", str(data), "--steps", "1", "--workers", "0", "--out", str(tmp_path / "out.toml")]
    assert main([command, *arguments]) == 0
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert sum(message.startswith(f"Objects in many separate pieces ({first.stem}).") for message in warnings) == 1


@pytest.mark.parametrize("command", ["plan", "fit"])
def test_of_two_layouts_that_fit_one_is_named_without_a_recipe(
    nuclei_folder: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out.toml"
    shutil.copytree(nuclei_folder, data)
    (data / "export.json").write_text('{"images": [], "annotations": []}')
    arguments = [command, "--data", str(data), "--steps", "1", "--workers", "0", "--out", str(out)]
    assert main(arguments) == 2
    assert "--set data.layout=folders" in capsys.readouterr().err
    assert main([*arguments, "--set", "schedule.batch=2"]) == 2
    assert "--set schedule.batch changes a recipe, and none is named" in capsys.readouterr().err
    assert not out.exists()
    arguments += ["--set", "data.layout=folders", "--set", "data.fold=[2, 4]"]
    assert main(arguments) == 0
    assert "  validation as asked for: Part 2 of 4 equal parts of the names" in capsys.readouterr().out
    recipe = read_recipe(str(out if command == "plan" else out / "recipe.toml"))
    assert (recipe.data.layout, recipe.data.fold) == ("folders", (2, 4))
    if command == "fit":
        assert dict(load_checkpoint(out / "last.pt").arguments)["--set"] == "data.fold=[2, 4]"
        assert main([*arguments, "--resume"]) == 0
        assert main([*arguments, "--set", "data.fold=[3, 4]", "--resume"]) == 2
        refused = capsys.readouterr().err
        assert "--set data.fold=(3, 4) cannot change a run that is resumed" in refused
        assert "to 1 step, data.fold = (2, 4). Leave it out" in refused


@pytest.fixture
def one_with_objects(nuclei_folder: Path, tmp_path: Path) -> Path:
    """Folder of four images, one of which shows objects; it validates by the first of four folds."""
    data = tmp_path / "data"
    paths = sorted((nuclei_folder / "images").iterdir())[:4]
    lone = validation_stems([path.stem for path in paths], Data(fold=(1, 4)))
    for folder in ("images", "labels"):
        (data / folder).mkdir(parents=True)
    for path in paths:
        shutil.copy(path, data / "images")
        (mask,) = (nuclei_folder / "labels").glob(f"{path.stem}.*")
        labels = np.asarray(Image.open(mask)) * (path.stem in lone)
        Image.fromarray(labels.astype(np.uint16)).save(data / "labels" / f"{path.stem}.png")
    return data


def test_a_run_that_learns_nothing_but_background_is_refused(
    one_with_objects: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(one_with_objects), "--out", str(tmp_path / "out")]
    for command in (["fit"], ["preview"], ["cross-validate", "--folds", "4"]):
        fold = ["--set", "data.fold=[1, 4]"] if command == ["fit"] else []
        fold = ["--fold", "1/4"] if command == ["preview"] else fold
        assert main([*command, "--recipe", "synthetic", *arguments, *fold]) == 2
        message = capsys.readouterr().err
        assert f"no image of the training side of {one_with_objects} has foreground: the labels of all 3" in message
        folds = "give another number of --folds, or leave this one out with --only"
        remedy = folds if "--folds" in command else "change data.validation_fraction or the fold"
        assert f"Let others validate: {remedy} (now fold 1 of 4)" in message
    assert main(["plan", *arguments, "--set", "data.fold=[1, 4]", "--steps", "1"]) == 2
    assert "no image of the training side" in capsys.readouterr().err
    assert not any(path.suffix in {".pt", ".toml", ".html"} for path in tmp_path.rglob("*"))


def test_without_a_recipe_no_image_with_objects_is_kept_from_training(one_with_objects: Path, tmp_path: Path) -> None:
    assert fit("--data", one_with_objects, "--out", tmp_path / "run", "--steps", 1) == 0
    assert load_checkpoint(tmp_path / "run" / "best.pt").split["validation"] == []


def test_a_net_to_begin_with_leaves_the_validation_that_is_asked_for(run: Path, nuclei_folder: Path) -> None:
    arguments = ["--data", str(nuclei_folder), "--from", str(run), "--steps", "1", "--workers", "0"]
    for fold in ((1, 4), (3, 4)):  # the net has learnt seven of the eight images
        out = run / f"{fold[0]}.toml"
        assert main(["plan", *arguments, "--set", f"data.fold={list(fold)}", "--out", str(out)]) == 0
        assert read_recipe(str(out)).data.fold == fold


def test_values_of_a_named_recipe_are_changed_and_kept_with_the_run(nuclei_folder: Path, tmp_path: Path) -> None:
    changed = ["--set", "net.base_width=5", "--set", "schedule.batch=2", "--set", "schedule.steps=1"]
    arguments = ["--recipe", "synthetic", *changed, "--data", nuclei_folder, "--out", tmp_path / "run"]
    assert fit(*arguments) == 0
    recipe = load_checkpoint(tmp_path / "run" / "best.pt").read_recipe()
    assert (recipe.net.base_width, recipe.schedule.batch, recipe.schedule.steps) == (5, 2, 1)
    assert fit(*arguments, "--resume") == 0


@pytest.mark.parametrize("command", ["plan", "fit"])
def test_masks_of_one_value_are_refused_before_a_recipe_is_written(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("images", 90), ("labels", 7)):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((60, 60), value, dtype=np.uint8)).save(tmp_path / name / "a.png")
    assert main([command, "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "no image holds two objects" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_cannot_be_composed_is_an_error_with_a_remedy(
    nuclei_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.choosing.composing.choose_recipe", lambda *_: Recipe(name="two words"))
    assert main(["plan", "--data", str(nuclei_folder)]) == 2
    assert "no recipe can be composed for" in (message := capsys.readouterr().err)
    assert "name it (--recipe): name: String should match" in message


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--minutes", "0"], "--minutes 0 is no time to train"),
        (["--minutes", "nan"], "--minutes nan is no time to train"),
        (["--minutes", "inf"], "--minutes inf is no time to train; give a finite number"),
        (["--workers", "-1"], "--workers -1 is no number of processes"),
        (["--steps", "-3"], "--steps -3 is no time to train"),
        (["--device", "tpu"], "no device 'tpu'"),
        (["--from", "/nowhere"], "there is no '/nowhere'; name the folder of a run"),
    ],
)
def test_what_cannot_be_planned_is_said(
    nuclei_folder: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--data", str(nuclei_folder), *arguments]) == 2
    assert reason in capsys.readouterr().err


def test_a_step_is_measured_with_its_tiles(tiny_recipe: Recipe) -> None:
    alone, beside = (seconds_per_step(tiny_recipe, "cpu", workers) for workers in (0, 1))
    assert 0 < alone < 60
    assert 0 < beside < 60


def test_bfloat16_is_known_by_the_instructions_of_the_processor() -> None:
    usable, how = bf16_support("cpu")
    capabilities = torch.cpu.get_capabilities()
    assert usable == any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    assert "this CPU has" in how
