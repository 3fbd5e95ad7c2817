"""Folds: trained once each, scored on what they held out, pooled without counting an image twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.label_rule import LabelRule
from training.cli import main
from training.data.datasets import AnnotatedImage
from training.data.splits import validation_stems
from training.errors import CheckpointError, FoldsMismatch, NothingToLearn, RecipeError, Unwritable
from training.evaluation.evaluate import Evaluation, figures
from training.evaluation.folds import CrossValidation, Fold
from training.learning.cross_validation import REPORT_NAME, cross_validate, fold_folder
from training.options import Schedule
from training.recipe import Recipe
from training.runs.checkpoint import load_checkpoint
from training.runs.run_folder import RunFiles
from training.scoring import Scoring


def with_schedule(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update={"schedule": Schedule(**{**recipe.schedule.model_dump(), **changes})})


@pytest.fixture
def recipe(tiny_recipe: Recipe) -> Recipe:
    return with_schedule(tiny_recipe, steps=2, keep="last")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two finished folds; a test that changes it copies it."""
    return tmp_path_factory.mktemp("cross") / "run"


@pytest.fixture
def run(finished: Path, recipe: Recipe, nuclei_folder: Path) -> Path:
    if not finished.exists():
        cross_validate(recipe, nuclei_folder, finished, folds=2, workers=0)
    return finished


def labels_of(*cells: tuple[slice, slice]) -> NDArray[np.int32]:
    labels = np.zeros((10, 12), dtype=np.int32)
    for number, cell in enumerate(cells, start=1):
        labels[cell] = number
    return labels


def fold(name: str, *seen: tuple[str, bool], scoring: Scoring | None = None) -> Fold:
    """Figures of images with two cells, of which a net found both or only the first."""
    labels = labels_of(np.s_[1:5, 1:5], np.s_[6:9, 2:11])
    rows = []
    for stem, both in seen:
        cell = labels > 0 if both else labels == 1
        probabilities = np.stack([~cell, cell]).astype(np.float32)
        image = AnnotatedImage(stem, np.zeros((10, 12, 1), dtype=np.uint8), labels)
        rows.append(figures(probabilities, image, LabelRule(), instances=True, scoring=scoring))
    return Fold(name, Evaluation(tuple(rows), scoring or Scoring()))


def test_mean_spread_and_pool_by_hand() -> None:
    result = CrossValidation((fold("1/2", ("a", True)), fold("2/2", ("b", True), ("c", False), ("d", False))), 4)
    spread = result.figures()["ap@0.5"]
    # 1 in the first fold; (1 + 0.5 + 0.5) / 3 in the second; the pool weighs images, not folds
    assert spread.mean == pytest.approx((1 + 2 / 3) / 2)
    assert spread.std == pytest.approx(abs(1 - 2 / 3) / np.sqrt(2))
    assert spread.pooled == pytest.approx(3 / 4)
    assert result.as_json()["complete"]


def test_seg_is_pooled_over_the_objects_of_all_folds() -> None:
    scoring = Scoring(measures=("seg",), choose_by="seg")
    parts = (fold("1/2", ("a", True), scoring=scoring), fold("2/2", ("b", False), ("c", False), scoring=scoring))
    assert CrossValidation(parts, 3).figures()["seg"].pooled == pytest.approx(4 / 6)


def test_an_image_in_two_folds_is_refused() -> None:
    with pytest.raises(FoldsMismatch, match=r"scored twice: 1 image, a by first and second"):
        CrossValidation((fold("first", ("a", True)), fold("second", ("a", True), ("b", True))), 2)


def test_folds_that_are_judged_differently_are_refused() -> None:
    with pytest.raises(FoldsMismatch, match="different measures"):
        CrossValidation((fold("1/2", ("a", True)), fold("2/2", ("b", True), scoring=Scoring(measures=("ap",)))), 2)


def test_folds_of_other_classes_are_not_pooled() -> None:
    (row,) = fold("a", ("one", True)).evaluation.rows
    overlaps = {"cell": row.overlaps["foreground"], "ring": row.overlaps["foreground"]}
    other = Fold("b", Evaluation((replace(row, stem="two", overlaps=overlaps),)))
    with pytest.raises(FoldsMismatch, match=r"different classes apart \(foreground and cell, ring\); score them one"):
        CrossValidation((fold("a", ("one", True)), other), 2)


def test_what_was_not_run_is_said() -> None:
    result = CrossValidation((fold("1/3", ("a", True)),), 5, missing=("2/3", "3/3"), held_out_chose=True)
    table = result.as_table()
    assert "not run to the end: 2/3, 3/3" in table
    assert "these are figures of 1 of 5 images" in table
    assert "figures flatter" in table
    report = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert (report["complete"], report["missing"], report["of_images"]) == (False, ["2/3", "3/3"], 5)
    assert report["figures"]["iou"] == {"mean": 1.0, "std": None, "pooled": 1.0}


