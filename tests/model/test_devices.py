"""One net on several devices: each is checked, calls go where least is in work, and come back as from one."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model import precision, session
from model.backends import InferenceSession
from model.devices import SpreadSession, each_device
from model.errors import BackendUnavailable, InferenceFailed, InvalidPackage
from model.package import Package
from model.session import SessionOptions, gpu_count, open_session, resolve_backend
from model.stitching import Run
from service.engine.packages import loading, planning
from service.engine.packages.cost_store import CostStore
from tests.packages import write_tiny_package

TILE = np.random.default_rng(0).random((1, 1, 20, 20), dtype=np.float32)


class Watched:
    """A real session that counts its calls, may wait until as many others are in work, and may be off."""

    def __init__(self, real: InferenceSession, barrier: threading.Barrier | None = None, off: float = 0.0) -> None:
        self.backend, self.provider, self.precision = real.backend, real.provider, real.precision
        self.evidence: Run | None = None
        self.calls = 0
        self._real, self._barrier, self._off = real, barrier, off

    def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls += 1
        if self._barrier is not None:
            self._barrier.wait(timeout=30)
        return self._real.run(tiles_bcyx) + np.float32(self._off)


def test_calls_at_a_time_are_spread_evenly_and_answer_alike(tmp_path: Path) -> None:
    package, options = write_tiny_package(tmp_path), SessionOptions("cpu", threads=1)
    barrier = threading.Barrier(3)
    sessions = [Watched(open_session(package, options), barrier) for _ in range(3)]
    spread = SpreadSession(sessions)
    assert (spread.backend, spread.precision) == ("cpu", "fp32")
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(spread.run, [TILE] * 12))
    alone = open_session(package, options).run(TILE)
    assert all(np.array_equal(answer, alone) for answer in answers)
    # each waits for two others, so that none of the three could have had two calls in work
    assert [watched.calls for watched in sessions] == [4, 4, 4]


def test_evidence_is_spread_where_every_device_reduces(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    one, other = (Watched(open_session(package, SessionOptions("cpu"))) for _ in range(2))
    one.evidence = one.run
    assert SpreadSession([one, other]).evidence is None
    other.evidence = other.run
    spread = SpreadSession([one, other])
    assert spread.evidence is not None
    np.testing.assert_array_equal(spread.evidence(TILE), spread.run(TILE))
    assert [one.calls, other.calls] == [2, 0]


def test_a_failure_leaves_no_device_behind(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    sessions = [Watched(open_session(package, SessionOptions("cpu"))) for _ in range(2)]
    spread = SpreadSession(sessions)
    for _ in range(3):
        with pytest.raises(InferenceFailed):
            spread.run(np.zeros((1, 3, 20, 20), dtype=np.float32))
    spread.run(TILE)
    assert [watched.calls for watched in sessions] == [4, 0]  # one call at a time: the first is free again each time


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[Watched]]:
    """The CPU in the place of three GPUs, and the sessions that are opened on each."""
    opened: dict[int, list[Watched]] = {0: [], 1: [], 2: []}

    def open_one(package: Package, options: SessionOptions) -> InferenceSession:
        (device, *_) = options.devices
        opened[device].append(Watched(open_session(package, replace(options, backend="cpu"))))
        return opened[device][-1]

    for module in (precision, planning):
        monkeypatch.setattr(module, "GPU_BACKENDS", frozenset({"cpu"}))
    monkeypatch.setattr(precision, "open_session", open_one)
    monkeypatch.setattr(precision, "runnable_precisions", lambda *_: ("fp16", "fp32"))
    return opened


def test_every_device_is_checked_and_warmed_up(tmp_path: Path, three: dict[int, list[Watched]]) -> None:
    path = write_tiny_package(tmp_path).path
    limits = planning.PlanLimits(64 << 20, math.inf, batch_tiles=4, store=CostStore(None))
    loaded = loading.load_model(path, SessionOptions("cpu", "auto", devices=(0, 1, 2), threads=1), limits)
    assert loaded.session.precision == "fp16"
    assert len(each_device(loaded.session)) == 3
    for device in range(3):
        fp32, fp16 = three[device]
        assert (fp32.precision, fp16.precision) == ("fp32", "fp16")
        assert fp32.calls >= 1
        assert fp16.calls == three[0][1].calls > 8  # golden pair, every shape, every batch
    one = loading.load_model(path, SessionOptions("cpu", "auto", devices=(0,), threads=1), limits)
    assert len(each_device(one.session)) == 1


def test_a_device_that_answers_otherwise_serves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = write_tiny_package(tmp_path)
    monkeypatch.setattr(precision, "GPU_BACKENDS", frozenset({"cpu"}))
    monkeypatch.setattr(
        precision,
        "open_session",
        lambda package, options: Watched(open_session(package, options), off=0.1 * (options.devices == (1,))),
    )
    assert precision.open_checked(package, SessionOptions("cpu", devices=(0, 2))).session.backend == "cpu"
    with pytest.raises(InvalidPackage, match="the weights do not do what the package says"):
        precision.open_checked(package, SessionOptions("cpu", devices=(0, 1, 2)))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "gpu_count", lambda: 2)
    with pytest.raises(BackendUnavailable, match="GPU 2 is asked for, the driver reports 2; choose from 0 to 1"):
        resolve_backend(SessionOptions("cuda", devices=(0, 2)))


@pytest.mark.skipif(gpu_count() < 2, reason="needs two GPUs")
@pytest.mark.gpu
def test_two_gpus_serve_one_package(tmp_path: Path) -> None:
    opened = precision.open_checked(write_tiny_package(tmp_path), SessionOptions("cuda", "auto", devices=(0, 1)))
    assert len(each_device(opened.session)) == 2
