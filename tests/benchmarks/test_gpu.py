"""What a GPU is measured with, on the CPU: the loops run the net, and what cannot be measured is said at once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.gpu import main, measure, rates, seconds_each
from model.backends import OnnxRuntimeSession
from model.session import SessionOptions, gpu_count
from tests.packages import write_tiny_package


class Watched:
    """A real session that notes what it runs over."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.shapes: list[tuple[int, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def run(self, outputs: list[str], feeds: dict[str, NDArray[np.float32]]) -> Any:
        self.shapes.extend(array.shape for array in feeds.values())
        return self._runtime.run(outputs, feeds)


def test_the_net_runs_over_the_whole_batch(tmp_path: Path) -> None:
    session = OnnxRuntimeSession(write_tiny_package(tmp_path), "cpu", SessionOptions("cpu", threads=1), "fp32")
    watched = Watched(session.runtime)
    figures = rates(watched, "cpu", np.zeros((2, 1, 20, 20), dtype=np.float32), 0.02)
    assert min(figures.on_device, figures.copied, figures.two_at_a_time) > 0
    assert set(watched.shapes) == {(2, 1, 20, 20)}


def test_two_threads_call_side_by_side() -> None:
    both = threading.Barrier(2)
    assert seconds_each(lambda: both.wait(timeout=30), 0.0, 2) > 0  # broken where one thread does it all


@pytest.mark.gpu
def test_every_variant_is_measured_or_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if gpu_count() == 0:
        pytest.skip("needs a GPU")
    lines = measure(write_tiny_package(tmp_path), "fp16", [1, 2], [20, 40], 0.01)
    assert len(lines) - 1 + capsys.readouterr().out.count("is left out") == 3 + 4


@pytest.mark.gpu
def test_without_a_gpu_it_says_so_before_any_work(capsys: pytest.CaptureFixture[str]) -> None:
    if gpu_count() > 0:
        pytest.skip("says what happens without a GPU")
    assert main(["--batches", "4"]) == 2
    assert "the driver reports 0 NVIDIA GPUs" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--batches", "0"], ["--edges", "-5"], ["--width", "none"]])
def test_impossible_sizes_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert arguments[0] in capsys.readouterr().err
