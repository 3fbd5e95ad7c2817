"""Nets that are loaded while requests run: what both get of the net's time, and what is measured of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import InferenceFailed
from service.engine.scheduling.between import BetweenBatches
from service.engine.scheduling.scheduler import Scheduler
from tests.service.engine.scheduling.test_scheduler import job, scheduler_with, until

BATCH_S, CALL_S = 0.0625, 0.25
TILE = np.zeros((1, 1, 26, 26), np.float32)


@dataclass
class Machine:
    """A served net and one that is loaded, seconds that pass while one of them runs, and which did in what order."""

    calls: int
    """Of the net that is loaded, one after the other."""
    now: float = 0.0
    order: str = ""
    seconds: list[float] = field(default_factory=list)
    """Measured, of each batch."""

    def __post_init__(self) -> None:
        self.between = BetweenBatches(lambda: self.now)
        self.loader = threading.Thread(target=self._load)

    def serve(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        asyncio.run(until(lambda: bool(self.between._waiting) or not self.loader.is_alive()))  # the next call, if any
        self.now += BATCH_S
        self.order += "b"
        return tiles[:, :, 8:-8, 8:-8]

    def _load(self) -> None:
        def call(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            self.now += CALL_S
            self.order += "L"
            return tiles

        for _ in range(self.calls):
            self.between.run(call, TILE)

    @asynccontextmanager
    async def scheduler(self) -> AsyncIterator[Scheduler]:
        async with scheduler_with(batch_tiles=1, between=self.between, clock=lambda: self.now) as scheduler:
            yield scheduler

    async def segment(self, scheduler: Scheduler, tiles: int) -> None:
        asked = job(self.serve, [1.0] * tiles)
        await scheduler.run(replace(asked, progress=lambda _pixels, seconds: self.seconds.append(seconds)))


def order(calls: int, requests: Sequence[int]) -> str:
    """Calls (L) and batches (b) where requests of so many tiles come one after the other while a net is loaded."""
    machine = Machine(calls)

    async def scenario() -> None:
        async with machine.scheduler() as scheduler:
            machine.loader.start()
            while not machine.between._waiting:  # the loop stands, so that the first call does not go yet
                time.sleep(0.001)  # noqa: ASYNC251
            for tiles in requests:
                await machine.segment(scheduler, tiles)
            await until(lambda: not machine.loader.is_alive())

    asyncio.run(scenario())
    assert machine.seconds == [BATCH_S] * sum(requests), "calls of the other net count as no time of this one"
    assert machine.between.clock() == CALL_S * calls
    return machine.order


def test_after_a_call_batches_have_as_many_seconds_as_it_took() -> None:
    assert order(5, [18]) == "LbbbbLbbbbLbbbbLbbbbLbb"


def test_nothing_that_comes_in_pieces_waits_for_a_call_at_each() -> None:
    """Planes of a stack come one by one: between two of them no batch waits."""
    assert order(4, [1] * 14) == "LbbbbLbbbbLbbbbLbb"


def test_a_net_is_loaded_at_once_where_no_batch_comes() -> None:
    machine = Machine(50)

    async def scenario() -> None:
        async with machine.scheduler():
            machine.loader.start()
            await until(lambda: not machine.loader.is_alive())

    asyncio.run(scenario())
    assert machine.order == "L" * 50


def test_a_call_that_waits_when_the_service_stops_is_told_so_at_once() -> None:
    machine, gate = Machine(0), threading.Event()

    def hang(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        gate.wait(10)
        return tiles

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as pool:
            async with machine.scheduler() as scheduler:
                busy = asyncio.create_task(scheduler.run(job(hang, [1.0])))
                await until(lambda: bool(scheduler._running))
                asked = pool.submit(machine.between.run, machine.serve, TILE)
                await until(lambda: bool(machine.between._waiting))
                stopping = asyncio.create_task(scheduler.stop())
                with pytest.raises(InferenceFailed, match="the service stops"):
                    await asyncio.wrap_future(asked)
                gate.set()
                await asyncio.gather(stopping, busy, return_exceptions=True)

    asyncio.run(scenario())
    with pytest.raises(InferenceFailed, match="the service stops"):
        machine.between.run(machine.serve, TILE)
    assert not machine.order


def test_a_net_that_fails_while_it_is_loaded_fails_for_whoever_loads_it_alone() -> None:
    machine = Machine(0)

    def fail(_tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        raise InferenceFailed("broken")

    async def scenario() -> None:
        async with machine.scheduler() as scheduler:
            with pytest.raises(InferenceFailed, match="broken"):
                await asyncio.to_thread(machine.between.run, fail, TILE)
            await machine.segment(scheduler, 2)
            assert (await asyncio.to_thread(machine.between.run, lambda tiles: tiles, TILE)) is TILE

    asyncio.run(scenario())
    assert machine.order == "bb"
