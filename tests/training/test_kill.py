"""A run that is killed, whenever, and resumed leaves the same weights and log as one that nobody disturbed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from training.learning.trainer import train
from training.recipe import Recipe, read_recipe
from training.runs.checkpoint import load_checkpoint
from training.runs.run_folder import Journal, RunFiles

RECIPE = """
name = "tiny"
tile_output_px = 60
data = { validation_fraction = 0.3 }
net = { base_width = 4, depth = 2, dropout = 0.3 }
augmentation = { noise = 0.05 }

[schedule]
optimizer = "adamw"
learning_rate = 0.005
steps = 40
ema = 0.9
validate_every = 10
checkpoint_every = 1
"""


class Killed(BaseException):
    """Stands for the kill of a process: nothing in the program handles it."""


def equal(one: Any, other: Any) -> bool:
    """Whether two states are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return bool(one == other)


def assert_same_files(one: Path, other: Path) -> None:
    """Both checkpoints and the log are the same, but for the time that it took and the command."""
    for name in ("last", "best"):
        ours, theirs = (asdict(load_checkpoint(getattr(RunFiles(folder), name))) for folder in (one, other))
        assert [
            key for key in ours if key not in {"elapsed_s", "arguments"} and not equal(ours[key], theirs[key])
        ] == []
    lines, expected = (
        [json.loads(line) | {"minutes": 0} for line in RunFiles(folder).log.read_text().splitlines()]
        for folder in (one, other)
    )
    assert lines == expected


@pytest.fixture
def undisturbed(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> Path:
    train(tiny_recipe, nuclei_folder, tmp_path / "undisturbed", workers=0)
    return tmp_path / "undisturbed"


def kill_at(patch: pytest.MonkeyPatch, moment: int) -> None:
    """Kill at a moment, counted from 0: just before or after a file takes its place or a line is added to the log."""
    moments = iter(range(moment + 1))

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **options: Any) -> Any:
            if next(moments, None) is None:
                raise Killed
            result = original(*arguments, **options)
            if next(moments, None) is None:
                raise Killed
            return result

        return act

    patch.setattr(Path, "replace", watched(Path.replace))
    patch.setattr(Journal, "write", watched(Journal.write))


@pytest.mark.slow
def test_a_run_killed_at_any_write_ends_the_same(
    tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment in range(100):
        out = tmp_path / f"killed-{moment}"
        with monkeypatch.context() as patch:
            kill_at(patch, moment)
            try:
                train(tiny_recipe, nuclei_folder, out, workers=0)
            except Killed:
                pass
            else:
                break
        train(tiny_recipe, nuclei_folder, out, resume=RunFiles(out).last.exists(), workers=0)
        assert_same_files(out, undisturbed)
    assert moment > 12, "four checkpoints, one best net and two lines at least, before and after"


def test_half_written_files_are_never_taken(
    tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = RunFiles(tmp_path / "killed")
    with monkeypatch.context() as patch:
        kill_at(patch, 10)
        with pytest.raises(Killed):
            train(tiny_recipe, nuclei_folder, files.folder, workers=0)
    step = load_checkpoint(files.last).step
    whole = files.last.read_bytes()
    for name in ("last.pt.partial", "best.pt.partial", "log.jsonl.partial"):
        (files.folder / name).write_bytes(whole[: len(whole) // 2])
    ahead = {"step": step + 1, "minutes": 0.1, "loss": 9.0, "lr": 9.0}
    with files.log.open("a") as log:
        log.write(f'{json.dumps(ahead)}\n{{"step": {step}, "minu')
    train(tiny_recipe, nuclei_folder, files.folder, resume=True, workers=0)
    assert_same_files(files.folder, undisturbed)


@contextmanager
def fit(recipe: Path, data: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``unet-train fit`` in a process of its own; whatever it says is in a file beside ``out``."""
    arguments = ["fit", "--recipe", str(recipe), "--data", str(data), "--out", str(out)]
    resume = ["--resume"] if RunFiles(out).last.exists() else []
    program = [sys.executable, "-m", "training.cli"]
    with (
        out.with_suffix(".txt").open("ab") as said,
        subprocess.Popen([*program, *arguments, *resume], stdout=said, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def wait_for_checkpoints(process: subprocess.Popen[bytes], file: Path, count: int) -> None:
    """Wait until ``file`` has been written ``count`` times more."""
    seen = file.stat().st_mtime_ns if file.exists() else None
    while count:
        assert process.poll() is None, file.parent.with_suffix(".txt").read_text()
        newest = file.stat().st_mtime_ns if file.exists() else None
        count -= newest != seen
        seen = newest
        time.sleep(0.001)


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_the_same(
    nuclei_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    recipe, out = tmp_path / "tiny.toml", tmp_path / "killed"
    recipe.write_text(RECIPE)
    train(read_recipe(str(recipe)), nuclei_folder, tmp_path / "undisturbed", workers=0)
    chance, steps = random.Random(0), [0]  # noqa: S311 - no secret
    for _ in range(3):
        with fit(recipe, nuclei_folder, out) as process:
            wait_for_checkpoints(process, RunFiles(out).last, chance.randint(2, 5))
            time.sleep(chance.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        steps.append(load_checkpoint(RunFiles(out).last).step)
    assert steps == sorted(set(steps)), "each sitting goes on from where the one before was killed"
    assert steps[-1] < 40
    with fit(recipe, nuclei_folder, out) as process:
        assert process.wait(280) == 0, out.with_suffix(".txt").read_text()
    assert_same_files(out, tmp_path / "undisturbed")
