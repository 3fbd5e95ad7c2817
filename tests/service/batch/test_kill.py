"""Shards that are killed: real processes, SIGKILL at any time, and every image done once in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.images import disc, png
from tests.packages import write_tiny_package

SHARDS = 3
IMAGES = {f"{'deep/' * (index % 2)}image{index}.png": disc(700 + index, 900, 20 + index) for index in range(30)}


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    write_tiny_package(tmp_path / "packages")
    (tmp_path / "images" / "deep").mkdir(parents=True)
    for name, image_yx in IMAGES.items():
        (tmp_path / "images" / name).write_bytes(png(image_yx))
    return tmp_path


def start(workplace: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "service.cli", "segment", f"{workplace}/images/**/*.png", "-o"]
    return subprocess.Popen(
        [*command, str(workplace / "out"), *options],
        env={**os.environ, "UNET_MODELS_DIR": str(workplace / "packages"), "UNET_BACKEND": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def below(workplace: Path, folder: str) -> set[Path]:
    return {path for path in (workplace / "out" / ".unet" / folder).rglob("*") if path.is_file()}


def receipts(workplace: Path) -> set[Path]:
    """Those of results that are finished."""
    return {path for path in below(workplace, "receipts") if "finished" in json.loads(path.read_bytes())}


def results(workplace: Path) -> dict[str, Path]:
    """Whatever a viewer of the folder finds."""
    out = workplace / "out"
    found = [path for path in out.rglob("*") if path.is_file() and ".unet" not in path.parts]
    return {str(path.relative_to(out)): path for path in found}


def assert_whole(found: dict[str, Path]) -> None:
    for name, path in found.items():
        expected_yx = np.where(IMAGES[name.replace("_mask", "")] > 110, 255, 0)
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected_yx)


def kill_after(process: subprocess.Popen[str], workplace: Path, more: int, delay_s: float) -> None:
    """End a process by SIGKILL a moment after it has finished ``more`` images."""
    before = len(receipts(workplace))
    until = time.monotonic() + 60
    while len(receipts(workplace)) < before + more and process.poll() is None:
        assert time.monotonic() < until, "no result in a minute"
        time.sleep(0.005)  # to look at all of them takes as long
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


@pytest.mark.slow
def test_killed_shards_make_every_result_once_and_leave_no_half_of_one(workplace: Path) -> None:
    moments = np.random.default_rng(0)
    made: dict[Path, tuple[int, int]] = {}
    for index, more in [(0, 1), (1, 0), (2, 2), (0, 2), (1, 3)]:
        process = start(workplace, "--shard", f"{index}/{SHARDS}")
        kill_after(process, workplace, more, moments.random() * 0.03)
        assert_whole(results(workplace))
        for receipt in receipts(workplace):
            result = workplace / "out" / receipt.relative_to(workplace / "out" / ".unet" / "receipts").with_suffix("")
            state = (result.stat().st_ino, result.stat().st_mtime_ns)
            assert made.setdefault(result, state) == state, "a finished image was done again"
    assert 0 < len(made) < len(IMAGES), "every kill came too early or too late to show anything"
    rest = [start(workplace, "--shard", f"{index}/{SHARDS}") for index in range(SHARDS)]
    said = [process.communicate(timeout=120) for process in rest]
    assert [process.returncode for process in rest] == [0] * SHARDS, said
    found = results(workplace)
    assert found.keys() == {name.replace(".png", "_mask.png") for name in IMAGES}
    assert_whole(found)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in made} == made
    assert not below(workplace, "parts")
    counts = [int(line.split("wrote ")[1].split()[0]) for line, _ in said]
    assert sum(counts) == len(IMAGES) - len(made)


@pytest.mark.slow
def test_a_second_process_for_a_shard_waits_and_finds_it_done(workplace: Path) -> None:
    first = start(workplace)
    until = time.monotonic() + 60
    while not receipts(workplace):
        assert time.monotonic() < until
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # in the middle of its work
    second = start(workplace)
    assert second.stderr is not None
    assert "another process works on shard 0/1" in second.stderr.readline()
    first.send_signal(signal.SIGCONT)
    assert first.communicate(timeout=60)[0].startswith(f"wrote {len(IMAGES)} results")
    said = second.communicate(timeout=60)[0]
    assert said == f"wrote 0 results to {workplace / 'out'}, {len(IMAGES)} were there\n"
    assert len(json.loads(next(iter(receipts(workplace))).read_text())["result"]["sha256"]) == 64
