"""Requests that need more memory in the middle of their work wait for it, and never for one another."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from service.engine.admission.admission import Admission
from service.engine.admission.ticket import Throughput, Ticket
from service.engine.engine import Engine
from service.engine.errors import Overloaded
from service.engine.packages.finishing import Finishing
from service.engine.request import SegmentRequest
from service.engine.stages import encoding
from service.settings import Settings
from service.telemetry import Metrics
from tests.images import disc, npy
from tests.packages import write_tiny_package

MB = 1_000_000


@contextmanager
def accepted(admission: Admission, memory_mb: int, *, background: bool = False) -> Iterator[Ticket]:
    with admission.admit(Throughput(MB), MB, memory_mb * MB, 60, background=background) as ticket:
        assert admission.claim(ticket)
        yield ticket


async def begun(admission: Admission, ticket: Ticket, memory_mb: int) -> asyncio.Task[None]:
    """A task that has found no memory."""
    task = asyncio.create_task(admission.grow(ticket, memory_mb * MB))
    await asyncio.sleep(0)
    assert not task.done()
    return task


def refuses(admission: Admission, memory_mb: int) -> bool:
    try:
        admission.check(Throughput(MB), 1, memory_mb * MB, 60)
    except Overloaded:
        return True
    return False


@pytest.mark.parametrize("background", [True, False])
def test_what_is_computed_goes_before_what_comes_later_where_requests_in_work_hold_what_it_needs(
    background: bool,
) -> None:
    async def scenario() -> None:
        now = 0.0
        admission = Admission(10 * MB, 100, clock=lambda: now)
        sent = admission.keep(MB, 0)
        with accepted(admission, 2, background=background) as ticket, accepted(admission, 4) as other:
            growing = await begun(admission, ticket, 6)
            now = 4.9
            assert not refuses(admission, 3), "who was refused before may come in first"
            now = 5.0
            assert refuses(admission, 1)
            assert admission.reserve(MB) is None
            late = admission.keep(2 * MB, 0)
            assert not refuses(admission, 1), "answers hold what it needs, nobody knows for how long"
            late()
            other.memory_bytes = MB
            await asyncio.wait_for(growing, 20)
            assert (ticket.memory_bytes, admission.memory_in_use) == (8 * MB, 10 * MB)
        sent()
        assert admission.memory_in_use == 0

    asyncio.run(scenario())


def test_two_that_grow_do_not_wait_for_one_another_beside_what_somebody_else_holds() -> None:
    async def scenario() -> None:
        admission = Admission(100 * MB, 100)
        admission.keep(MB, 0)
        with accepted(admission, 20, background=True) as first, accepted(admission, 25, background=True) as second:
            growing = [await begun(admission, first, 75), asyncio.create_task(admission.grow(second, 70 * MB))]
            with pytest.raises(Overloaded, match="2 requests hold 21 MB and this one needs 95 MB"):
                await asyncio.wait_for(growing[1], 20)
            second.memory_bytes = 0
            await asyncio.wait_for(growing[0], 20)

    asyncio.run(scenario())


def test_one_that_somebody_waits_for_is_told_to_ask_again_in_time_and_one_in_the_background_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.engine.admission.growth._PATIENCE_S", 0.0)

    async def scenario() -> None:
        admission = Admission(10 * MB, 100)
        sent = admission.keep(3 * MB, 0)
        with accepted(admission, 2, background=True) as job, accepted(admission, 4) as request:
            growing = await begun(admission, job, 5)
            with pytest.raises(
                Overloaded, match="2 requests hold 5 MB and this one needs 6 MB, the memory budget for images is 10 MB"
            ) as refusal:
                await admission.grow(request, 2 * MB)
            assert refusal.value.reason == "memory"
            request.abandoned = True
            await asyncio.sleep(0.2)
            assert not growing.done()
            sent()
            request.memory_bytes = MB
            await asyncio.wait_for(growing, 20)

    asyncio.run(scenario())


def test_where_all_that_is_held_is_held_by_those_that_wait_the_last_that_somebody_waits_for_gives_up() -> None:
    async def scenario() -> None:
        admission = Admission(12 * MB, 100, turns=3)
        with ExitStack() as work:
            first, second = (work.enter_context(accepted(admission, size)) for size in (3, 4))
            job = work.enter_context(accepted(admission, 2, background=True))
            sent = admission.keep(2 * MB, 0)
            growing = [await begun(admission, ticket, more) for ticket, more in ((first, 6), (second, 5), (job, 10))]
            sent()
            done, _ = await asyncio.wait(growing, timeout=20, return_when=asyncio.FIRST_COMPLETED)
            assert done == {growing[1]}
            with pytest.raises(Overloaded, match=r"2 requests hold 5 MB and this one needs 9 MB, .* is 12 MB"):
                await growing[1]
            second.memory_bytes = 0
            await asyncio.wait_for(growing[0], 20)
            assert not growing[2].done(), "the other goes on, and lets go when it is done"
            first.memory_bytes = 0
            await asyncio.wait_for(growing[2], 20)

    asyncio.run(scenario())


def test_no_more_wait_that_somebody_waits_for_than_leave_a_worker_free() -> None:
    async def scenario() -> None:
        admission = Admission(10 * MB, 100, turns=2)
        admission.keep(5 * MB, 0)
        with accepted(admission, 2) as first, accepted(admission, 1) as second:
            growing = await begun(admission, first, 6)
            with pytest.raises(Overloaded, match="2 requests hold 7 MB and this one needs 4 MB"):
                await admission.grow(second, 3 * MB)
            await admission.grow(second, 2 * MB)
            growing.cancel()
            await asyncio.gather(growing, return_exceptions=True)
            assert admission.memory_in_use == 10 * MB

    asyncio.run(scenario())


def test_a_thread_that_waits_for_one_whom_nobody_wants_any_more_ends() -> None:
    async def scenario() -> None:
        admission = Admission(10 * MB, 100)
        admission.keep(8 * MB, 0)
        with accepted(admission, 2, background=True) as ticket:
            growing = await begun(admission, ticket, 1)
        with pytest.raises(CancelledError):
            await asyncio.wait_for(growing, 20)

    asyncio.run(scenario())


@pytest.mark.parametrize("stage", ["label", "link", "encode"])
def test_a_computed_image_waits_for_the_memory_of_its_objects_their_links_or_its_outlines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    write_tiny_package(tmp_path)
    wanted = SegmentRequest(output="labels", format="geojson", link=0.5, background=True)
    image = npy(np.stack([disc()] * 2) if stage == "link" else disc())
    now = 0.0
    monkeypatch.setattr("service.engine.scheduling.clock.perf_counter", lambda: now)
    monkeypatch.setattr("service.engine.packages.finishing._LEAST_PIXELS", 1)

    async def scenario() -> None:
        nonlocal now
        engine = Engine(Settings(models_dir=tmp_path, backend="cpu", threads=1, cache_dir="none"), Metrics())
        await engine.start()
        admission = engine._admission
        most = admission.memory_limit - 20 * MB
        if stage == "label":
            monkeypatch.setattr("service.engine.stages.accepted.BYTES_PER_OBJECT", most)
        elif stage == "link":
            monkeypatch.setattr("model.linking.BYTES_PER_NUMBER", most // 2)
        else:
            monkeypatch.setattr(encoding, "encoder_memory", lambda *_: most)
        sent = admission.keep(30 * MB, 0)
        work = asyncio.create_task(engine.segment(io.BytesIO(image), wanted))
        async with asyncio.timeout(60):
            while not admission._growth.wishes:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        assert not work.done()
        now = 40.0
        sent()
        answer = await asyncio.wait_for(work, 60)
        assert json.loads(answer.body.read())["features"]
        answer.body.close()
        assert {name: ms for name, ms in answer.stages_ms.items() if ms} == {"wait": 40000}
        known = engine.models[0].finishing.seconds(wanted, 1)
        assert known == Finishing().seconds(wanted, 1), "it has worked for no time at all, which tells nothing"
        await engine.stop()

    asyncio.run(scenario())
