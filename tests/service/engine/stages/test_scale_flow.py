"""From the search of ``scale=auto`` to the work: one place, one ticket, and no more memory than each takes."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from service.engine.admission.admission import Admission
from service.engine.admission.ticket import Throughput, Ticket
from service.engine.engine import Engine
from service.engine.errors import DeadlineExceeded, Overloaded, TooLargeForMemory
from service.engine.images.scaling import scaled_image
from service.engine.request import Answer, SegmentRequest
from service.engine.stages import pipeline, scale_search
from service.engine.stages.accepted import AcceptedRequest
from service.engine.stages.demand import Demand
from service.engine.stages.needs import Needs, needs
from service.engine.stages.progress import Progress
from service.engine.stages.scale_search import crops_of, found_scale, search_needs
from service.formats import OutputKind
from tests.engines import running
from tests.images import disc, npy
from tests.packages import write_tiny_package
from tests.service.engine.stages.test_in_turn import most_in_turn
from tests.service.engine.stages.test_outputs import NPY_HEADER, Runs, alone, content, header_of, scarce, together

IMAGE = np.tile(disc(64, 64, 12), (4, 6))  # discs of 24 px, where the package knows 4 to 20 px
STACK = np.stack([IMAGE] * 40)
MB = 1_000_000
AUTO = SegmentRequest(format="npy", auto_scale=True)
OUTPUTS: tuple[OutputKind, ...] = ("mask", "labels", "probabilities")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    write_tiny_package(tmp_path / "packages")
    return tmp_path / "packages"


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


async def settled_at(engine: Engine, image: np.ndarray[Any, Any] = STACK) -> SegmentRequest:
    """Return the request with the scale that is found for it as a number."""
    answer = await engine.segment(io.BytesIO(npy(image)), AUTO)
    answer.body.close()
    return replace(AUTO, auto_scale=False, scale=answer.receipt["output"]["scale"])


def needed(engine: Engine, asked: SegmentRequest, *outputs: OutputKind) -> int:
    """Bytes of memory that a run of the net takes for some outputs of the stack."""
    requests = [replace(asked, output=output) for output in outputs]
    spec = engine.models[0].package.spec
    return needs(header_of(STACK), spec, requests, 1, Needs(sys.maxsize, 0)).memory_bytes


@pytest.mark.parametrize("for_good", [False, True])
def test_outputs_without_room_together_are_made_in_turn_at_a_scale_that_is_looked_for_once(
    packages: Path, *, for_good: bool
) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            at_scale, admission = await settled_at(engine), engine._admission
            assert at_scale.scale != 1
            runs = Runs(engine)
            content(await alone(engine, npy(STACK), at_scale))
            without, _ = runs.since()
            expected = content(await alone(engine, npy(STACK), AUTO))
            searches = (runs.since()[0] - without) / len(OUTPUTS)
            assert searches > 0
            missing = needed(engine, at_scale, *OUTPUTS) - 1
            async with AsyncExitStack() as held:
                if for_good:
                    scarce(engine, missing)
                else:
                    full = admission.memory_limit - missing
                    held.enter_context(admission.admit(Throughput(MB), 0, full, 60))
                assert content(await together(engine, npy(STACK), AUTO)) == expected
            assert runs.since()[0] == without + searches
            assert admission.memory_in_use == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("for_good", [False, True])
def test_time_for_all_outputs_in_turn_is_looked_at_after_the_search(
    packages: Path, monkeypatch: pytest.MonkeyPatch, *, for_good: bool
) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            at_scale, runs, chosen = await settled_at(engine), Runs(engine), engine.models[0]
            pipe = engine._working().pipeline
            pixels = pipe.demand(header_of(STACK), [at_scale], chosen, 1, 60).pixels
            content(await alone(engine, npy(STACK), at_scale, OUTPUTS[:1]))
            without, _ = runs.since()
            content(await alone(engine, npy(STACK), AUTO, OUTPUTS[:1]))
            searches = runs.since()[0] - without
            missing, held = needed(engine, replace(AUTO, auto_scale=False), *OUTPUTS) - 1, 0
            if for_good:
                scarce(engine, missing)
            else:
                held = engine._admission.memory_limit - missing
            monkeypatch.setattr(Throughput, "pixels_per_second", pixels / 10)
            with (
                engine._admission.admit(Throughput(MB), 0, held, 60),
                pytest.raises(DeadlineExceeded, match=r"of 3 outputs, .* allowed is 25 s.*; scale=auto took"),
            ):
                await together(engine, npy(STACK), replace(AUTO, timeout_s=25))
            assert runs.since()[0] == searches > 0

    asyncio.run(scenario())


def test_room_for_all_outputs_in_turn_is_looked_at_after_the_search(packages: Path) -> None:
    """Where all together have no room at scale 1, and beside others the first in turn alone has it."""

    async def scenario() -> None:
        async with running(packages) as engine:
            at_scale, admission = await settled_at(engine), engine._admission
            runs = Runs(engine)
            content(await alone(engine, npy(STACK), at_scale, OUTPUTS[:1]))
            without, _ = runs.since()
            content(await alone(engine, npy(STACK), AUTO, OUTPUTS[:1]))
            searches = runs.since()[0] - without
            scarce(engine, needed(engine, replace(AUTO, auto_scale=False), *OUTPUTS) - 1)
            enough = min(
                most_in_turn(order, STACK.size, lambda output: needed(engine, at_scale, output))
                for order in permutations(OUTPUTS)
            )
            held = admission.memory_limit - enough + 3 * NPY_HEADER + 1
            assert needed(engine, at_scale, "labels") < enough
            with admission.admit(Throughput(MB), 0, held, 60), pytest.raises(Overloaded, match="1 requests hold"):
                await together(engine, npy(STACK), AUTO)
            assert runs.since()[0] == searches > 0

    asyncio.run(scenario())


def test_a_job_keeps_its_place_after_the_search(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def late(*arguments: Any) -> Any:
        begun.set()
        go_on.wait(30)
        return scaled_image(*arguments)

    monkeypatch.setattr(scale_search, "scaled_image", late)

    async def scenario() -> None:
        async with running(packages, threads=2) as engine:
            assert engine._admission.order.turns == 2
            engine._working().pipeline.turns._free -= 1
            ended: list[int] = []
            progress = [Progress() for _ in range(4)]
            tasks: list[asyncio.Task[Answer]] = []
            for number, own in enumerate(progress):
                asked = replace(AUTO, background=True, auto_scale=number == 0)
                tasks.append(asyncio.create_task(engine.segment(io.BytesIO(npy(STACK)), asked, own)))
                tasks[-1].add_done_callback(lambda task: ended.append(tasks.index(task)))
                await eventually(own.accepted.is_set)
            assert await asyncio.to_thread(begun.wait, 30)
            assert progress[0].began_at is not None
            assert [own.began_at for own in progress[1:]] == [None] * 3
            assert progress[0].seconds_left is None, "what the work takes is not known"
            go_on.set()
            for answer in await asyncio.gather(*tasks):
                answer.body.close()
            assert ended == [0, 1, 2, 3]
            assert [own.pixels_done for own in progress] == [STACK.size] * 4

    try:
        asyncio.run(scenario())
    finally:
        go_on.set()


def test_a_search_takes_one_plane_and_one_crop(packages: Path) -> None:
    image = np.tile(disc(64, 64, 12), (30, 30))

    async def scenario() -> None:
        async with running(packages) as engine:
            at_scale = await settled_at(engine, image)
            expected = await alone(engine, npy(image), at_scale, ["mask"])
            spec, header = engine.models[0].package.spec, header_of(image)
            scarce(engine, needs(header, spec, [at_scale], 1, Needs(sys.maxsize, 0)).memory_bytes)
            found = await alone(engine, npy(image), AUTO, ["mask"])
            assert found["mask"].body.read() == expected["mask"].body.read()

            crops, most = crops_of(header, engine.models[0].planner), Needs(100 * MB, 1000 * MB)
            room = search_needs(header, AUTO, spec, 1, most, crops=crops)
            assert image.nbytes < room.memory_bytes < image.nbytes + 20 * MB
            assert not room.on_disk
            less = replace(most, memory_bytes=room.memory_bytes - 1)
            assert search_needs(header, AUTO, spec, 1, less, crops=crops).disk_bytes == image.nbytes

    asyncio.run(scenario())


def test_what_fits_at_no_scale_is_told_before_the_search(packages: Path) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            runs, own = Runs(engine), replace(AUTO, auto_scale=False)
            scarce(engine, needed(engine, own, "mask") - 1)
            for outputs in (OUTPUTS[:1], OUTPUTS):
                with pytest.raises(TooLargeForMemory, match="the image and its result need"):
                    await together(engine, npy(STACK), AUTO, outputs)
            assert runs.since() == (0, 0)
            assert engine._admission.memory_in_use == 0

    asyncio.run(scenario())


def test_what_has_been_searched_waits_for_memory(packages: Path) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            at_scale, admission, runs = await settled_at(engine), engine._admission, Runs(engine)
            expected = content(await alone(engine, npy(STACK), AUTO, OUTPUTS[2:]))
            once, _ = runs.since()
            sent = admission.keep(admission.memory_limit - needed(engine, at_scale, "probabilities") + 1, 0)
            task = asyncio.create_task(alone(engine, npy(STACK), AUTO, OUTPUTS[2:]))
            await eventually(lambda: admission._growth.wishes or task.done())
            assert not task.done()
            sent()
            assert content(await task) == expected
            assert runs.since()[0] == once

    asyncio.run(scenario())


def test_the_work_has_the_time_that_the_search_has_left(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []

    async def slow(*arguments: Any) -> tuple[float, str]:
        await asyncio.sleep(0.3)
        return await found_scale(*arguments)

    async def told(self: Demand, admission: Admission, ticket: Ticket, *, patient: bool) -> None:
        left.append(self.left_s)
        await real(self, admission, ticket, patient=patient)

    real = Demand.go_on
    monkeypatch.setattr(pipeline, "found_scale", slow)
    monkeypatch.setattr(Demand, "go_on", told)

    async def scenario() -> None:
        async with running(packages) as engine:
            (await engine.segment(io.BytesIO(npy(IMAGE)), replace(AUTO, timeout_s=30))).body.close()

    asyncio.run(scenario())
    assert 0 < left[0] < 29.9


@pytest.mark.parametrize("how", ["found", "sizes", "given"])
@pytest.mark.parametrize("asking", [alone, together])
def test_what_ends_for_want_of_time_or_memory_at_a_scale_that_auto_took_names_it(
    packages: Path, monkeypatch: pytest.MonkeyPatch, how: str, asking: Callable[..., Any]
) -> None:
    async def late(*_: object) -> None:
        raise TimeoutError  # as once the time is over

    async def fat(self: AcceptedRequest, _: int) -> None:
        await self.grow(self.admission.memory_limit)

    async def scenario() -> None:
        async with running(packages) as engine:
            found = await settled_at(engine, IMAGE)
            asked = {"found": AUTO, "sizes": replace(AUTO, pixel_size_um=(1.0, 1.0)), "given": found}[how]
            scale = 2.0 if how == "sizes" else found.scale
            for plane, error in ((late, DeadlineExceeded), (fat, TooLargeForMemory)):
                monkeypatch.setattr(AcceptedRequest, "infer", plane)
                with pytest.raises(error) as ended:
                    await asking(engine, npy(IMAGE), asked)
                told = f"; scale=auto took {scale:g}, scale= with a number replaces it"
                assert str(ended.value).endswith(told) == (how != "given")
                assert str(ended.value).count("scale=auto") == (how != "given")

    asyncio.run(scenario())


def test_a_search_is_no_time_beside_the_net_of_what_is_asked_for(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_s, passed_s, told_s = 100_000.0, [0.0], []

    async def slow(work: AcceptedRequest, *arguments: Any) -> tuple[float, str]:
        with work.clock.stage("scale"):
            passed_s.append(long_s)
        return await found_scale(work, *arguments)

    async def told(self: Demand, admission: Admission, ticket: Ticket, *, patient: bool) -> None:
        told_s.append(ticket.beside())
        await real(self, admission, ticket, patient=patient)

    real = Demand.go_on
    monkeypatch.setattr(pipeline, "found_scale", slow)
    monkeypatch.setattr(Demand, "go_on", told)
    monkeypatch.setattr("service.engine.scheduling.clock.perf_counter", lambda: perf_counter() + sum(passed_s))

    async def scenario() -> None:
        async with running(packages) as engine:
            answer = await engine.segment(io.BytesIO(npy(STACK)), AUTO)
            answer.body.close()
            assert answer.stages_ms["scale"] >= long_s * 1000, "the caller is told of it"
            alike = replace(AUTO, auto_scale=False, scale=answer.receipt["output"]["scale"])
            assert 0 < (engine.models[0].finishing.seconds(alike, STACK.size) or 0) < long_s

    asyncio.run(scenario())
    assert 0 <= told_s[0] < long_s, "what is left of it after the search is no less"


def test_outputs_whose_scale_has_been_searched_wait_together_for_a_package(packages: Path) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            at_scale, admission, runs = await settled_at(engine), engine._admission, Runs(engine)
            expected = content(await together(engine, npy(STACK), AUTO, OUTPUTS))
            once, _ = runs.since()
            release = admission.reserve(admission.memory_limit - needed(engine, at_scale, *OUTPUTS) + 1)
            assert release is not None
            task = asyncio.create_task(together(engine, npy(STACK), AUTO, OUTPUTS))
            await eventually(lambda: admission._growth.wishes or task.done())
            assert not task.done()
            release()
            assert content(await task) == expected
            assert runs.since()[0] == once

    asyncio.run(scenario())
