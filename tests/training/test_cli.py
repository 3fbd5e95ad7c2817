"""unet-train, from a folder of images to a package that scores the same."""

from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from model.package import read_package
from training.cli import main
from training.data.datasets import load_images
from training.data.object_sizes import learnt_diameters
from training.runs.checkpoint import load_checkpoint

# libraries that the exporter calls, not ours: torch's pytree and torchvision's absence, bioimageio's open files
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::FutureWarning",
        "ignore::DeprecationWarning",
        "ignore::UserWarning",
        "ignore::ResourceWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    ),
]

RECIPE = """
name = "tiny"
tile_output_px = 60
data = { validation_fraction = 0.3 }
net = { base_width = 4, depth = 3 }
schedule = { optimizer = "adamw", learning_rate = 0.005, steps = 4, validate_every = 4, clip_norm = 1.0 }
labels = { min_area_px = 5 }
card = { title = "Tiny nuclei", description = "For a test.", data = "Synthetic." }
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, nuclei_folder: Path, recipe_file: str) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    arguments = ["fit", "--recipe", recipe_file, "--data", str(nuclei_folder), "--out", str(out), "--workers", "0"]
    assert main(arguments) == 0
    return out


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The package of that run, and what the command said of it."""
    package, said = tmp_path_factory.mktemp("packages") / "tiny", io.StringIO()
    arguments = ["export", str(run), "--out", str(package), "--author", "The tests", "--license-file", __file__]
    with contextlib.redirect_stdout(said):
        assert main(arguments) == 0
    return package, said.getvalue()


