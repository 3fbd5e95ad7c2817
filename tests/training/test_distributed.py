"""Several processes, started by torchrun, learn together what one learns from a larger batch."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.errors import CheckpointError, MissingDevice
from training.learning.distributed import ALONE, Processes, joined
from training.learning.trainer import train
from training.recipe import read_recipe
from training.runs.checkpoint import load_checkpoint
from training.runs.run_folder import RunFiles

RECIPE = """
name = "tiny"
tile_output_px = 60
data = {{ validation_fraction = 0.3 }}
net = {{ base_width = 4, depth = 2, dropout = 0.0, batch_norm = {batch_norm} }}
loss = {{ dice = 0.5 }}

[schedule]
learning_rate = 0.01
momentum = 0.9
batch = {batch}
steps = 6
ema = 0.9
clip_norm = 1.0
validate_every = 3
checkpoint_every = 2
"""
# dies in the middle of a run, in the second process alone
DRIVER = """
import os, sys
import training.learning.trainer as trainer
from training.cli import main
step = trainer.training_step
def dying(state, *arguments):
    if state.step == 3 and os.environ["RANK"] == "1":
        os._exit(9)
    return step(state, *arguments)
trainer.training_step = dying
sys.exit(main(sys.argv[1:]))
"""


def recipe_of(batch: int, *, batch_norm: bool, folder: Path) -> Path:
    file = folder / f"{batch}.toml"
    file.write_text(RECIPE.format(batch=batch, batch_norm=str(batch_norm).lower()))
    return file


@pytest.fixture(scope="module")
def one_each(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipe of two processes with a batch of one each, and batch normalisation."""
    return recipe_of(1, batch_norm=True, folder=tmp_path_factory.mktemp("recipes"))


def torchrun(program: list[str], recipe: Path, data: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *program]
    arguments = ["fit", "--recipe", str(recipe), "--data", str(data), "--out", str(out), "--workers", "0", *more]
    return subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=240, check=False)


def run_of_two(recipe: Path, data: Path, out: Path) -> Path:
    finished = torchrun(["-m", "training.cli"], recipe, data, out, "--device", "cpu")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("6 steps in") == 1, "the first process alone speaks"
    return out


@pytest.fixture(scope="module")
def together(one_each: Path, nuclei_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of_two(one_each, nuclei_folder, tmp_path_factory.mktemp("together") / "run")


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", [False, True])
def test_two_processes_learn_what_one_learns_from_twice_the_batch(
    request: pytest.FixtureRequest, nuclei_folder: Path, tmp_path: Path, batch_norm: bool
) -> None:
    # batch normalisation enlarges roundings; by each process's own tiles weights would differ by 0.003
    rtol, atol = (1e-3, 5e-5) if batch_norm else (1e-4, 1e-6)
    recipe = recipe_of(2, batch_norm=batch_norm, folder=tmp_path)
    alone = train(read_recipe(str(recipe)), nuclei_folder, tmp_path / "alone", workers=0)
    if batch_norm:
        out: Path = request.getfixturevalue("together")
    else:
        out = run_of_two(recipe_of(1, batch_norm=False, folder=tmp_path), nuclei_folder, tmp_path / "two")
    last = load_checkpoint(RunFiles(out).last)
    assert last.step == alone.step == 6
    assert last.loss == pytest.approx(alone.loss, rel=1e-5)
    assert alone.averaged is not None
    assert last.averaged is not None
    for ours, theirs in ((last.net, alone.net), (last.averaged, alone.averaged)):
        assert ours.keys() == theirs.keys(), "no prefix of the wrapper"
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=rtol, atol=atol)
    assert last.processes == 2


@pytest.mark.slow
def test_the_first_process_alone_writes(together: Path) -> None:
    assert sorted(file.name for file in together.iterdir()) == [".lock", "best.pt", "last.pt", "log.jsonl"]
    entries = [json.loads(line) for line in RunFiles(together).log.read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [3, 6]
    assert load_checkpoint(RunFiles(together).best).build_net().training is False


@pytest.mark.slow
def test_a_run_that_lost_a_process_goes_on_with_the_same_result(
    together: Path, one_each: Path, nuclei_folder: Path, tmp_path: Path
) -> None:
    driver, out = tmp_path / "driver.py", tmp_path / "run"
    driver.write_text(DRIVER)
    assert torchrun([str(driver)], one_each, nuclei_folder, out).returncode != 0
    assert load_checkpoint(RunFiles(out).last).step == 2
    finished = torchrun(["-m", "training.cli"], one_each, nuclei_folder, out, "--resume")
    assert finished.returncode == 0, finished.stderr
    ours, theirs = (load_checkpoint(RunFiles(folder).last) for folder in (out, together))
    assert [name for name in ours.net if not torch.equal(ours.net[name], theirs.net[name])] == []
    with pytest.raises(CheckpointError, match=r"made by 2 processes .* here there are 1; start 2 \(torchrun"):
        train(read_recipe(str(one_each)), nuclei_folder, out, resume=True, workers=0)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 5), st.integers(0, 5))
def test_all_processes_together_take_the_tiles_of_one(count: int, batch: int, start: int, steps: int) -> None:
    shares = [Processes(rank, count).tile_numbers(batch, start, start + steps) for rank in range(count)]
    for step in range(steps):
        taken = sorted(number for share in shares for number in share[step * batch : (step + 1) * batch])
        first = (start + step) * count * batch
        assert taken == list(range(first, first + count * batch))


def test_numbers_of_millions_of_steps_are_computed_as_they_are_asked_for() -> None:
    numbers = Processes(1, 2).tile_numbers(3, 5, 5 + 10**15)
    assert len(numbers) == 3 * 10**15
    assert list(itertools.islice(numbers, 5)) == [33, 34, 35, 39, 40]
    assert numbers[-1] == ((5 + 10**15 - 1) * 2 + 1) * 3 + 2
    with pytest.raises(IndexError):
        numbers[3 * 10**15]


def test_without_torchrun_a_process_is_alone() -> None:
    with joined("cpu") as processes:
        assert processes is ALONE


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "RANK": "6", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(MissingDevice, match=r"process 2 .* has no GPU of its own: there are 2"), joined("cuda"):
        pass
