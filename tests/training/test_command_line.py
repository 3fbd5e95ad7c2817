"""The command that a report and a card quote is the one that was given, or makes the same net."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from training.cli import main
from training.packaging.card import run_card
from training.recipe import Recipe, read_recipe, recipe_from, shipped_recipes
from training.runs.checkpoint import Checkpoint, load_checkpoint
from training.runs.command_line import command_line, public_command_line

SMALL = ["--set", "net.base_width=4", "--set", "net.depth=2", "--set", "tile_output_px=60"]


def of(recipe: Recipe) -> Checkpoint:
    """Checkpoint of an older version, which kept no command."""
    split = {"training": ["a"], "validation": ["b"]}
    return Checkpoint(recipe.model_dump(mode="json"), 1, 1.0, {}, None, None, split)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, nuclei_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("quoted") / "run"
    arguments = ["fit", "--recipe", "synthetic", *SMALL, "--steps", "1", "--fold", "1/2", "--workers", "0"]
    assert main([*arguments, "--data", str(nuclei_folder), "--out", str(folder)]) == 0
    return folder


def test_report_and_card_quote_what_was_given(run: Path, nuclei_folder: Path, tmp_path: Path) -> None:
    out, more = tmp_path / "report.html", f"{shlex.join(SMALL)} --steps 1 --fold 1/2"
    assert main(["report", str(run), "--data", str(nuclei_folder), "--out", str(out), "--worst", "0"]) == 0
    whole = f"unet-train fit --recipe synthetic --data {nuclei_folder} --out {run} {more}"
    assert f"<pre>{whole}</pre>" in out.read_text()
    checkpoint = load_checkpoint(run / "best.pt")
    card = run_card(
        checkpoint,
        checkpoint.read_recipe(),
        version="1.0.0",
        author="A",
        license_text="MIT",
        command=public_command_line(checkpoint, run),
    )
    assert f"```sh\nunet-train fit --recipe synthetic --data DIR --out run {more}\n```" in card.readme


def test_a_resumed_run_keeps_the_command_that_began_it(run: Path, nuclei_folder: Path) -> None:
    before = load_checkpoint(run / "last.pt").arguments
    assert main(["fit", "--data", str(nuclei_folder), "--out", str(run), "--resume", "--workers", "0"]) == 0
    assert load_checkpoint(run / "last.pt").arguments == before


def test_the_quoted_command_makes_the_same_recipe(run: Path, nuclei_folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(run / "best.pt")
    program, *arguments = shlex.split(command_line(checkpoint, run, nuclei_folder))
    arguments[arguments.index("--out") + 1] = str(tmp_path / "again")
    assert program == "unet-train"
    assert main([*arguments, "--workers", "0"]) == 0
    assert load_checkpoint(tmp_path / "again" / "best.pt").read_recipe() == checkpoint.read_recipe()


def test_a_fold_of_a_cross_validation_is_quoted_as_a_fit(nuclei_folder: Path, tmp_path: Path) -> None:
    arguments = ["cross-validate", "--recipe", "synthetic", *SMALL, "--set", "schedule.steps=1", "--folds", "2"]
    arguments += ["--only", "2", "--data", str(nuclei_folder), "--out", str(tmp_path), "--workers", "0"]
    assert main(arguments) == 0
    fold = tmp_path / "fold-2-of-2"
    assert command_line(load_checkpoint(fold / "best.pt"), fold, nuclei_folder) == (
        f"unet-train fit --recipe synthetic --data {nuclei_folder} --out {fold} {shlex.join(SMALL)} "
        "--set schedule.steps=1 --fold 2/2"
    )


@pytest.mark.parametrize("name", shipped_recipes())
def test_of_an_older_run_the_values_that_its_recipe_does_not_have_are_named(name: str) -> None:
    shipped = read_recipe(name)
    values = [
        "schedule.seed=4",
        "schedule.max_minutes=83",
        'normalization=[{ id = "clip", min = 0.5 }]',
        "labels.min_score=0.5",
        "augmentation.scale=[0.5, 2.0]",
        'labels.object_name="two words"',
    ]
    changed = shipped.with_values(values).with_fold("2/3")
    quoted = shlex.split(command_line(of(changed), Path("runs/x"), Path("images")))
    assert quoted[:8] == ["unet-train", "fit", "--recipe", name, "--data", "images", "--out", "runs/x"]
    assert quoted[-2:] == ["--fold", "2/3"]
    sets = [value for option, value in zip(quoted[8:-2:2], quoted[9:-2:2], strict=True) if option == "--set"]
    assert {assignment.partition("=")[0] for assignment in sets} == {value.partition("=")[0] for value in values}
    assert shipped.with_values(sets).with_fold("2/3") == changed


def test_an_older_run_of_a_shipped_recipe_as_it_is_is_quoted_plainly(tmp_path: Path) -> None:
    recipe = read_recipe("nuclei").for_folder(tmp_path)
    line = "unet-train fit --recipe nuclei --data DIR --out runs/x"
    assert public_command_line(of(recipe), Path("runs/x/best.pt")) == line


def test_an_older_run_that_chose_its_recipe_is_quoted_with_it(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").touch()
    checkpoint = of(recipe_from({"name": "cells"}, "cells"))
    assert command_line(checkpoint, tmp_path, Path("x")).startswith(f"unet-train fit --recipe {tmp_path}/recipe.toml ")
    assert public_command_line(checkpoint, tmp_path).startswith("unet-train fit --recipe recipe.toml --data DIR ")


def test_a_card_tells_no_absolute_paths_and_how_many_processes_there_were(tiny_recipe: Recipe) -> None:
    given = (("--recipe", "/home/me/mine.toml"), ("--from", "/srv/zoo/nuclei"), ("--data", "/x"), ("--out", "runs/a"))
    checkpoint = replace(of(tiny_recipe), arguments=given, processes=2)
    assert public_command_line(checkpoint, Path("elsewhere")) == (
        "torchrun --nproc-per-node 2 -m training.cli fit --recipe mine.toml --from nuclei --data DIR --out runs/a"
    )
