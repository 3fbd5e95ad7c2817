"""One net on several devices: calls go where least is in work, and come back as from one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.backends import InferenceSession
from model.devices import SpreadSession, open_on_devices
from model.errors import BackendUnavailable, InferenceFailed
from model.session import SessionOptions, gpu_count, open_session
from tests.packages import write_tiny_package

TILE = np.random.default_rng(0).random((1, 1, 20, 20), dtype=np.float32)


class Meeting:
    """A real session whose calls wait until as many others are in work."""

    def __init__(self, session: InferenceSession, barrier: threading.Barrier) -> None:
        self.backend, self.provider, self.precision = session.backend, session.provider, session.precision
        self.calls = 0
        self._session, self._barrier = session, barrier

    def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls += 1
        self._barrier.wait(timeout=30)
        return self._session.run(tiles_bcyx)


def test_calls_at_a_time_are_spread_evenly_and_answer_alike(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    options = SessionOptions("cpu", devices=(0, 1, 2), threads=1)
    barrier = threading.Barrier(3)
    spread = open_on_devices(options, lambda _: Meeting(open_session(package, options), barrier))
    assert isinstance(spread, SpreadSession)
    assert (spread.backend, spread.precision) == ("cpu", "fp32")
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(spread.run, [TILE] * 12))
    alone = open_session(package, options).run(TILE)
    assert all(np.array_equal(answer, alone) for answer in answers)
    # each waits for two others, so that none of the three could have had two calls in work
    assert [session.calls for session in spread.sessions if isinstance(session, Meeting)] == [4, 4, 4]


def test_a_failure_leaves_no_device_behind(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    barrier = threading.Barrier(1)
    sessions = [Meeting(open_session(package, SessionOptions("cpu")), barrier) for _ in range(2)]
    spread = SpreadSession(sessions)
    for _ in range(3):
        with pytest.raises(InferenceFailed):
            spread.run(np.zeros((1, 3, 20, 20), dtype=np.float32))
    spread.run(TILE)
    assert [session.calls for session in sessions] == [4, 0]  # one call at a time: the first is free again each time


def test_one_device_needs_nothing_between(tmp_path: Path) -> None:
    session = open_session(write_tiny_package(tmp_path), SessionOptions("cpu"))
    assert open_on_devices(SessionOptions(), lambda _: session) is session


@pytest.mark.skipif(gpu_count() == 0, reason="needs a GPU")
@pytest.mark.gpu
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    count = gpu_count()
    with pytest.raises(BackendUnavailable, match=f"GPU {count} is asked for, the driver reports {count}"):
        open_session(write_tiny_package(tmp_path), SessionOptions("cuda", devices=(0, count)))
