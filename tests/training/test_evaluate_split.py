"""Which images a net is judged by, and what is said where they have taught it or chosen its state."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.random_package import passing_net
from training.cli import main
from training.data.datasets import AnnotatedImage, load_images
from training.errors import FoldsMismatch
from training.evaluation.folds import require_unseen
from training.options import Data
from training.recipe import recipe_from
from training.runs.checkpoint import Checkpoint, load_checkpoint


def images_of(folder: Path) -> list[AnnotatedImage]:
    return load_images(folder, Data(), 1, 2)


def write_run(
    folder: Path,
    training: Sequence[AnnotatedImage],
    validation: Sequence[AnnotatedImage],
    *,
    fraction: float = 0.0001,
    knows_pixels: bool = True,
) -> Path:
    """Write a run whose net takes for foreground what is bright, and of whose folder no image validates by its name."""
    recipe = recipe_from(
        {
            "name": "own",
            "tile_output_px": 60,
            "net": {"base_width": 8, "depth": 2},
            "data": {"validation_fraction": fraction},
        },
        "own",
    )
    split = {"training": [image.stem for image in training], "validation": [image.stem for image in validation]}
    pixels = {image.stem: image.pixels_digest() for image in (*training, *validation)} if knows_pixels else {}
    state = passing_net(8, 2, 30.0).state_dict()
    Checkpoint(recipe.model_dump(mode="json"), 1, 1.0, state, None, None, split, pixels=pixels).save(folder / "best.pt")
    return folder


def write_images(folder: Path, source: Path, names: dict[str, str]) -> Path:
    """Copy images and labels, under the names that ``names`` gives to their stems."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
        for stem, name in names.items():
            (file,) = (source / part).glob(f"{stem}.*")
            shutil.copy(file, folder / part / f"{name}{file.suffix}")
    return folder


@pytest.mark.parametrize("fraction", [0.0001, 0], ids=["none by chance", "none asked for"])
@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_all_images_are_scored_where_none_validates_and_no_table_is_left_empty(
    nuclei_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    fraction: float,
) -> None:
    images = images_of(nuclei_folder)
    run = write_run(tmp_path / "run", images[3:], [], fraction=fraction)
    data = write_images(tmp_path / "few", nuclei_folder, {image.stem: image.stem for image in images[:3]})
    call = [command, str(run), "--data", str(data)]
    if command == "report":
        call += ["--out", str(tmp_path / "report.html"), "--worst", "0"]
    assert main(call) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"no image of {data} is kept for validation; choose another --split, or another --data" in said.err
    for split in ("all", "training"):
        assert main([*call, "--split", split]) == 0
        scored = {"evaluate": "mean over 3 images", "report": ": 3 images scored"}[command]
        assert scored in capsys.readouterr().out


def test_held_out_images_are_scored_where_none_is_for_training(
    nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = images_of(nuclei_folder)
    run = write_run(tmp_path / "run", [], images[:2], fraction=0.9999)
    data = write_images(tmp_path / "few", nuclei_folder, {image.stem: image.stem for image in images[:2]})
    assert main(["evaluate", str(run), "--data", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2
    assert main(["evaluate", str(run), "--data", str(data), "--split", "training"]) == 2
    assert f"no image of {data} is kept for training" in capsys.readouterr().err


def judged(run: Path, data: Path, out: Path, caplog: pytest.LogCaptureFixture) -> tuple[list[str], str]:
    """Warnings of ``evaluate``, and the report's page, on all images of a folder."""
    caplog.clear()
    assert main(["evaluate", str(run), "--data", str(data), "--split", "all"]) == 0
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    call = ["report", str(run), "--data", str(data), "--split", "all", "--out", str(out), "--worst", "0"]
    assert main(call) == 0
    return warnings, out.read_text()


def test_images_that_taught_a_run_or_chose_its_state_are_known_under_other_names(
    nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = images_of(nuclei_folder)
    run = write_run(tmp_path / "run", images[:2], images[2:5])
    names = {image.stem: f"renamed-{place}" for place, image in enumerate(images)}
    data = write_images(tmp_path / "data", nuclei_folder, names)
    warnings, page = judged(run, data, tmp_path / "report.html", caplog)
    (warning,) = warnings
    assert "own: of 8 images that it is judged by, 2 taught it, or a net before that one (renamed-0 is" in warning
    assert "run was trained on 2 of the 8 images that it is scored on" in page
    assert "3 of the 8 images that run is scored on chose its state" in page


@pytest.mark.parametrize("knows_pixels", [True, False])
def test_names_alone_say_of_no_image_that_it_taught_a_run_but_of_older_ones(
    nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, knows_pixels: bool
) -> None:
    images = images_of(nuclei_folder)
    run = write_run(tmp_path / "run", images[:2], images[2:4], knows_pixels=knows_pixels)
    others = {other.stem: image.stem for other, image in zip(images[4:], images[:4], strict=True)}
    data = write_images(tmp_path / "data", nuclei_folder, others)
    warnings, page = judged(run, data, tmp_path / "report.html", caplog)
    said = (
        len(warnings),
        "run was trained on 2 of the 4 images that it is scored on" in page,
        "2 of the 4 images that run is scored on chose its state" in page,
    )
    assert said == ((0, False, False) if knows_pixels else (1, True, True))


def test_a_fold_is_refused_by_the_pixels_of_its_images_and_not_by_their_names(
    nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two, three, four = images_of(nuclei_folder)[:4]
    copy, namesake = replace(one, stem="copy"), replace(four, stem=one.stem)
    run = load_checkpoint(write_run(tmp_path / "run", [one, two], [three, copy]) / "best.pt")
    with pytest.raises(FoldsMismatch, match=r"run was trained on 1 of the 2 images .* \(renamed\)"):
        require_unseen(run, [three, replace(two, stem="renamed")], run.read_recipe(), "run")
    caplog.clear()
    require_unseen(run, [three, namesake], run.read_recipe(), "run")
    assert caplog.messages == []
    require_unseen(run, [three, copy], run.read_recipe(), "run")
    assert "of 2 images that it is judged by, 1 taught it, or a net before that one (copy is the first)" in caplog.text


def test_a_run_without_validation_is_told_to_have_no_split(nuclei_folder: Path, tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run", images_of(nuclei_folder), [], fraction=0), tmp_path / "report.html"
    call = ["report", str(run), "--data", str(nuclei_folder), "--split", "all", "--out", str(out), "--worst", "0"]
    assert main(call) == 0
    assert "0% by hash" not in out.read_text()
    assert re.search(r"<td[^>]*>\s*none\s*</td>", out.read_text())
