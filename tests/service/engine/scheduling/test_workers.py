"""Calls in worker threads keep nothing once they have ended, and waiting for a thread is no work."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from service.engine.admission.ticket import Throughput, Ticket
from service.engine.scheduling.clock import StageClock
from service.engine.scheduling.workers import Workers
from service.telemetry import Metrics


class Plane:
    """What a call works on."""

    def __init__(self) -> None:
        self.values = np.zeros(1000)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def fail(plane: Plane) -> None:
    raise ValueError(f"{plane.values.size} values are too many")


@pytest.mark.usefixtures("no_collector")
def test_what_a_failed_call_worked_on_goes_with_its_request() -> None:
    async def scenario() -> tuple[bool, bool]:
        workers, ticket = Workers(2), Ticket(Throughput(1.0), 1, 1)

        async def request() -> weakref.ref[Plane]:
            plane = Plane()
            try:
                await workers.call(1, fail, plane, ticket=ticket)
            except ValueError:
                return weakref.ref(plane)
            raise AssertionError

        plane = await request()
        await workers.call(1, int)  # the thread lets go of its last call once it has another
        await asyncio.sleep(0)
        return plane() is None, ticket.still_running() == []

    assert asyncio.run(scenario()) == (True, True)


@pytest.mark.parametrize("given_up", [False, True])
def test_waiting_for_a_thread_counts_as_waiting_and_not_as_work(
    monkeypatch: pytest.MonkeyPatch, *, given_up: bool
) -> None:
    now = 0.0
    monkeypatch.setattr("service.engine.scheduling.clock.perf_counter", lambda: now)

    def label() -> None:
        nonlocal now
        now += 2

    async def scenario() -> None:
        nonlocal now
        workers, clock, let_go = Workers(1), StageClock(Metrics()), threading.Event()

        async def request() -> None:
            with clock.stage("label"):
                await workers.call(1, label, clock=clock)

        other = asyncio.create_task(workers.call(1, let_go.wait, 60))
        await asyncio.sleep(0)
        asked = asyncio.create_task(request())
        await asyncio.sleep(0)
        now = 40.0
        assert clock.seconds_beside("inference") == 0, "it has not begun"
        if given_up:
            asked.cancel()
            await asyncio.wait([asked])
        let_go.set()
        await asyncio.gather(other, asked, return_exceptions=True)
        worked_s = 0 if given_up else 2
        assert clock.milliseconds() == {"wait": 40_000, "label": 1000 * worked_s}
        assert clock.seconds_beside("inference") == worked_s

    asyncio.run(scenario())
