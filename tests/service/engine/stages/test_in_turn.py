"""Outputs in turn: refused before the net runs where room or time for all of them lacks now, in the order that fits."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import accumulate, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine.admission.alone import megabytes
from service.engine.admission.ticket import Throughput
from service.engine.engine import Engine
from service.engine.errors import DeadlineExceeded, Overloaded, TooLargeForMemory
from service.formats import OutputKind
from service.formats.npy import NpyEncoder
from tests.engines import running
from tests.images import npy
from tests.packages import write_tiny_package
from tests.service.engine.stages.test_on_disk import MB, blobs
from tests.service.engine.stages.test_outputs import (
    ASKED,
    NPY_HEADER,
    OUTPUTS,
    Runs,
    alone,
    content,
    needed,
    scarce,
    together,
)
from tests.service.engine.test_watching import until

STACK = np.stack([blobs()] * 40)
LABELS_FIRST: tuple[OutputKind, ...] = ("labels", "probabilities", "mask")
PROBABILITIES_FIRST: tuple[OutputKind, ...] = ("probabilities", "labels", "mask")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    write_tiny_package(tmp_path / "packages")
    return tmp_path / "packages"


def needed_in_turn(engine: Engine, *order: OutputKind) -> int:
    """Bytes of memory that the stack takes in some order at most."""
    return most_in_turn(order, STACK.size, lambda output: needed(engine, STACK, output))


def most_in_turn(order: Sequence[OutputKind], pixels: int, needed: Callable[[OutputKind], int]) -> int:
    """Bytes that each needs beside answers before it that are as small as they can be, of two classes, at most."""
    least = [NPY_HEADER + NpyEncoder.least_bytes(output, pixels, 2) for output in order]
    return max(needed(output) + ready for output, ready in zip(order, accumulate(least, initial=0), strict=False))


def test_later_outputs_without_room_beside_others_are_told_before_the_net_runs(packages: Path) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            runs, admission = Runs(engine), engine._admission
            enough = min(needed_in_turn(engine, *order) for order in permutations(OUTPUTS))
            assert needed(engine, STACK, "labels") < enough, "there is room for the first"
            held = admission.memory_limit - enough + 3 * NPY_HEADER + 1
            with admission.admit(Throughput(MB), 0, held, 60), pytest.raises(Overloaded) as refusal:
                await together(engine, npy(STACK))
            assert runs.since() == (0, 0)
            assert f"1 requests hold {megabytes(held)} MB" in str(refusal.value)
            assert f"try again in {refusal.value.retry_after_s} s" in str(refusal.value)
            with admission.admit(Throughput(MB), 0, held - 3 * NPY_HEADER - 1, 60):
                content(await together(engine, npy(STACK)))
            assert runs.since()[1] == 3 * STACK.size

    asyncio.run(scenario())


def test_outputs_in_turn_wait_for_a_package_before_the_first(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.admission.package_room._PATIENCE_S", math.inf)

    async def scenario() -> None:
        async with running(packages) as engine:
            runs, admission = Runs(engine), engine._admission
            scarce(engine, needed(engine, STACK, *OUTPUTS) - 1)
            release = admission.reserve(admission.memory_limit)
            assert release is not None
            asked = asyncio.create_task(together(engine, npy(STACK)))
            await until(lambda: admission._package.awaited > 0 or asked.done())
            assert runs.since() == (0, 0)
            release()
            content(await asked)
            assert runs.since()[1] == 3 * STACK.size

    asyncio.run(scenario())


def test_a_refusal_between_outputs_does_not_count_those_that_are_ready(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            admission = engine._admission
            scarce(engine, needed(engine, STACK, *OUTPUTS) - 1)
            labels = 2 * STACK.size + NPY_HEADER
            held = admission.memory_limit - needed(engine, STACK, "probabilities") - labels + 1
            real = admission.keep

            def others_come(*given: Any) -> Callable[[], None]:
                real(held, 0)
                return real(*given)

            monkeypatch.setattr(admission, "keep", others_come)
            with pytest.raises(Overloaded) as refusal:
                await together(engine, npy(STACK))
            assert str(refusal.value).startswith(f"1 requests hold {megabytes(held)} MB and this one needs ")
            assert " MB beside 8 MB of its other results, the memory budget" in str(refusal.value)
            assert admission.memory_in_use == held

    asyncio.run(scenario())


@pytest.mark.parametrize("idle", [False, True])
def test_time_for_all_outputs_in_turn_is_looked_at_before_the_first(packages: Path, *, idle: bool) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            runs, speed = Runs(engine), engine.models[0].throughput
            scarce(engine, needed(engine, STACK, *OUTPUTS) - 1)
            # a run takes 10 s by a speed that was measured just now
            pixels = await pixels_of_a_run(engine)
            speed._pixels, speed._seconds, speed._measured_at = pixels / 10, 1.0, time.monotonic()
            asked = replace(ASKED, timeout_s=20)
            with ExitStack() as others:
                if not idle:
                    others.enter_context(engine._admission.admit(Throughput(MB), 0, 0, 60))
                with pytest.raises(DeadlineExceeded) as refusal:
                    await together(engine, npy(STACK), asked)
                assert runs.since() == (0, 0)
                assert str(refusal.value).startswith("the work of 3 outputs, made one after the other, ")
                assert "ready in about 30 s at the measured speed, the time allowed is 20 s" in str(refusal.value)
                assert "ask for fewer outputs at a time" in str(refusal.value)
                content(await together(engine, npy(STACK), replace(asked, timeout_s=100)))
            assert runs.since()[1] == 3 * STACK.size

    asyncio.run(scenario())


async def pixels_of_a_run(engine: Engine) -> int:
    """What the tiles of the stack take of the net."""
    forecast = await engine.forecast((STACK.shape[1], STACK.shape[2]), STACK.shape[0], ASKED)
    return engine.models[0].work(forecast.plan) * forecast.planes


def test_probabilities_come_first_where_labels_first_have_no_room(packages: Path) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            runs, expected = Runs(engine), content(await alone(engine, npy(STACK)))
            runs.since()
            enough = needed_in_turn(engine, *PROBABILITIES_FIRST)
            assert enough == min(needed_in_turn(engine, *order) for order in permutations(OUTPUTS))
            assert enough < needed_in_turn(engine, *LABELS_FIRST) - 3 * NPY_HEADER
            scarce(engine, enough)
            assert content(await together(engine, npy(STACK))) == expected
            assert runs.since()[1] == 3 * STACK.size
            scarce(engine, enough - 3 * NPY_HEADER - 1)
            with pytest.raises(TooLargeForMemory, match=r"beside 8 MB of the request's other .* ask for fewer"):
                await together(engine, npy(STACK))
            assert runs.since() == (0, 0)
            assert engine._admission.memory_in_use == 0

    asyncio.run(scenario())


def test_labels_come_first_where_several_orders_have_room(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            kept: list[int] = []
            real = engine._admission.keep

            def note(memory_bytes: int, *others: Any) -> Callable[[], None]:
                kept.append(memory_bytes)
                return real(memory_bytes, *others)

            monkeypatch.setattr(engine._admission, "keep", note)
            scarce(engine, needed(engine, STACK, *OUTPUTS) - 1)
            content(await together(engine, npy(STACK)))
            assert kept == [2 * STACK.size + NPY_HEADER, 8 * STACK.size + NPY_HEADER, STACK.size + NPY_HEADER]

    asyncio.run(scenario())
