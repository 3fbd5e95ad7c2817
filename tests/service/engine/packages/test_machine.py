"""The machine in words: its GPUs are named where it has any."""

from __future__ import annotations

import pytest

from model.session import gpu_count, gpu_names
from service.engine.packages import machine


def test_gpus_are_named_and_counted_alike() -> None:
    assert len(gpu_names()) == gpu_count()
    assert all(gpu_names())


def test_a_machine_says_which_gpus_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpu_names", lambda: ("NVIDIA H200", "NVIDIA L4"))
    described = machine.this_machine()
    assert "GiB, NVIDIA H200, NVIDIA L4; " in str(described)
    assert described.as_json()["gpus"] == ("NVIDIA H200", "NVIDIA L4")


def test_a_machine_without_a_gpu_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpu_names", lambda: ())
    assert "GiB; " in str(machine.this_machine())
