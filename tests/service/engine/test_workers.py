"""Calls in worker threads keep nothing once they have ended."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from service.engine.ticket import Throughput, Ticket
from service.engine.workers import Workers


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
