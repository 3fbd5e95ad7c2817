"""Files are written whole or not at all; full and read-only disks are told with place, room and remedy, and early."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.disks import small_disk
from training.choosing.plan import Plan
from training.cli import main
from training.errors import Unwritable
from training.learning.trainer import train, training_step
from training.recipe import Recipe
from training.report.page import write_page
from training.runs.checkpoint import load_checkpoint
from training.runs.run_folder import RunFiles
from training.writing import replacing, require_file, require_folder, write_text


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which no file can be made."""

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("training.writing.tempfile.TemporaryFile", refuse)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, nuclei_folder: Path) -> Path:
    recipe = Recipe.model_validate(
        {"name": "tiny", "tile_output_px": 60, "net": {"base_width": 4, "depth": 2}, "schedule": {"steps": 1}}
    )
    train(recipe.with_fold("1/4"), nuclei_folder, tmp_path_factory.mktemp("writing") / "run", workers=0)
    return tmp_path_factory.getbasetemp() / "writing0" / "run"


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_text(path, "old")
    with small_disk(), pytest.raises(Unwritable) as caught:
        write_text(path, "new" * 20_000)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    said = str(caught.value)
    assert said.startswith(f"{path} cannot be written: File too large (")
    assert said.endswith(" MiB are free there); make room, or write to another place")


def test_what_torch_says_of_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    with small_disk(), pytest.raises(Unwritable, match=r"last\.pt cannot be written: File too large"):  # noqa: SIM117
        with replacing(tmp_path / "last.pt") as file:
            torch.save({"net": torch.zeros(50_000)}, file)
    assert not list(tmp_path.iterdir())


def test_an_error_of_what_is_written_is_not_taken_for_the_disks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no number"), replacing(tmp_path / "a"):
        raise ValueError("no number")
    assert not list(tmp_path.iterdir())


def test_a_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR)
    try:
        require_file(path)
        write_text(path, "page")
        assert os.read(reader, 9) == b"page"
    finally:
        os.close(reader)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipe"]
    assert path.is_fifo()


def test_pages_and_recipes_are_replaced_as_a_whole(tmp_path: Path, tiny_recipe: Recipe) -> None:
    page, recipe = tmp_path / "index.html", tmp_path / "recipe.toml"
    for path in (page, recipe):
        path.write_text("old")
    with small_disk(300):
        with pytest.raises(Unwritable, match="index"):
            write_page(page, "style.css")
        with pytest.raises(Unwritable, match="recipe"):
            Plan((), tiny_recipe, ()).write(recipe)
    assert [path.read_text() for path in (page, recipe)] == ["old", "old"]


def test_a_report_that_does_not_fit_leaves_the_one_that_is_there(
    run: Path, nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    out.write_text("the good one")
    with small_disk():
        assert main(["report", str(run), "--data", str(nuclei_folder), "--out", str(out), "--worst", "0"]) == 2
    assert f"unet-train report: {out} cannot be written: File too large" in capsys.readouterr().err
    assert out.read_text() == "the good one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_run_that_fills_the_disk_keeps_its_newest_checkpoint_and_says_how_it_goes_on(
    nuclei_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        'name = "tiny"\ntile_output_px = 60\nnet = { base_width = 4, depth = 2 }\n'
        "schedule = { steps = 3, checkpoint_every = 1 }\ndata = { validation_fraction = 0 }\n"
    )
    arguments = ["fit", "--recipe", str(recipe), "--data", str(nuclei_folder), "--out", str(tmp_path / "run")]
    full = small_disk()

    def fill(state: Any, *others: Any) -> float:
        if state.step == 1:
            full.__enter__()
        return training_step(state, *others)

    with monkeypatch.context() as patch:
        patch.setattr("training.learning.trainer.training_step", fill)
        try:
            assert main([*arguments, "--workers", "0"]) == 2
        finally:
            full.__exit__(None, None, None)
    said = capsys.readouterr().err
    assert f"unet-train fit: {tmp_path}/run/last.pt cannot be written: File too large" in said
    assert said.endswith("; the same command with --resume goes on from the newest checkpoint\n")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "last.pt"]
    assert load_checkpoint(RunFiles(tmp_path / "run").last).step == 1
    assert main([*arguments, "--workers", "0", "--resume"]) == 0


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_is_no_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unwritable, match=r"file is a file; expected a folder, or none yet. Correct --out"):
        require_folder(tmp_path / name)


def test_probing_leaves_nothing(tmp_path: Path) -> None:
    require_folder(tmp_path / "not yet" / "there")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["fit", "--recipe", "synthetic", "--data", "/nowhere", "--out", "{}/new"], "{}/new"),
        (["fit", "--data", "/nowhere", "--out", "{}/new"], "{}/new"),
        (["cross-validate", "--recipe", "synthetic", "--data", "/nowhere", "--out", "{}", "--folds", "2"], "{}"),
        (["plan", "--data", "/nowhere", "--out", "{}/a.toml"], "{}"),
        (["preview", "--recipe", "synthetic", "--data", "/nowhere", "--out", "{}"], "{}"),
        (["report", "{}/run", "--data", "/nowhere", "--out", "{}/new/a.html"], "{}/new"),
        (["export", "{}/run", "--data", "/nowhere", "--out", "{}/package"], "{}"),
        (["quantize", "{}/zoo", "--data", "/nowhere"], "{}"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_disk_that_cannot_be_written_is_told_before_any_work(
    arguments: list[str], place: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(Path(__file__).parents[2] / "model" / "zoo" / "phase-t98g", tmp_path / "zoo")
    before = sorted(tmp_path.rglob("*"))
    assert main([argument.format(tmp_path) for argument in arguments]) == 2
    expected = (
        f"unet-train {arguments[0]}: {place.format(tmp_path)} cannot be written: Read-only file system; make it "
        "writable, or write to another place"
    )
    assert capsys.readouterr().err.splitlines()[-1].startswith(expected)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_that_is_full_in_the_middle_of_an_export_is_told_with_the_place(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for step in ("describe", "golden_image"):
        monkeypatch.setattr(f"training.commands.export.{step}", lambda *_, **__: None)
    monkeypatch.setattr("training.commands.export.export_package", full)
    assert main(["export", str(run), "--out", str(tmp_path / "package")]) == 2
    said = capsys.readouterr().err
    assert f"unet-train export: {tmp_path}/package cannot be written: No space left on device (" in said
    assert "MiB are free there); make room" in said