@pytest.fixture(scope="module")
def older(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run as of before runs said how large the objects are."""
    folder = tmp_path_factory.mktemp("older")
    replace(load_checkpoint(run / "best.pt"), object_diameter_px=None).save(folder / "best.pt")
    return folder


def means_of(target: Path, nuclei_folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    assert main(["evaluate", str(target), "--data", str(nuclei_folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 1
    means: dict[str, float] = report["means"]
    return means


def test_the_package_scores_what_the_run_scored(
    run: Path, exported: tuple[Path, str], nuclei_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package, said = exported
    assert "torch and ONNX Runtime differ by at most" in said
    ours, packaged = (means_of(target, nuclei_folder, capsys) for target in (run, package))
    assert packaged == pytest.approx(ours, abs=1e-3)
    spec = read_package(package).spec
    assert (spec.name, spec.label_rule.min_area_px) == ("tiny", 5)
    assert spec.facts["images"] == {"training": 7, "validation": 1}
    assert "unet-train fit --recipe tiny" in (package / "README.md").read_text()
    assert yaml.safe_load((package / "rdf.yaml").read_text())["authors"] == [{"name": "The tests"}]


def test_the_package_tells_how_large_the_objects_are_that_the_run_has_learnt(
    run: Path, older: Path, exported: tuple[Path, str], nuclei_folder: Path, tmp_path: Path
) -> None:
    kept = load_checkpoint(run / "best.pt")
    recipe = kept.read_recipe()
    images = load_images(nuclei_folder, recipe.data, 1, 2)
    expected = learnt_diameters([image for image in images if image.stem in kept.split["training"]], recipe)
    assert expected != learnt_diameters(images, recipe), "the image that validates is not learnt"
    assert read_package(exported[0]).spec.object_diameter_px == expected
    data = ["--data", str(nuclei_folder), "--no-int8"]
    assert main(["export", str(older), "--out", str(tmp_path / "package"), *data]) == 0
    assert read_package(tmp_path / "package").spec.object_diameter_px == expected


def test_without_a_licence_file_a_notice_is_written_wherever_the_command_runs(
    older: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LICENSE").write_text("of something else")
    assert main(["export", str(older), "--out", "tiny", "--author", "A. Person"]) == 0
    package = read_package(tmp_path / "tiny")
    text = (package.path / "LICENSE").read_text()
    assert re.match(r"SPDX-FileCopyrightText: 20\d\d A. Person\nSPDX-License-Identifier: MIT\n", text)
    assert package.spec.object_diameter_px is None, "neither the run nor images tell it"


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (b"\xff\xfe\xff", "it is not UTF-8")])
def test_a_licence_file_that_cannot_be_read_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, reason: str
) -> None:
    file = tmp_path / "terms"
    if content is not None:
        file.write_bytes(content)
    assert main(["export", str(run), "--out", str(tmp_path / "x"), "--license-file", str(file)]) == 2
    message = capsys.readouterr().err
    assert f"the licence text {file} cannot be read: {reason}" in message
    assert message.count("\n") == 1


def test_a_newer_recipe_may_change_the_label_rule_at_export(
    run: Path, recipe_file: str, nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = tmp_path / "newer.toml"
    newer.write_text(Path(recipe_file).read_text().replace("min_area_px = 5", "min_area_px = 9"))
    package = tmp_path / "tiny.zip"
    arguments = ["export", str(run / "best.pt"), "--out", str(package), "--recipe", str(newer)]
    arguments += ["--license-file", __file__]
    assert main(arguments) == 2
    assert "--data" in capsys.readouterr().err
    assert main([*arguments, "--data", str(nuclei_folder)]) == 0
    assert read_package(package).spec.label_rule.min_area_px == 9


def test_the_table_ends_with_the_means(run: Path, nuclei_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--data", str(nuclei_folder), "--split", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 8 + 1
    assert lines[-1].startswith("mean over 8 images: iou ")


def test_fit_resumes_a_finished_run_without_a_step(
    run: Path, nuclei_folder: Path, recipe_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", "--recipe", recipe_file, "--data", str(nuclei_folder), "--out", str(run), "--resume"]
    assert main([*arguments, "--workers", "0"]) == 0
    assert capsys.readouterr().out.startswith("4 steps")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["fit", "--recipe", "synthetic", "--data", "/nowhere", "--out", "/tmp/x"], "/nowhere is not a folder"),  # noqa: S108
        (["fit", "--recipe", "nothing", "--data", "/nowhere", "--out", "/tmp/x"], "no recipe 'nothing'"),  # noqa: S108
        (["evaluate", "/nowhere", "--data", "/nowhere"], "/nowhere"),
        (["evaluate", "/nowhere.pt", "--data", "/nowhere"], "there is no checkpoint"),
        (["export", "/nowhere", "--out", "/tmp/x"], "there is no checkpoint"),  # noqa: S108
        (["fit", "--recipe", "synthetic", "--data", "/x", "--out", "/nowhere", "--device", "tpu"], "no device 'tpu'"),
        (["fit", "--set", "schedule.batch=2", "--data", "/x", "--out", "/nowhere"], "none is named; give --recipe,"),
        (
            ["fit", "--recipe", "synthetic", "--set", "a=1", "--data", "/x", "--out", "/nowhere"],
            "nothing that a recipe",
        ),
        (["evaluate", "/nowhere", "--data", "/nowhere", "--device", "tpu"], "no device 'tpu'"),
        (["fit", "--recipe", "synthetic", "--data", "/x", "--out", "/nowhere", "--resume"], "nothing to resume"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "--data", "x", "--out", ""],
        ["fit", "--data", "", "--out", "x"],
        ["fit", "--data", "x", "--out", "x", "--from", ""],
        ["plan", "--data", "x", "--out", ""],
        ["preview", "--recipe", "synthetic", "--data", "x", "--out", ""],
        ["cross-validate", "--recipe", "synthetic", "--folds", "2", "--data", "x", "--out", ""],
        ["evaluate", "", "--data", "x"],
        ["report", "x", "--data", "x", "--out", ""],
        ["export", "x", "--out", ""],
        ["quantize", "", "--data", "x"],
        ["compare", "x", "--data", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "the path is empty; name a file or folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_names_no_folds_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["cross-validate", "--recipe", "synthetic", "--folds", "3", "--data", "x", "--out", "x", "--only", "1,a"])
    assert "argument --only: '1,a' names no folds; give numbers with commas, such as 1,3" in capsys.readouterr().err


def test_a_second_fit_into_the_same_folder_is_refused(
    run: Path, nuclei_folder: Path, recipe_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--recipe", recipe_file, "--data", str(nuclei_folder), "--out", str(run)]) == 2
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(("has_checkpoint", "words"), [(True, "with --resume goes on"), (False, "nothing to resume")])
def test_an_interrupted_fit_says_whether_it_can_be_resumed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    has_checkpoint: bool,
    words: str,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        if has_checkpoint:
            (tmp_path / "last.pt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("training.commands.fit.train", interrupted)
    assert main(["fit", "--recipe", "synthetic", "--data", "/nowhere", "--out", str(tmp_path)]) == 130
    assert words in capsys.readouterr().err