def test_every_image_is_scored_once_by_a_net_that_has_not_seen_it(run: Path, nuclei_folder: Path) -> None:
    report = json.loads((run / REPORT_NAME).read_text())
    stems = sorted(path.stem for path in (nuclei_folder / "images").iterdir())
    assert sorted(row["stem"] for row in report["rows"]) == stems
    assert report["complete"]
    assert not report["held_out_chose"]
    for number in (1, 2):
        split = load_checkpoint(RunFiles(fold_folder(run, number, 2)).best).split
        scored = {row["stem"] for row in report["rows"] if row["fold"] == f"{number}/2"}
        assert scored == set(split["validation"])
        assert not scored & set(split["training"])


def test_the_report_of_a_fold_is_that_of_its_training(run: Path) -> None:
    report = json.loads((run / REPORT_NAME).read_text())
    for number, part in enumerate(report["folds"], start=1):
        assert part["figures"] == load_checkpoint(RunFiles(fold_folder(run, number, 2)).best).figures


def test_folds_are_run_one_by_one(recipe: Recipe, nuclei_folder: Path, tmp_path: Path, run: Path) -> None:
    first = cross_validate(recipe, nuclei_folder, tmp_path, folds=2, only=[2], workers=0)
    assert first.missing == ("1/2",)
    assert [part.name for part in first.folds] == ["2/2"]
    both = cross_validate(recipe, nuclei_folder, tmp_path, folds=2, only=[1], workers=0)
    assert both.missing == ()
    assert both.as_json() == json.loads((run / REPORT_NAME).read_text())


def test_finished_folds_are_left_alone_and_begun_ones_go_on(
    run: Path, recipe: Recipe, nuclei_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    files = [RunFiles(fold_folder(out, number, 2)) for number in (1, 2)]
    files[1].best.unlink()  # killed between its last step and its export
    before = files[0].last.read_bytes()
    with pytest.raises(CheckpointError, match="--resume"):
        cross_validate(recipe, nuclei_folder, out, folds=2, workers=0)
    result = cross_validate(recipe, nuclei_folder, out, folds=2, resume=True, workers=0)
    assert files[0].last.read_bytes() == before
    assert result.as_json() == json.loads((run / REPORT_NAME).read_text())


def test_a_finished_fold_of_another_recipe_is_refused_before_anything_is_trained(
    run: Path, recipe: Recipe, nuclei_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(fold_folder(run, 1, 2), fold_folder(out, 1, 2))
    other = with_schedule(recipe, seed=5)
    with pytest.raises(FoldsMismatch, match=r"fold-1-of-2 is of another recipe: schedule.seed was 0 and is 5; choose"):
        cross_validate(other, nuclei_folder, out, folds=2, only=[2], workers=0)
    assert not fold_folder(out, 2, 2).exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"folds": 1}, "--folds 1 leaves nothing .* give 2 or more"),
        ({"folds": 0}, "--folds 0 leaves nothing"),
        ({"folds": 2, "only": [1, 3]}, "--only 3 is none of the 2 folds; give numbers from 1 to 2"),
        ({"folds": 2, "only": [0]}, "--only 0 is none of the 2 folds"),
        ({"folds": 2, "workers": -1}, "--workers -1 is no number"),
    ],
)
def test_what_is_no_cross_validation_is_refused_before_the_images_are_read(
    recipe: Recipe, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RecipeError, match=reason):
        cross_validate(recipe, tmp_path / "no images", tmp_path, **options)


def test_a_file_is_no_folder_for_folds(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unwritable, match=r"file is a file; expected a folder.* Correct --out"):
        cross_validate(recipe, tmp_path / "no images", tmp_path / "file", folds=2)


