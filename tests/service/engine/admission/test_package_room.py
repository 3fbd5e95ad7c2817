"""Requests beside a package that is loaded, or waits for memory: they wait for it, and for nothing else."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.engine.admission.admission import Admission
from service.engine.admission.series import SINGLE, Series
from service.engine.admission.ticket import Throughput
from service.engine.engine import Engine
from service.engine.errors import DeadlineExceeded, Overloaded
from service.engine.packages import loading
from service.engine.request import SegmentRequest
from service.engine.stages.demand import Demand
from tests.engines import running
from tests.images import disc
from tests.packages import put_package
from tests.service.engine.test_watching import image, served, until

MB = 1_000_000
SPEED = Throughput(MB)


@pytest.fixture
def takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages take all memory that there is for images while they are opened."""
    monkeypatch.setattr("service.engine.packages.rescan.working_bytes", lambda _: (128 << 20) - int((128 << 20) * 0.4))


def held_back(monkeypatch: pytest.MonkeyPatch, name: str) -> threading.Event:
    """Have a step of loading wait from now on until the event is set."""
    let_go = threading.Event()
    step: Callable[..., Any] = getattr(loading, name)

    def waiting(*arguments: Any, **named: Any) -> Any:
        assert let_go.wait(120)
        return step(*arguments, **named)

    monkeypatch.setattr(loading, name, waiting)
    return let_go


@pytest.mark.usefixtures("takes_all")
def test_requests_wait_while_a_package_is_opened_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_package(tmp_path)

    async def scenario() -> None:
        async with running(tmp_path, memory_budget_mb=128, rescan_s=0, cache_dir="none") as engine:
            ledger = engine._admission
            opened, measured = held_back(monkeypatch, "open_checked"), held_back(monkeypatch, "make_planner")
            put_package(tmp_path, "cells")
            engine.look_for_packages()
            await until(lambda: ledger.memory_in_use == ledger.memory_limit)
            asked = [asyncio.create_task(engine.segment(image(disc()), SegmentRequest())) for _ in range(3)]
            assert (await engine.forecast((64, 64), 1, SegmentRequest())).refusal is None
            await asyncio.sleep(0.3)
            assert not any(each.done() for each in asked)
            assert ledger.in_flight == 0, "they hold nothing"
            opened.set()
            for answer in await asyncio.gather(*asked):
                assert "wait" in answer.stages_ms
            assert served(engine) == ["tiny@1.0.0"], "it is measured while they run"
            measured.set()
            await until(lambda: served(engine) == ["cells@1.0.0", "tiny@1.0.0"])

    asyncio.run(scenario())


@pytest.mark.usefixtures("takes_all")
def test_a_package_whose_time_has_come_is_loaded_as_soon_as_there_is_memory_and_who_comes_meanwhile_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_package(tmp_path)
    monkeypatch.setattr("service.engine.admission.precedence._PATIENCE_S", 0.0)
    monkeypatch.setattr("service.engine.watching._RETRY_S", math.inf)

    async def scenario() -> None:
        async with running(tmp_path, memory_budget_mb=128, rescan_s=0, cache_dir="none") as engine:
            ledger, watch = engine._admission, engine._working().watch
            with ledger.admit(SPEED, 1, MB, 60):
                put_package(tmp_path, "cells")
                engine.look_for_packages()
                await until(lambda: watch._waiting)
                asked = asyncio.create_task(engine.segment(image(disc()), SegmentRequest()))
                await asyncio.sleep(0.3)
                assert not asked.done()
                assert ledger.in_flight == 1
            await asked
            await until(lambda: served(engine) == ["cells@1.0.0", "tiny@1.0.0"])

    asyncio.run(scenario())


def test_who_has_waited_for_a_package_for_long_is_told_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_package(tmp_path)
    monkeypatch.setattr("service.engine.admission.package_room._PATIENCE_S", 0.2)

    async def scenario() -> None:
        async with running(tmp_path, memory_budget_mb=128, cache_dir="none") as engine:
            ledger = engine._admission
            release = ledger.reserve(ledger.memory_limit)
            assert release is not None
            with pytest.raises(Overloaded, match="try again in 1 s"):
                await engine.segment(image(disc()), SegmentRequest())
            release()
            await engine.segment(image(disc()), SegmentRequest())

    asyncio.run(scenario())


