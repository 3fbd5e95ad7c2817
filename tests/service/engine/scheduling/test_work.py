"""Tiles of all shapes are counted by what they cost: for each pixel, small ones cost less than large ones."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.cost import Measurement
from model.planner import Planner
from service.engine.admission.ticket import Ticket
from service.engine.packages import loading, trial
from service.engine.packages.planning import make_planner
from service.engine.request import SegmentRequest
from service.engine.scheduling.scheduler import Scheduler
from tests.engines import running
from tests.images import npy
from tests.packages import write_tiny_package

ASKED = SegmentRequest(output="mask", format="npy")
SIZES = [(1, 1), (20, 60), (300, 300)]


def cost(input_y: NDArray[np.float64], input_x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds of a tile of a net whose work is nearly all in what it returns."""
    return 1e-6 * (100 + (input_y - 16) * (input_x - 16))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose tiles have these costs, whatever this machine takes."""
    make: Callable[..., Planner] = make_planner
    monkeypatch.setattr(loading, "make_planner", lambda *of, **how: replace(make(*of, **how), cost=cost))
    write_tiny_package(tmp_path / "packages")
    return tmp_path / "packages"


def test_an_image_of_any_size_is_promised_the_time_that_its_tiles_cost(packages: Path) -> None:
    """By pixels alone the smallest would be promised three times as long as its tile takes."""

    async def scenario() -> None:
        async with running(packages) as engine:
            (model,) = engine.models
            for size_yx in SIZES:
                forecast = await engine.forecast(size_yx, 2, ASKED)
                assert len(forecast.plan) <= 4, "too few for a trial"
                cost_s = 2 * model.planner.expected(forecast.plan.tiles).seconds
                assert forecast.compute_s == pytest.approx(cost_s, rel=0.05), "but for whole pixels"

    asyncio.run(scenario())


def test_what_is_asked_for_is_what_is_paid_for_done_and_measured(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, done, work, paid = Scheduler.run, Ticket.done, {"done": 0, "measured": 0}, list[float]()

    def note(name: str, pixels: int) -> None:
        work[name] += pixels

    async def watched(self: Scheduler, job: Any) -> None:
        paid.append(job.count * job.tile_seconds())
        await run(self, replace(job, progress=lambda pixels, _seconds: note("measured", pixels)))

    def noted(self: Ticket, pixels: int) -> None:
        note("done", pixels)
        done(self, pixels)

    monkeypatch.setattr(Scheduler, "run", watched)
    monkeypatch.setattr(Ticket, "done", noted)

    async def scenario() -> None:
        async with running(packages) as engine:
            for size_yx in SIZES:
                work.update(done=0, measured=0)
                forecast = await engine.forecast(size_yx, 1, ASKED)
                noise = np.random.default_rng(0).random(size_yx, dtype=np.float32)
                await engine.segment(io.BytesIO(npy(noise)), ASKED)
                asked = engine.models[0].work(forecast.plan)
                assert work == {"done": asked, "measured": asked}
                assert paid.pop() == pytest.approx(forecast.compute_s)

    asyncio.run(scenario())


def test_a_trial_of_any_tile_finds_the_same_speed(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(_run: object, _channels: int, shapes: list[tuple[int, int]], _budget_s: float) -> list[Measurement]:
        (input_yx,) = shapes
        return [Measurement(input_yx, 2 * cost(*(np.array(edge) for edge in input_yx)).item())]

    monkeypatch.setattr(trial, "measure", measured)

    async def scenario() -> None:
        async with running(packages) as engine:
            (model,) = engine.models
            for size_yx in SIZES:
                found = trial.tried_speed(model, model.planner.plan(size_yx).input_yx)
                assert found == pytest.approx(engine.pixels_per_second / 2, rel=0.05)

    asyncio.run(scenario())
