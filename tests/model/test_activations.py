"""Nets do not each keep the memory of their largest tile."""

from __future__ import annotations

import logging
import subprocess
import sys
from threading import Thread

import pytest

from model.activations import Activations
from model.package import ZOO, read_package
from model.session import SessionOptions, activation_bytes_per_pixel, open_session

_EDGE_PX = 700
_MEASURE = """
import math
import sys
import numpy as np
from model.activations import Activations
from model.package import ZOO, read_package
from model.session import SessionOptions, open_session
from tests.memory import resident_kib

backend, limit, edge = sys.argv[1:]
options = SessionOptions(backend, "int8", threads=2, activations=Activations(float(limit)))
nets = [open_session(read_package(ZOO / "nuclei"), options) for _ in range(4)]
tile = np.random.default_rng(0).random((1, 1, int(edge), int(edge)), dtype=np.float32)
for net in nets:
    net.run(tile[..., :252, :252])
answers = []
for net in (*nets, nets[0]):
    answers.append(net.run(tile))
    print(resident_kib() * 1024)
assert all((answer == answers[0]).all() for answer in answers)
"""


class Keeping:
    """A net that counts how often it gave its memory back."""

    def __init__(self) -> None:
        self.releases = 0

    def release(self) -> None:
        self.releases += 1


def test_the_net_that_has_not_run_for_longest_gives_its_memory_back() -> None:
    activations, nets = Activations(100), [Keeping() for _ in range(3)]
    for number in (0, 1, 0, 2):  # 40 each: the third is one too many
        with activations.taken(nets[number], 40):
            pass
    assert [net.releases for net in nets] == [0, 1, 0]


def test_what_cannot_be_given_back_troubles_no_other_net(caplog: pytest.LogCaptureFixture) -> None:
    class Holding(Keeping):
        def release(self) -> None:
            super().release()
            raise RuntimeError("busy")

    activations, holding, third = Activations(100), Holding(), Keeping()
    with activations.taken(holding, 60), caplog.at_level(logging.WARNING):
        pass
    for net in (Keeping(), third):
        with activations.taken(net, 60):
            pass
    assert holding.releases == 2
    assert "keeps its memory: busy" in caplog.text
    assert third.releases == 0


def test_it_is_told_once_whenever_some_have_given_memory_back() -> None:
    told: list[int] = []
    nets = [Keeping() for _ in range(4)]
    activations = Activations(100, lambda: told.append(sum(net.releases for net in nets)))
    for net, size in zip(nets, (40, 40, 20, 90), strict=True):
        with activations.taken(net, size):
            pass
    assert told == [3]


def test_what_a_net_keeps_is_of_its_largest_tile_and_all_goes_where_that_is_needed() -> None:
    activations, nets = Activations(100), [Keeping() for _ in range(3)]
    for number, size in ((0, 60), (0, 10), (1, 30), (2, 500)):
        with activations.taken(nets[number], size):
            assert nets[number].releases == 0
    assert [net.releases for net in nets] == [1, 1, 0]
    with activations.taken(nets[0], 1):
        pass
    assert [net.releases for net in nets] == [1, 1, 1]


def test_a_net_that_runs_keeps_its_memory() -> None:
    activations, running, other = Activations(100), Keeping(), Keeping()

    def run_other() -> None:
        with activations.taken(other, 90):
            pass

    with activations.taken(running, 90):
        thread = Thread(target=run_other)
        thread.start()
        thread.join()
        assert (running.releases, other.releases) == (0, 0)
        with activations.taken(running, 90):
            assert (running.releases, other.releases) == (0, 1)


def test_a_net_that_is_gone_counts_no_more() -> None:
    activations, kept = Activations(100), Keeping()
    with activations.taken(kept, 50):
        pass
    for _ in range(5):
        with activations.taken(Keeping(), 50):
            pass
    assert kept.releases == 0


@pytest.mark.parametrize("backend", ["cpu", "openvino"])
def test_four_nets_keep_no_more_than_one(backend: str) -> None:
    options = SessionOptions(backend, "int8", threads=2)  # type: ignore[arg-type]
    package = read_package(ZOO / "nuclei")
    expected = activation_bytes_per_pixel(package.spec, open_session(package, options)) * _EDGE_PX**2
    command = [sys.executable, "-c", _MEASURE, backend, str(expected), str(_EDGE_PX)]
    first, *others = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert max(others) - first < 0.75 * expected
