"""A net that fails on whatever it is given, or hangs, takes its replica out; one that fails on some image does not."""

from __future__ import annotations

import asyncio
import io
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.backends import OnnxRuntimeSession
from model.errors import InferenceFailed, OutOfDeviceMemory
from model.runtime_errors import inference_error
from service.engine import running as running_module
from service.engine.engine import Engine
from service.engine.errors import DeadlineExceeded, NotReady
from service.engine.packages.soundness import FAILURES, Soundness
from service.engine.request import SegmentRequest
from service.settings import Settings
from service.telemetry import Metrics
from tests.packages import put_package, write_tiny_package

PROBABILITIES = SegmentRequest(output="probabilities", format="npy")


class Device:
    """What the net runs on: ``fails`` says for which tiles it does not work."""

    def __init__(self) -> None:
        self.fails: Callable[[NDArray[np.float32]], bool] = lambda tiles: False
        self.error: Exception = RuntimeError("CUDA error 700: an illegal memory access")
        self.zeros = 0
        """Tiles of zeros that it was given: examinations."""

    def before(self, tiles: NDArray[np.float32]) -> None:
        self.zeros += not tiles.any()
        if self.fails(tiles):
            raise inference_error(self.error, tiles.shape)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device, run = Device(), OnnxRuntimeSession.run

    def watched(self: OnnxRuntimeSession, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        device.before(tiles)
        return run(self, tiles)

    monkeypatch.setattr(OnnxRuntimeSession, "run", watched)
    monkeypatch.setattr(running_module, "Soundness", partial(Soundness, pause_s=0.01))
    return device


@asynccontextmanager
async def running(tmp_path: Path, deadline_s: float = 300.0) -> AsyncIterator[Engine]:
    write_tiny_package(tmp_path / "packages")
    engine = Engine(Settings(models_dir=tmp_path / "packages", backend="cpu", deadline_s=deadline_s), Metrics())
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def image() -> io.BytesIO:
    file = io.BytesIO()
    np.save(file, np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    file.seek(0)
    return file


async def fail(engine: Engine, times: int, error: type[Exception] = InferenceFailed) -> None:
    for _ in range(times):
        with pytest.raises(error):
            await engine.segment(image(), PROBABILITIES)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


def test_a_broken_net_is_unready_until_it_works_again(tmp_path: Path, device: Device) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as engine:
            await engine.segment(image(), PROBABILITIES)
            device.fails = lambda tiles: True
            await fail(engine, FAILURES - 1)
            assert engine.readiness().ready
            await fail(engine, 1)
            await until(lambda: not engine.readiness().ready)
            (reason,) = engine.readiness().reasons
            assert reason.startswith("the net of tiny@1.0.0 fails: the net failed on a batch of shape")
            assert "CUDA error 700" in reason
            await fail(engine, 1, NotReady)
            assert engine.lost is None
            await until(lambda: engine.lost)
            assert "CUDA error 700" in str(engine.lost)
            device.fails = lambda tiles: False
            await until(lambda: engine.readiness().ready)
            assert engine.lost is None
            await engine.segment(image(), PROBABILITIES)
            device.fails = lambda tiles: True
            await fail(engine, FAILURES)
            await until(lambda: not engine.readiness().ready)

    asyncio.run(scenario())


def test_an_image_that_a_net_fails_on_takes_no_replica_out(tmp_path: Path, device: Device) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as engine:
            device.fails, device.zeros = lambda tiles: bool(tiles.any()), 0
            await fail(engine, 2 * FAILURES)
            await until(lambda: device.zeros)
            assert engine.readiness().ready

    asyncio.run(scenario())


def test_answers_between_failures_and_want_of_memory_ask_for_no_examination(tmp_path: Path, device: Device) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as engine:
            device.zeros = 0
            for _ in range(FAILURES):
                device.fails = lambda tiles: True
                await fail(engine, FAILURES - 1)
                device.fails = lambda tiles: False
                await engine.segment(image(), PROBABILITIES)
            device.fails, device.error = lambda tiles: True, MemoryError()
            await fail(engine, 2 * FAILURES, OutOfDeviceMemory)
            assert not device.zeros
            assert engine.readiness().ready

    asyncio.run(scenario())


@pytest.fixture
def goes_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until when a net hangs; it is found out at once, and goes on at the end in any case."""
    monkeypatch.setattr(running_module, "LEAST_PATIENCE_S", 0.0)
    event = threading.Event()
    yield event
    event.set()


def until_set(event: threading.Event) -> Callable[[NDArray[np.float32]], bool]:
    def hang(tiles: NDArray[np.float32]) -> bool:
        event.wait(60)
        return False

    return hang


def test_a_net_that_hangs_is_unready_for_as_long_and_in_the_end_not_alive(
    tmp_path: Path, device: Device, goes_on: threading.Event
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, deadline_s=0.5) as engine:
            await engine.segment(image(), PROBABILITIES)
            device.fails = until_set(goes_on)
            await fail(engine, 1, DeadlineExceeded)
            await until(lambda: engine.lost)
            (reason,) = engine.readiness().reasons
            assert re.fullmatch(
                r"a batch of tiles has been in work for \d+ s, the limit is 0.5 s \(UNET_DEADLINE_S, .*", reason
            )
            await fail(engine, 1, NotReady)
            goes_on.set()
            await until(lambda: engine.readiness().ready)
            assert engine.lost is None
            await engine.segment(image(), PROBABILITIES)

    asyncio.run(scenario())


def test_a_net_that_hangs_while_it_is_loaded_is_named_and_holds_up_neither_others_nor_the_end(
    tmp_path: Path, device: Device, goes_on: threading.Event
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, deadline_s=0.5) as engine:
            await engine.segment(image(), PROBABILITIES)
            device.fails = until_set(goes_on)
            put_package(tmp_path / "packages", "late")
            engine.look_for_packages()
            await until(lambda: engine.lost)
            (reason,) = engine.readiness().reasons
            assert re.match(r"package late, being loaded, has been in work for \d+ s, the limit is 0.5 s", reason)
            await fail(engine, 1, NotReady)
            goes_on.set()
            await until(lambda: len(engine.models) == 2)
            assert engine.readiness().ready
            goes_on.clear()
            put_package(tmp_path / "packages", "later")
            engine.look_for_packages()
            await until(lambda: not engine.readiness().ready)
            await engine.stop()
            assert not goes_on.is_set(), "it hangs still"

    asyncio.run(scenario())
