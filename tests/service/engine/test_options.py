"""Working memory beside the nets of many packages, which are looked at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from service.engine.memory_fit import MemoryFit
from service.engine.options import budget_of
from service.engine.packages.finding import packages_in
from service.settings import Settings
from tests.engines import running
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
    assert 636 * _MIB < budget_of(Settings()).total <= 640 * _MIB


@pytest.mark.usefixtures("small_machine")
def test_the_nets_of_large_packages_are_left_room(tmp_path: Path) -> None:
    few, many = (budget_of(_packages(tmp_path / str(size), size)).total for size in (1, 50))
    assert few == 640 * _MIB
    assert 640 - (2.5 * 100 - 96) - 3 < many / _MIB < 640 - (2.5 * 100 - 96)


@pytest.mark.usefixtures("small_machine")
def test_packages_that_leave_too_little_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = _packages(tmp_path, 150)
    budget = budget_of(settings)
    assert budget.total == 128 * _MIB
    with caplog.at_level(logging.INFO, "unet.engine"):
        conflict = MemoryFit(budget, is_set=False).conflict
    assert conflict is not None
    assert "serve fewer packages, or lower UNET_MEMORY_BUDGET_MB" in conflict, "a new start takes no less"
    assert conflict in caplog.text


def test_the_packages_are_looked_at_once_for_the_memory_of_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []

    def noting(folder: Path, warn: Callable[[str], None]) -> list[Path]:
        looked.append(folder)
        return packages_in(folder, warn)

    write_tiny_package(tmp_path)
    monkeypatch.setattr("service.engine.options.packages_in", noting)

    async def scenario() -> None:
        async with running(tmp_path) as engine:
            assert engine.readiness().ready

    asyncio.run(scenario())
    assert looked == [tmp_path]


def test_a_folder_that_may_not_be_looked_into_takes_none(tmp_path: Path) -> None:
    assert budget_of(Settings(models_dir=(tmp_path / "missing",))).total > 0


def test_no_more_than_a_sixteenth_of_the_working_memory_is_for_repeats() -> None:
    for repeat_mb, mebibytes in ((999, 8), (3, 3), (0, 0)):
        budget = budget_of(Settings(memory_budget_mb=128, repeat_mb=repeat_mb))
        assert budget.repeats == mebibytes * _MIB
        assert budget.images + budget.repeats + budget.tiles == budget.total
