"""Which images a net is judged by, and what is said where they have taught it or chosen its state."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.random_package import passing_net
from training.checkpoint import Checkpoint
from training.cli import main
from training.datasets import AnnotatedImage, load_images
from training.options import Data
from training.recipe import recipe_from


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