def test_memory_that_is_freed_beside_a_package_goes_to_who_has_waited_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.admission.package_room._PATIENCE_S", math.inf)
    admission = Admission(10 * MB, 100)
    assert admission.reserve(6 * MB)

    async def scenario() -> None:
        async with asyncio.timeout(60):
            with admission.admit(SPEED, 1, 3 * MB, 60):
                first = asyncio.create_task(admission.let_package_pass(3 * MB, SINGLE, math.inf))
                await asyncio.sleep(0)
            assert not first.done()
            assert admission.waits_for_package(2 * MB, SINGLE), "it would take what the first waits for"
            assert not admission.waits_for_package(MB, SINGLE)
            second = asyncio.create_task(admission.let_package_pass(2 * MB, SINGLE, math.inf))
            await first
            await second
        assert not admission.waits_for_package(4 * MB, SINGLE)

    asyncio.run(scenario())


async def demand(engine: Engine, timeout_s: float) -> Demand:
    pipeline = engine._working().pipeline
    with await pipeline.opened(image(disc()), None) as reader:
        return pipeline.demand(reader.header, [SegmentRequest()], engine.model(None), reader.part_bytes, timeout_s)


def test_nobody_waits_for_a_package_who_would_have_no_time_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_package(tmp_path)
    monkeypatch.setattr("service.engine.admission.package_room._PATIENCE_S", math.inf)

    async def scenario() -> None:
        async with running(tmp_path, memory_budget_mb=128, cache_dir="none") as engine, asyncio.timeout(60):
            ledger, asked = engine._admission, await demand(engine, 1_000_000.2)
            speed = Throughput(asked.pixels / 1_000_000)  # so many seconds of work
            assert ledger.reserve(ledger.memory_limit)
            with pytest.raises(Overloaded, match=r"^a package holds 8[0-9] MB and this one needs"):
                await asked.wait_for_room(ledger, speed)
            with pytest.raises(DeadlineExceeded, match="would be ready in about"):
                await replace(asked, timeout_s=1).wait_for_room(ledger, speed)
            refusal = (await engine.forecast((64, 64), 1, SegmentRequest(timeout_s=1e-6))).refusal
            assert isinstance(refusal, DeadlineExceeded)

    asyncio.run(scenario())


def test_nobody_waits_for_a_package_who_lacks_memory_for_other_reasons() -> None:
    admission = Admission(10 * MB, 100, disk_bytes=MB)
    release = admission.reserve(6 * MB)
    assert release is not None
    assert [admission.waits_for_package(size * MB, SINGLE) for size in (4, 5, 10, 11)] == [False, True, True, False]
    assert not admission.waits_for_package(5 * MB, Series(memory_bytes=6 * MB)), "its other results are in its way"
    with admission.admit(SPEED, 1, 3 * MB, 60):
        assert [admission.waits_for_package(size * MB, SINGLE) for size in (1, 2, 7, 8)] == [False, True, True, False]
    release()
    assert not admission.waits_for_package(10 * MB, SINGLE)


def test_one_that_waits_finds_no_room_in_what_is_kept_for_the_one_before_it() -> None:
    """Else it would be tried again and again in vain."""
    now = 0.0
    admission = Admission(10 * MB, 100, clock=lambda: now)
    with admission.admit(SPEED, 1, 3 * MB, 60):
        assert admission.reserve(8 * MB) is None
        admission.expect(8 * MB)
        assert admission.has_room(7 * MB, 0, goes_first=True)
        assert admission.has_room(7 * MB, 0, goes_first=False)
        now = 5.0
        assert not admission.has_room(8 * MB, 0, goes_first=True)
        assert not admission.has_room(MB, 0, goes_first=False)
        assert admission.reserve(MB) is None
    assert admission.has_room(8 * MB, 0, goes_first=True)
    assert admission.has_room(2 * MB, 0, goes_first=False)
    assert not admission.has_room(8 * MB, 3 * MB, goes_first=True)
