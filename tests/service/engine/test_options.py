"""Working memory beside the nets of many packages."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from service.engine.memory_fit import MemoryFit
from service.engine.options import memory_bytes
from service.settings import Settings
from tests.packages import write_tiny_package

_MIB = 1 << 20


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("options", "memory_fit"):
        monkeypatch.setattr(f"service.engine.{module}.memory_limit", lambda: 1024 * _MIB)
        monkeypatch.setattr(f"service.engine.{module}.temporary_memory", lambda: 0)


def _packages(folder: Path, graph_mb: int) -> Settings:
    """Two packages, with a graph in a second precision that large in each."""
    for name in ("one", "other"):
        path = write_tiny_package(folder, name=name).path
        with (path / "weights_int8.onnx").open("wb") as graph:
            graph.truncate(graph_mb * _MIB)
    (folder / "other" / "film.tif").write_bytes(bytes(9 * _MIB))
    return Settings(models_dir=(folder,))


@pytest.mark.usefixtures("small_machine")
def test_the_packages_that_ship_leave_what_the_docs_say() -> None:
    assert 636 * _MIB < memory_bytes(Settings()) <= 640 * _MIB


@pytest.mark.usefixtures("small_machine")
def test_the_nets_of_large_packages_are_left_room(tmp_path: Path) -> None:
    few, many = (memory_bytes(_packages(tmp_path / str(size), size)) for size in (1, 50))
    assert few == 640 * _MIB
    assert 640 - (2.5 * 100 - 96) - 3 < many / _MIB < 640 - (2.5 * 100 - 96)


@pytest.mark.usefixtures("small_machine")
def test_packages_that_leave_too_little_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = _packages(tmp_path, 150)
    assert memory_bytes(settings) == 128 * _MIB
    with caplog.at_level(logging.INFO, "unet.engine"):
        conflict = MemoryFit(settings).conflict
    assert conflict is not None
    assert "serve fewer packages, or lower UNET_MEMORY_BUDGET_MB" in conflict, "a new start takes no less"
    assert conflict in caplog.text


def test_a_folder_that_may_not_be_looked_into_takes_none(tmp_path: Path) -> None:
    assert memory_bytes(Settings(models_dir=(tmp_path / "missing",))) > 0