def test_more_folds_than_images_are_refused(recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    expected = r"add images or give another number of --folds, .* \(now fold 9 of 9\)"
    with pytest.raises(NothingToLearn, match=expected):
        cross_validate(recipe, nuclei_folder, tmp_path, folds=9, workers=0)


def test_only_folds_that_are_trained_now_need_something_to_learn(
    recipe: Recipe, nuclei_folder: Path, tmp_path: Path
) -> None:
    """All objects stand in one image: the net of the fold that holds it out would see none."""
    folder, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(nuclei_folder, folder)
    masks = sorted((folder / "labels").iterdir())
    held_out = validation_stems([path.stem for path in masks], recipe.with_fold("2/4").data)
    for path in masks:
        labels = np.asarray(Image.open(path)) * (path.stem in held_out)
        Image.fromarray(labels.astype(np.uint16)).save(path)
    result = cross_validate(recipe, folder, out, folds=4, only=[1], workers=0)
    assert ([part.name for part in result.folds], result.missing) == (["1/4"], ("2/4", "3/4", "4/4"))
    cross_validate(recipe, folder, out, folds=4, only=[1], resume=True, workers=0)
    for only in ([2], None):
        with pytest.raises(NothingToLearn, match=r"no image of the training side .* --only \(now fold 2 of 4\)"):
            cross_validate(recipe, folder, out, folds=4, only=only, resume=True, workers=0)
    assert not fold_folder(out, 3, 4).exists()


def as_json(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_evaluate_pools_the_folds_that_it_is_given(
    run: Path, nuclei_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folds = [str(fold_folder(run, number, 2)) for number in (1, 2)]
    pooled = as_json(["evaluate", *folds, "--data", str(nuclei_folder)], capsys)
    assert pooled["figures"] == json.loads((run / REPORT_NAME).read_text())["figures"]
    one = as_json(["evaluate", folds[0], "--data", str(nuclei_folder)], capsys)
    assert one["means"] == pooled["folds"][0]["figures"]
    assert main(["evaluate", *folds, "--data", str(nuclei_folder), "--split", "all"]) == 2
    assert "--split all takes one target" in capsys.readouterr().err


def test_evaluate_refuses_a_net_that_has_seen_the_images(
    run: Path, nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "fewer"
    shutil.copytree(nuclei_folder, folder)
    held_out = load_checkpoint(RunFiles(fold_folder(run, 1, 2)).best).split["validation"]
    for stem in held_out[:3]:  # the folds of those that are left are others
        for path in folder.glob(f"*/{stem}.*"):
            path.unlink()
    folds = [str(fold_folder(run, number, 2)) for number in (1, 2)]
    assert main(["evaluate", *folds, "--data", str(folder)]) == 2
    assert "was trained on" in capsys.readouterr().err


def test_other_images_of_the_same_names_are_told_apart(
    run: Path, recipe: Recipe, nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, fold = tmp_path / "other", fold_folder(run, 1, 2)
    shutil.copytree(nuclei_folder, folder)
    stem = load_checkpoint(RunFiles(fold).best).split["validation"][0]
    path = folder / "labels" / f"{stem}.png"
    Image.fromarray(np.fliplr(np.asarray(Image.open(path)))).save(path)
    caplog.set_level("WARNING", logger="training")
    for targets in ([fold], [fold, fold_folder(run, 2, 2)]):
        caplog.clear()
        assert main(["evaluate", *map(str, targets), "--data", str(folder)]) == 0
        (message,) = caplog.messages
        assert f"1 of 4 images have names of the run's images, but other pixels or labels ({stem}" in message
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(FoldsMismatch, match=rf"1 of 8 have other pixels or labels now, {stem}"):
        cross_validate(recipe, folder, tmp_path / "run", folds=2, resume=True, workers=0)


def test_the_same_images_read_by_another_recipe_are_no_other_images(
    run: Path, recipe: Recipe, nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "semantic.toml"
    path.write_text('name = "semantic"\ndata = { kind = "semantic", fold = [1, 2] }\n')
    caplog.set_level("INFO", logger="training")
    fold = fold_folder(run, 1, 2)
    assert main(["evaluate", str(fold), "--data", str(nuclei_folder), "--recipe", str(path)]) == 0
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"{nuclei_folder}: labels are read otherwise than in the run" in caplog.text


def test_mirroring_is_asked_for_by_option_or_recipe(
    run: Path, nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = ["evaluate", str(fold_folder(run, 1, 2)), "--data", str(nuclei_folder)]
    plain, mirrored = as_json(target, capsys), as_json([*target, "--mirror"], capsys)
    assert (plain["mirrored"], mirrored["mirrored"]) == (False, True)
    assert plain["means"] != mirrored["means"]
    assert main([*target, "--mirror"]) == 0
    assert "(8 views each)" in capsys.readouterr().out


def test_the_command_prints_table_and_place_of_the_report(
    nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(
        """
name = "tiny"
tile_output_px = 60
net = { base_width = 4, depth = 2 }
schedule = { optimizer = "adamw", learning_rate = 0.005, steps = 9, validate_every = 1 }
scoring = { measures = ["foreground", "seg"], choose_by = "seg", mirror = true }
"""
    )
    arguments = ["cross-validate", "--recipe", str(file), "--data", str(nuclei_folder), "--out", str(tmp_path / "run")]
    arguments += ["--set", "schedule.steps=1"]
    assert main([*arguments, "--folds", "2", "--only", "1", "--workers", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()[-10:]  # the table follows what training says
    assert lines[0].split() == ["fold", "images", "iou", "dice", "pooled_iou", "seg"]
    assert [line.split()[0] for line in lines[1:5]] == ["1/2", "mean", "std", "pooled"]
    assert lines[5:] == [
        "each figure is the mean over eight views of an image",
        "each fold's images chose the state of its net: figures flatter (schedule.keep = 'last')",
        "not run to the end: 2/2",
        "these are figures of 4 of 8 images",
        f"report: {tmp_path / 'run' / REPORT_NAME}",
    ]


@pytest.mark.parametrize("numbers", ["", "a", "1,,2"])
def test_a_list_of_folds_that_is_none_is_refused(numbers: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(
            ["cross-validate", "--recipe", "synthetic", "--data", "x", "--out", "y", "--folds", "2", "--only", numbers]
        )
    assert "--only" in capsys.readouterr().err
