"""Runs: they learn, they repeat, they go on after a kill, and they say what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from training.cli import main
from training.data.datasets import load_for, load_images
from training.errors import CheckpointError, Diverged, MissingDevice, RecipeError, UnreadableFile, Unwritable
from training.learning.trainer import train, training_step
from training.options import Card, Loss, Schedule
from training.recipe import Recipe, read_recipe
from training.runs import run_folder
from training.runs.checkpoint import Checkpoint, load_checkpoint
from training.runs.run_folder import RunFiles
from training.runs.state import fresh_state, learning_rate, require_device


def weights_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return checkpoint.net | {f"averaged.{key}": value for key, value in (checkpoint.averaged or {}).items()}


def assert_same_weights(one: Checkpoint, other: Checkpoint) -> None:
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def with_schedule(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update={"schedule": Schedule(**{**recipe.schedule.model_dump(), **changes})})


class Killed(BaseException):
    """Stands for the kill of a process: nothing in the program handles it."""


@pytest.mark.parametrize("scheme", ["sgd", "adamw"])
def test_a_resumed_run_ends_with_the_same_weights(
    tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    recipe = with_schedule(tiny_recipe, optimizer=scheme)
    undisturbed = train(recipe, nuclei_folder, tmp_path / "undisturbed", workers=0)

    def kill_at_step_five(state, batch, recipe, rate, processes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        if state.step == 4:
            raise Killed
        return training_step(state, batch, recipe, rate, processes)

    with monkeypatch.context() as patch:
        patch.setattr("training.learning.trainer.training_step", kill_at_step_five)
        with pytest.raises(Killed):
            train(recipe, nuclei_folder, tmp_path / "killed", workers=0)
    assert load_checkpoint(RunFiles(tmp_path / "killed").last).step == 4
    resumed = train(recipe, nuclei_folder, tmp_path / "killed", resume=True, workers=0)
    assert resumed.step == undisturbed.step == 6
    assert_same_weights(resumed, undisturbed)
    assert resumed.figures == undisturbed.figures


def test_tiles_made_by_another_process_are_the_same(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    recipe = with_schedule(tiny_recipe, steps=3)
    alone = train(recipe, nuclei_folder, tmp_path / "alone", workers=0)
    helped = train(recipe, nuclei_folder, tmp_path / "helped", workers=1)
    assert_same_weights(alone, helped)


def test_another_seed_gives_another_net(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    runs = [
        train(with_schedule(tiny_recipe, steps=1, seed=seed), nuclei_folder, tmp_path / str(seed), workers=0)
        for seed in (0, 1)
    ]
    assert not torch.equal(runs[0].net["head.weight"], runs[1].net["head.weight"])


def test_a_run_can_begin_with_the_net_of_another(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    first = train(tiny_recipe, nuclei_folder, tmp_path / "first", workers=0)
    still = with_schedule(tiny_recipe, steps=1, learning_rate=1e-30, seed=9)
    second = train(still, nuclei_folder, tmp_path / "second", beginning=first.begun_with("first"), workers=0)
    assert second.step == 1
    assert second.figures == first.figures


def test_a_net_of_another_shape_is_no_beginning(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    first = train(with_schedule(tiny_recipe, steps=1), nuclei_folder, tmp_path / "first", workers=0)
    wider = tiny_recipe.model_copy(update={"net": tiny_recipe.net.model_copy(update={"base_width": 6})})
    with pytest.raises(CheckpointError, match="the net to begin with is another"):
        train(wider, tmp_path / "no images", tmp_path / "second", beginning=first.begun_with("first"), workers=0)


@pytest.mark.slow
def test_the_synthetic_recipe_learns_to_find_nuclei(nuclei_folder: Path, tmp_path: Path) -> None:
    recipe = with_schedule(read_recipe("synthetic"), steps=60, validate_every=60)
    last = train(recipe, nuclei_folder, tmp_path, workers=0)
    assert last.figures["iou"] > 0.7


def test_the_log_holds_losses_and_figures(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    train(tiny_recipe, nuclei_folder, tmp_path, workers=0)
    entries = [json.loads(line) for line in RunFiles(tmp_path).log.read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [3, 6]
    assert {"iou", "dice", "ap@0.5"} <= entries[-1]["validation"].keys()


def test_time_can_end_a_run_and_its_learning_rate(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    recipe = with_schedule(tiny_recipe, steps=100_000, max_minutes=0.02, validate_every=100_000)
    last = train(recipe, nuclei_folder, tmp_path, workers=0)
    assert last.step < 100_000
    assert last.elapsed_s == pytest.approx(1.2, abs=5)
    assert json.loads(RunFiles(tmp_path).log.read_text().splitlines()[-1])["lr"] == 0


def test_without_validation_the_last_net_is_kept(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    data = tiny_recipe.data.model_copy(update={"validation_fraction": 0.0})
    last = train(tiny_recipe.model_copy(update={"data": data}), nuclei_folder, tmp_path, workers=0)
    assert_same_weights(load_checkpoint(RunFiles(tmp_path).best), last)


def test_the_exported_net_is_the_moving_average(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    last = train(tiny_recipe, nuclei_folder, tmp_path, workers=0)
    assert last.averaged is not None
    net = last.build_net()
    assert not net.training
    assert torch.equal(net.state_dict()["head.weight"], last.averaged["module.head.weight"])
    assert not torch.equal(net.state_dict()["head.weight"], last.net["head.weight"])


def test_nothing_of_the_fresh_weights_is_left_in_the_average_of_a_short_run(tiny_recipe: Recipe) -> None:
    state = fresh_state(with_schedule(tiny_recipe, ema=0.999), "cpu")
    assert state.averaged is not None
    bias, average = state.net.get_parameter("head.bias"), state.averaged.module.get_parameter("head.bias")
    seen = []
    for state.step in range(200):
        with torch.no_grad():
            bias.fill_(1.0 if state.step < 20 else 5.0)
        state.follow(0.999)
        seen.append(average[0].item())
    assert seen[:20] == [1.0] * 20  # the first net as it is, not mixed with what was there before
    assert seen[-1] > 4.999  # by 0.999 alone it would be 1.66 after 180 steps
    state.step = 1_000_000
    with torch.no_grad():
        bias.fill_(6.0)
    state.follow(0.999)
    assert average[0].item() == pytest.approx(seen[-1] + 0.001 * (6 - seen[-1]), abs=1e-5)


def test_a_second_run_never_overwrites_the_first(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    recipe = with_schedule(tiny_recipe, steps=1)
    train(recipe, nuclei_folder, tmp_path, workers=0)
    with pytest.raises(CheckpointError, match="--resume"):
        train(recipe, nuclei_folder, tmp_path, workers=0)


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_file_is_no_folder_for_a_run(tiny_recipe: Recipe, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unwritable, match=rf"{tmp_path}/file is a file; expected a folder.* Correct --out"):
        train(tiny_recipe, tmp_path / "no images", tmp_path / name)


def test_what_cannot_be_trained_leaves_nothing_behind(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--workers -1 is no number of processes; give 0 "):
        train(tiny_recipe, nuclei_folder, tmp_path, workers=-1)
    large = tiny_recipe.model_copy(update={"tile_output_px": 100_000})
    with pytest.raises(RecipeError, match=r"tile_output_px = 100000 .* images of at most 120 px; expected .* 1024 px"):
        train(large, nuclei_folder, tmp_path, workers=0)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_run_cannot_be_resumed(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing to resume: there is no .*last.pt; leave --resume out"):
        train(tiny_recipe, nuclei_folder, tmp_path / "typo", resume=True, workers=0)
    assert not (tmp_path / "typo").exists()


def test_a_pixel_that_is_no_number_is_found_before_anything_is_written(
    tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(nuclei_folder, data)
    broken = min((data / "images").iterdir())
    broken.unlink()
    tifffile.imwrite(broken.with_suffix(".tif"), np.full((96, 120), np.nan, dtype=np.float32))
    with pytest.raises(UnreadableFile, match=broken.stem):
        train(tiny_recipe, data, tmp_path / "run", workers=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["gpu", "cuda:0", "mps", ""])
def test_an_unknown_device_is_refused_with_those_that_are_here(device: str) -> None:
    with pytest.raises(MissingDevice, match=rf"there is no device '{device}'; here there is: cpu"):
        require_device(device)


def test_a_card_is_kept_for_the_images_that_it_speaks_of(
    tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path
) -> None:
    some = load_images(nuclei_folder, tiny_recipe.data, 1, 3)[2]
    for name, digests in {"own": f"0123456789ab {some.pixels_digest()}", "others": "0123456789ab", "any": ""}.items():
        card = Card(data="Somebody's images", license="CC0-1.0", images=digests)
        recipe = with_schedule(tiny_recipe, steps=1).model_copy(update={"card": card})
        kept = train(recipe, nuclei_folder, tmp_path / name, workers=0).read_recipe().card
        assert kept == (Card() if name == "others" else card)
        train(recipe, nuclei_folder, tmp_path / name, resume=True, workers=0)


def test_a_folder_that_another_process_trains_into_is_left_to_it(
    tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "_PATIENCE_S", 0)
    recipe, files = with_schedule(tiny_recipe, steps=1), RunFiles(tmp_path / "run")
    with files.taken(), pytest.raises(CheckpointError, match=r"another process trains into .*/run; let it end"):
        train(recipe, nuclei_folder, files.folder, workers=0)
    assert not files.last.exists()
    train(recipe, nuclei_folder, files.folder, workers=0)
    before = files.last.read_bytes(), files.log.read_bytes()
    with files.taken(), pytest.raises(CheckpointError, match="another process trains into"):
        train(recipe, nuclei_folder, files.folder, resume=True, workers=0)
    assert (files.last.read_bytes(), files.log.read_bytes()) == before


def test_a_folder_that_was_filled_while_images_were_read_is_not_overwritten(
    tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*arguments: Any) -> Any:
        (tmp_path / "best.pt").write_bytes(b"another's net")
        return load_for(*arguments)

    monkeypatch.setattr("training.learning.trainer.load_for", meanwhile)
    with pytest.raises(CheckpointError, match=r"best.pt is there already"):
        train(tiny_recipe, nuclei_folder, tmp_path, workers=0)
    assert (tmp_path / "best.pt").read_bytes() == b"another's net"


def test_cuda_without_a_gpu_is_refused_before_the_images_are_read(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # also where the test's machine has a GPU
    with pytest.raises(
        MissingDevice, match=r"device 'cuda' cannot be used: torch .*here there is: cpu. Leave --device"
    ):
        train(tiny_recipe, tmp_path / "no images", tmp_path / "run", device="cuda")


def test_a_net_without_a_state_to_resume_from_is_not_overwritten(
    tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "best.pt").write_bytes(b"somebody's net")
    with pytest.raises(CheckpointError, match=r"best.pt is there already; choose another folder"):
        train(tiny_recipe, nuclei_folder, tmp_path, workers=0)
    assert (tmp_path / "best.pt").read_bytes() == b"somebody's net"


def test_a_run_begun_before_an_option_existed_goes_on(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    recipe = with_schedule(tiny_recipe, steps=2)
    undisturbed = train(recipe, nuclei_folder, tmp_path / "new", workers=0)
    train(recipe, nuclei_folder, tmp_path / "old", workers=0)
    file = RunFiles(tmp_path / "old").last
    state = torch.load(file, weights_only=True)
    for name in ("loss", "processes", "digests", "pixels", "origin", "arguments"):
        del state[name]
    del state["recipe"]["loss"]
    torch.save(state, file)
    assert_same_weights(train(recipe, nuclei_folder, tmp_path / "old", resume=True, workers=0), undisturbed)


def test_a_run_that_time_has_ended_is_not_lengthened(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    recipe = with_schedule(tiny_recipe, steps=100_000, max_minutes=0.002, validate_every=100_000)
    ended = train(recipe, nuclei_folder, tmp_path, workers=0)
    assert train(recipe, nuclei_folder, tmp_path, resume=True, workers=0).step == ended.step


def test_the_loss_of_a_step_holds_the_dice_that_the_recipe_asks_for(tiny_recipe: Recipe) -> None:
    batch = (torch.rand(1, 1, 100, 100), torch.randint(0, 2, (1, 60, 60)), torch.ones(1, 60, 60))
    plain, half, whole = (
        training_step(
            fresh_state(tiny_recipe, "cpu"), batch, tiny_recipe.model_copy(update={"loss": Loss(dice=dice)}), 0.0
        )
        for dice in (0.0, 0.5, 1.0)
    )
    assert plain < half < whole
    assert half == pytest.approx((plain + whole) / 2)


def test_a_run_is_not_resumed_by_another_recipe(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    train(with_schedule(tiny_recipe, steps=1), nuclei_folder, tmp_path, workers=0)
    with pytest.raises(CheckpointError, match=r"another recipe: schedule.steps was 1 and is 2\. Resume with"):
        train(with_schedule(tiny_recipe, steps=2), nuclei_folder, tmp_path, resume=True, workers=0)


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_run_is_not_resumed_with_other_images_of_the_same_names(
    tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path, kind: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(nuclei_folder, data)
    train(with_schedule(tiny_recipe, steps=1), data, tmp_path / "run", workers=0)
    path = max((data / kind).iterdir())
    Image.fromarray(np.flipud(np.asarray(Image.open(path)))).save(path)
    with pytest.raises(CheckpointError, match=rf"1 of 8 have other pixels or labels now, {path.stem} is the first"):
        train(with_schedule(tiny_recipe, steps=1), data, tmp_path / "run", resume=True, workers=0)


def test_bf16_is_close_to_fp32(tiny_recipe: Recipe) -> None:
    batch = (torch.rand(1, 1, 100, 100), torch.randint(0, 2, (1, 60, 60)), torch.ones(1, 60, 60))
    losses = [
        training_step(fresh_state(tiny_recipe, "cpu"), batch, with_schedule(tiny_recipe, precision=name), 0.0)
        for name in ("fp32", "bf16")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_a_loss_that_is_no_number_ends_the_run(tiny_recipe: Recipe) -> None:
    batch = (torch.full((1, 1, 100, 100), torch.nan), torch.zeros(1, 60, 60, dtype=torch.int64), torch.ones(1, 60, 60))
    with pytest.raises(Diverged, match="learning_rate"):
        training_step(fresh_state(tiny_recipe, "cpu"), batch, tiny_recipe, 0.01)


@pytest.mark.parametrize(("decay", "halfway"), [("constant", 1.0), ("poly", 0.5**0.9), ("cosine", 0.5)])
def test_learning_rates_go_down_to_the_end(decay: str, halfway: float) -> None:
    schedule = Schedule.model_validate({"learning_rate": 0.1, "decay": decay, "warmup_steps": 9})
    assert learning_rate(schedule, 0, 0.0) == pytest.approx(0.01)
    assert learning_rate(schedule, 500, 0.5) == pytest.approx(0.1 * halfway, rel=1e-5)
    assert learning_rate(schedule, 999, 1.0) == pytest.approx(0.1 if decay == "constant" else 0.0, abs=1e-8)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half a zip"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last.pt is no readable checkpoint"):
        load_checkpoint(path)


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="format 99, 1 is expected"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("command", ["evaluate", "export", "report", "fit"])
def test_a_run_without_a_net_to_export_is_said_to_be_at_work_or_ended(
    command: str, nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "last.pt").touch()
    arguments = [command, "--from", str(run)] if command == "fit" else [command, str(run)]
    if command != "export":
        arguments += ["--data", str(nuclei_folder)]
    if command != "evaluate":
        arguments += ["--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert f"{run} has no best.pt yet: " in message
    assert f"it ended before. Resume it (--resume), or name its newest state, {run / 'last.pt'}" in message
    with RunFiles(run).taken():
        assert main(arguments) == 2
    message = capsys.readouterr().err
    assert f"a process trains there. Wait for it, or name its newest state, {run / 'last.pt'}" in message


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "last.pt")


def test_the_last_net_is_kept_where_no_image_shall_choose(
    tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path
) -> None:
    schedule = tiny_recipe.schedule.model_copy(update={"keep": "last", "steps": 5})
    last = train(tiny_recipe.model_copy(update={"schedule": schedule}), nuclei_folder, tmp_path, workers=0)
    assert last.split["validation"]
    assert load_checkpoint(RunFiles(tmp_path).best).step == last.step == 5
