"""Speeds that would refuse a request: measured anew before they do, and only where that may help."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from model.errors import InferenceFailed
from service.engine.admission.admission import Admission
from service.engine.admission.ticket import Throughput
from service.engine.engine import Engine
from service.engine.errors import DeadlineExceeded, Overloaded, TooLargeForMemory
from service.engine.packages import loading
from service.engine.packages.trial import FRESH_S, Trials
from service.engine.request import SegmentRequest
from service.settings import Settings
from service.telemetry import Metrics
from tests.images import npy
from tests.packages import write_tiny_package

MB = 1_000_000


class Bench:
    """A net whose trials find the speeds that a test says, and a request of 100 MB pixels in 60 s."""

    def __init__(self, executor: ThreadPoolExecutor, known: float) -> None:
        self.now = 1000.0
        self.speed = Throughput(known, lambda: self.now)
        self.admission = Admission(100 * MB, 100)
        self.trials = Trials(executor)
        self.found: Callable[[], float] = lambda: 10.0 * MB
        self.tried = 0

    def trial(self) -> float:
        self.tried += 1
        return self.found()

    async def ask(self, memory_bytes: int = MB) -> None:
        """Raise what the request is refused with."""
        check = partial(self.admission.check, pixels=100 * MB, memory_bytes=memory_bytes, timeout_s=60)
        await self.trials.before_refusal(self.speed, check, self.trial, 60)
        check(self.speed)


@asynccontextmanager
async def bench(known: float = 0.1 * MB) -> AsyncIterator[Bench]:
    with ThreadPoolExecutor(1) as executor:
        yield Bench(executor, known)


def test_what_a_slow_start_would_refuse_for_ever_is_accepted_after_a_trial() -> None:
    async def scenario() -> None:
        async with bench() as one:
            await one.ask()
            assert (one.tried, one.speed.pixels_per_second) == (1, 10 * MB)

    asyncio.run(scenario())


def test_a_net_that_is_slow_is_tried_again_no_sooner_than_its_speed_is_old() -> None:
    async def scenario() -> list[int]:
        async with bench() as one:
            one.found = lambda: 0.05 * MB
            tried = []
            for later in (0.0, FRESH_S - 1, 1.0, 0.0):
                one.now += later
                with pytest.raises(DeadlineExceeded, match="about 1000 s"):
                    await one.ask()
                tried.append(one.tried)
            return tried

    assert asyncio.run(scenario()) == [1, 1, 2, 2]


def test_batches_are_believed_until_they_are_old() -> None:
    async def scenario() -> None:
        async with bench() as one:
            one.speed.add(MB, 100.0)
            with pytest.raises(DeadlineExceeded):
                await one.ask()
            assert one.tried == 0
            one.now += FRESH_S
            await one.ask()
            assert one.tried == 1

    asyncio.run(scenario())


def test_nothing_is_tried_where_the_speed_is_not_what_refuses() -> None:
    async def scenario() -> None:
        async with bench(known=50.0 * MB) as one:
            await one.ask()
            assert one.tried == 0
        async with bench() as one:
            with pytest.raises(TooLargeForMemory):
                await one.ask(memory_bytes=101 * MB)
            other = Throughput(MB)
            with (
                one.admission.admit(other, 101 * MB, MB, 600),
                pytest.raises(Overloaded, match="101 s of work wait"),
            ):
                await one.ask()
            assert one.tried == 0
            with one.admission.admit(other, 50 * MB, MB, 600):  # full only with what the slow start believes
                await one.ask()
            assert one.tried == 1

    asyncio.run(scenario())


def test_a_trial_that_fails_leaves_the_refusal_and_is_not_repeated_at_once(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> float:
        raise InferenceFailed("no such device")

    async def scenario() -> int:
        async with bench() as one:
            one.found = fails
            for _ in range(2):
                with pytest.raises(DeadlineExceeded):
                    await one.ask()
            return one.tried

    assert asyncio.run(scenario()) == 1
    assert "a net could not be tried: no such device" in caplog.text


def test_all_wait_for_one_trial_and_one_that_leaves_does_not_end_it() -> None:
    gate = threading.Event()

    def waits() -> float:
        assert gate.wait(30)
        return 10.0 * MB

    async def scenario() -> int:
        async with bench() as one:
            one.found = waits
            first, *others = (asyncio.create_task(one.ask()) for _ in range(5))
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            gate.set()
            await asyncio.gather(*others)
            return one.tried

    assert asyncio.run(scenario()) == 1


async def promised(one: Bench, tiles: int) -> float:
    """Speed that so many tiles are promised by."""
    await one.trials.before_promise(one.speed, tiles, one.trial, 60)
    return one.speed.pixels_per_second


def test_long_work_is_promised_by_a_speed_of_now_slower_or_faster() -> None:
    async def scenario() -> None:
        async with bench(known=50.0 * MB) as one:
            assert await promised(one, 15) == 50 * MB, "a trial would take as long"
            assert await promised(one, 16) == 10 * MB, "others have come"
            one.now += FRESH_S - 1
            one.found = lambda: 30.0 * MB
            assert (await promised(one, 1000), one.tried) == (10 * MB, 1)
            one.now += 1
            assert (await promised(one, 1000), one.tried) == (30 * MB, 2)

    asyncio.run(scenario())


def test_a_trial_that_fails_promises_what_is_known() -> None:
    def fails() -> float:
        raise InferenceFailed("no such device")

    async def scenario() -> float:
        async with bench(known=50.0 * MB) as one:
            one.found = fails
            return await promised(one, 16)

    assert asyncio.run(scenario()) == 50 * MB


def test_an_engine_that_measured_itself_too_fast_promises_no_large_image_by_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = write_tiny_package(tmp_path / "packages")
    monkeypatch.setattr(loading, "Throughput", lambda speed: Throughput(speed * 1e9))

    async def scenario() -> None:
        engine = Engine(Settings(models_dir=package.path, backend="cpu", threads=1, cache_dir="none"), Metrics())
        await engine.start()
        small, large = [await engine.forecast(size_yx, 1, SegmentRequest()) for size_yx in ((32, 32), (20000, 20000))]
        assert len(large.plan) > 16 > len(small.plan)
        assert (small.compute_s < 1e-6, large.compute_s > 1e-3) == (True, True)
        await engine.stop()

    asyncio.run(scenario())


def test_an_engine_that_measured_itself_too_slow_answers_and_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = write_tiny_package(tmp_path / "packages")
    monkeypatch.setattr(loading, "Throughput", lambda speed: Throughput(speed / 1e9))

    async def scenario(*, plans: bool) -> None:
        engine = Engine(Settings(models_dir=package.path, backend="cpu", threads=1, cache_dir="none"), Metrics())
        await engine.start()
        assert 512 * 512 / engine.pixels_per_second > 1000
        if plans:
            forecast = await engine.forecast((512, 512), 1, SegmentRequest())
            assert forecast.refusal is None
            assert forecast.compute_s < 60
        else:
            answer = await engine.segment(io.BytesIO(npy(np.zeros((512, 512), np.uint8))), SegmentRequest())
            assert answer.body.size
        await engine.stop()

    asyncio.run(scenario(plans=False))
    asyncio.run(scenario(plans=True))
