"""What tiles cost: measured once, kept for the next start, measured anew where it no longer holds."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.cost import CostModel, Measurement
from model.errors import PlanError
from model.package import Package, read_package
from model.planner import Planner, batch_room
from model.session import SessionOptions, open_session
from model.stitching import Run
from service.engine.packages import planning
from service.engine.packages.cost_store import CostKey, CostStore, cost_store
from service.engine.packages.planning import PlanLimits, make_planner
from tests.disks import small_disk
from tests.packages import with_variant, write_tiny_package

OPTIONS = SessionOptions(backend="cpu", threads=1)
KEY = CostKey("a" * 64, "cpu", "fp32", 2)
TILES = (Measurement((252, 252), 0.01), Measurement((572, 572), 0.08), Measurement((284, 1148), 0.07))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"))


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    store = CostStore(tmp_path / "new" / "folder")
    assert store.load(KEY) is None
    path = store.save(KEY, TILES)
    assert files(tmp_path / "new" / "folder") == [path]
    kept = store.load(KEY)
    assert kept is not None
    assert kept.measurements == TILES


@pytest.mark.parametrize(
    "other",
    [{"sha256": "b" * 64}, {"backend": "openvino"}, {"precision": "bf16"}, {"threads": 1}],
    ids=lambda other: next(iter(other)),
)
def test_what_was_measured_otherwise_is_not_used(tmp_path: Path, other: dict[str, Any]) -> None:
    store = CostStore(tmp_path)
    store.save(KEY, TILES)
    assert store.load(replace(KEY, **other)) is None


@pytest.mark.parametrize("field", ["cpu", "runtimes", "version"])
def test_another_machine_or_runtime_measures_for_itself(tmp_path: Path, field: str) -> None:
    store = CostStore(tmp_path)
    path = store.save(KEY, TILES)
    assert path is not None
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: "another"}))
    assert store.load(KEY) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"tiles": 5}', '{"tiles": [[1, 2]]}', '{"tiles": [[1, 2, NaN]]}', '{"tiles": []}']
)
def test_a_damaged_file_counts_as_none(tmp_path: Path, text: str) -> None:
    store = CostStore(tmp_path)
    path = store.save(KEY, TILES)
    assert path is not None
    whole = json.loads(path.read_text())
    try:
        content = json.dumps(whole | json.loads(text))
    except (ValueError, TypeError):
        content = text
    path.write_text(content)
    assert store.load(KEY) is None


def test_a_folder_that_cannot_be_written_keeps_nothing_and_hinders_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = CostStore(tmp_path / "file" / "below")
    assert store.save(KEY, TILES) is None
    assert store.load(KEY) is None


def test_a_full_disk_keeps_nothing_and_nothing_is_left_on_it(tmp_path: Path) -> None:
    store = CostStore(tmp_path)
    with small_disk(10):
        assert store.save(KEY, TILES) is None
    assert files(tmp_path) == []


def test_the_setting_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cost_store("") == CostStore(tmp_path / "unet-service")
    assert cost_store("none") == CostStore(None)
    assert cost_store("/some/where") == CostStore(Path("/some/where"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cost_store("") == CostStore(tmp_path / ".cache" / "unet-service")


class Clockwork:
    """A session whose every pixel takes a microsecond by its own clock, times ``slowness``."""

    backend, provider, precision = "cpu", "", "fp32"
    evidence: Run | None = None

    def __init__(self, package: Package) -> None:
        self._run = open_session(package, OPTIONS).run
        self.now, self.slowness, self.calls = 0.0, 1.0, 0

    def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls += 1
        self.now += tiles_bcyx.size * 1e-6 * self.slowness
        return self._run(tiles_bcyx)


def started(package: Package, session: Clockwork, folder: Path, calibration_s: float = 60.0) -> Planner:
    limits = PlanLimits(1 << 28, store=CostStore(folder))
    return make_planner(package, session, OPTIONS, limits, calibration_s, clock=lambda: session.now)


def test_a_second_start_plans_as_the_first_did_and_measures_less(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "packages")
    session = Clockwork(package)
    first = started(package, session, tmp_path / "speeds")
    calls = session.calls
    session.slowness = 1.2
    second = started(package, session, tmp_path / "speeds")
    assert first.cost == second.cost
    assert first.plan((3000, 2000)) == second.plan((3000, 2000))
    assert session.calls - calls < calls / 2


@pytest.mark.parametrize("slowness", [0.1, 10.0])
def test_speeds_that_no_longer_hold_are_measured_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slowness: float
) -> None:
    monkeypatch.setattr(planning, "_MOST_DRIFT", 1.5)  # tests do without it
    package = write_tiny_package(tmp_path / "packages")
    session = Clockwork(package)
    first = started(package, session, tmp_path / "speeds")
    session.slowness = slowness
    second = started(package, session, tmp_path / "speeds")
    plan = first.plan((3000, 2000))
    # a slow net has time for fewer shapes: what the net returns weighs a little otherwise
    assert second.expected(plan).seconds == pytest.approx(slowness * first.expected(plan).seconds, rel=0.02)


def test_another_graph_in_the_package_has_speeds_of_its_own(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "packages")
    for gain in (20.0, 19.0):
        session = Clockwork(with_variant(package, gain=gain))
        session.precision = "int8"
        started(read_package(package.path), session, tmp_path / "speeds")
    assert len(files(tmp_path / "speeds")) == 2


def test_what_too_little_time_was_left_for_is_not_kept(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "packages")
    started(package, Clockwork(package), tmp_path / "speeds", 0.0)
    assert files(tmp_path / "speeds") == []


def test_memory_for_no_tile_at_all_is_an_error(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    with pytest.raises(PlanError, match="raise the memory budget"):
        make_planner(package, open_session(package, OPTIONS), OPTIONS, PlanLimits(1000), 1.0)


def test_a_gpu_runs_every_shape_and_batch_before_it_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = write_tiny_package(tmp_path)
    seen: set[tuple[int, ...]] = set()

    class Watched(Clockwork):
        def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
            seen.add(tiles_bcyx.shape)
            return super().run(tiles_bcyx)

    reduced: set[tuple[int, ...]] = set()

    def evidence(tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        reduced.add(tiles_bcyx.shape)
        return tiles_bcyx

    monkeypatch.setattr(planning, "GPU_BACKENDS", frozenset({"cpu"}))
    session = Watched(package)
    session.evidence = evidence
    planner = make_planner(package, session, OPTIONS, PlanLimits(16 * 10**6, batch_tiles=8), 1.0)
    assert planner.shapes is not None
    assert reduced == {(1, 1, *shape) for shape in planner.shapes}
    for size_yx in ((1, 1), (200, 900), (700, 700), (5000, 3000)):
        tile = planner.plan(size_yx).input_yx
        most = batch_room(tile[0] * tile[1], 8, planner.max_tile_pixels)
        assert {(1 << k, 1, *tile) for k in range(most.bit_length())} <= seen


def test_the_default_logs_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        CostStore(tmp_path / "none-yet").load(KEY)
    assert not caplog.records


def test_a_gpu_is_taken_by_what_was_measured_not_by_the_work_of_a_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU small tiles cost far more than their share; there all shapes are measured, and none is guessed."""

    class Slow(Clockwork):
        def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
            self.now += 0.5  # however small
            return super().run(tiles_bcyx)

    monkeypatch.setattr(planning, "GPU_BACKENDS", frozenset({"cpu"}))
    package = write_tiny_package(tmp_path)
    session = Slow(package)
    planner = make_planner(package, session, OPTIONS, PlanLimits(16 * 10**6), 1.0, clock=lambda: session.now)
    assert isinstance(planner.cost, CostModel)
    assert len(planner.cost.measurements) > 2
    for measured in planner.cost.measurements:
        assert planner.cost.seconds(measured.input_yx) == pytest.approx(measured.seconds, rel=0.05)


def test_integers_leave_room_for_larger_tiles(tmp_path: Path) -> None:
    package = with_variant(write_tiny_package(tmp_path))
    limits = PlanLimits(tile_memory_bytes=16 * 500**2)
    whole, integers = (
        make_planner(package, open_session(package, replace(OPTIONS, precision=precision)), OPTIONS, limits, 0.1)
        for precision in ("fp32", "int8")
    )
    assert whole.max_tile_pixels == 500**2
    assert integers.max_tile_pixels == 16 * 500**2 // 12  # 70 % of 16 bytes, rounded up
