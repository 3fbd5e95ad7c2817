"""The engine while packages come, change and go: requests in work keep their net, and nets that left are closed."""

from __future__ import annotations

import asyncio
import gc
import io
import math
import re
import shutil
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from model.backends import InferenceSession, OnnxRuntimeSession
from model.package import ZOO, read_package
from model.runtime_errors import inference_error
from service.engine.admission.admission import Admission
from service.engine.engine import Engine
from service.engine.errors import NotReady, Overloaded
from service.engine.packages.rescan import Rescan
from service.engine.packages.soundness import FAILURES
from service.engine.request import SegmentRequest
from service.settings import Settings
from service.telemetry import Metrics
from tests.images import disc, npy
from tests.packages import edit, put_package


@asynccontextmanager
async def running(folder: Path, **settings: object) -> AsyncIterator[Engine]:
    given = {"models_dir": folder, "backend": "cpu", "threads": 1, "cache_dir": "none", "rescan_s": 0.02, **settings}
    engine = Engine(Settings.model_validate(given), Metrics())
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(120):
        while not happened():  # noqa: ASYNC110 - whatever happens, nothing tells of it
            await asyncio.sleep(0.01)


def image(pixels: NDArray[np.uint8]) -> io.BytesIO:
    return io.BytesIO(npy(pixels))


def is_closed(session: weakref.ref[InferenceSession]) -> bool:
    gc.collect()  # errors and the frames that they passed hold each other
    return session() is None


def served(engine: Engine) -> list[str]:
    return [model.package.spec.reference for model in engine.models]


class Held(io.BytesIO):
    """An image whose bytes come when they are let through."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.opened, self.let_through = threading.Event(), threading.Event()

    def read(self, size: int | None = -1) -> bytes:
        self.opened.set()
        assert self.let_through.wait(120)
        return super().read(size)


def test_a_request_ends_on_the_net_that_it_began_with_which_is_closed_then(tmp_path: Path) -> None:
    put_package(tmp_path, version="1.0.0")

    async def scenario() -> None:
        async with running(tmp_path) as engine:
            session = weakref.ref(engine.models[0].session)
            held = Held(npy(disc()))
            asked = asyncio.create_task(engine.segment(held, SegmentRequest()))
            await until(held.opened.is_set)
            put_package(tmp_path, version="2.0.0")
            await until(lambda: served(engine) == ["tiny@2.0.0"])
            new = await engine.segment(image(disc()), SegmentRequest())
            assert session() is not None
            held.let_through.set()
            old = await asked
            assert (old.model, new.model) == ("tiny@1.0.0", "tiny@2.0.0")
            assert old.receipt["model"]["version"] == "1.0.0"
            del asked
            await until(lambda: session() is None)

    asyncio.run(scenario())


def test_nets_that_are_still_used_take_of_the_memory_in_which_others_are_loaded_and_of_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_package(tmp_path, version="1.0.0")
    monkeypatch.setattr("service.engine.admission.precedence._PATIENCE_S", math.inf)

    async def scenario() -> None:
        async with running(tmp_path) as engine:
            ledger, old = engine._admission, engine.models[0]
            with engine.using(None):
                put_package(tmp_path, version="2.0.0")
                await until(lambda: served(engine) == ["tiny@2.0.0"])
                assert ledger.memory_in_use == 0
                room = engine.models[0].working_bytes + old.working_bytes
                release = ledger.keep(ledger.memory_limit - room + 1000, 0)
                put_package(tmp_path, version="3.0.0")
                await until(lambda: engine._running is not None and engine._running.watch._waiting)
                ledger.check(old.throughput, 1, room - 1000, 60)
                assert served(engine) == ["tiny@2.0.0"]
            await until(lambda: served(engine) == ["tiny@3.0.0"])
            release()
            assert ledger.memory_in_use == 0

    asyncio.run(scenario())


def test_a_service_without_a_package_becomes_ready_when_one_comes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path / "packages") as engine:
            assert "is no folder" in engine.readiness().reasons[0]
            put_package(tmp_path / "packages")
            await until(lambda: engine.readiness().ready)
            answer = await engine.segment(image(disc(600)), SegmentRequest(output="probabilities", format="npy"))
            np.testing.assert_array_equal(np.load(io.BytesIO(answer.body.read()))[1] > 0.5, disc(600) > 110)

    asyncio.run(scenario())


def test_a_net_that_broke_is_forgotten_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = put_package(tmp_path)
    run, broken = OnnxRuntimeSession.run, threading.Event()

    def failing(self: OnnxRuntimeSession, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        if broken.is_set() and not tiles.any():
            raise inference_error(RuntimeError("CUDA error 700"), tiles.shape)
        return run(self, tiles)

    monkeypatch.setattr(OnnxRuntimeSession, "run", failing)

    async def scenario() -> None:
        async with running(tmp_path) as engine:
            broken.set()
            for _ in range(FAILURES):
                with pytest.raises(Exception, match="700"):
                    await engine.segment(image(np.zeros((64, 64), np.uint8)), SegmentRequest())
            await until(lambda: not engine.readiness().ready)
            with pytest.raises(NotReady, match=r"tiny@1\.0\.0 fails"):
                await engine.segment(image(disc()), SegmentRequest())
            shutil.rmtree(place)
            put_package(tmp_path, version="1.0.1")
            await until(lambda: engine.readiness().ready)
            assert served(engine) == ["tiny@1.0.1"]

    asyncio.run(scenario())


def test_a_package_waits_until_there_is_memory_to_load_it_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_package(tmp_path)
    asked: list[int] = []
    reserve = Admission.reserve

    def watched(self: Admission, memory_bytes: int, nets_bytes: int) -> Callable[[], None] | None:
        asked.append(memory_bytes)
        return reserve(self, memory_bytes, nets_bytes)

    monkeypatch.setattr(Admission, "reserve", watched)

    async def scenario() -> None:
        async with running(tmp_path) as engine:
            ledger = engine._admission
            release = ledger.keep(ledger.memory_limit, 0)
            put_package(tmp_path, "cells")
            await until(lambda: len(asked) > 1)
            assert served(engine) == ["tiny@1.0.0"]
            assert list(engine.loading) == ["cells"]
            release()
            await until(lambda: served(engine) == ["cells@1.0.0", "tiny@1.0.0"])
            await until(lambda: not engine.loading)
            assert ledger.memory_in_use == 0
            size = sum(file.stat().st_size for file in (tmp_path / "cells").iterdir())
            assert asked[0] >= size, "what it is loaded from is the least that it takes"

    asyncio.run(scenario())


def test_who_asked_once_need_not_ask_again_where_there_was_no_memory(tmp_path: Path) -> None:
    """One that was refused before is tried again, and smaller ones do not wait for one that is large."""
    for name in ("tiny", "gone"):
        put_package(tmp_path, name)
    (put_package(tmp_path, "mended") / "weights.onnx").rename(tmp_path / "away.onnx")

    async def scenario() -> None:
        async with running(tmp_path, rescan_s=0, memory_budget_mb=128) as engine:
            assert "weights.onnx" in engine.refused["mended"]
            (tmp_path / "away.onnx").rename(tmp_path / "mended" / "weights.onnx")
            (tmp_path / "mended" / "large").write_bytes(bytes(10 << 20))
            engine.look_for_packages()
            await until(lambda: "mended@1.0.0" in served(engine))
            (tmp_path / "mended" / "weights.onnx").unlink()
            engine.look_for_packages()
            await until(lambda: "mended" in engine.refused)
            release = engine._admission.keep(engine._admission.memory_limit - (30 << 20), 0)
            put_package(tmp_path, "later")
            shutil.rmtree(tmp_path / "gone")
            (tmp_path / "tiny").rename(tmp_path / "renamed")
            (tmp_path / "renamed" / "large").write_bytes(bytes(10 << 20))
            engine.look_for_packages()
            await until(lambda: served(engine) == ["later@1.0.0", "mended@1.0.0", "tiny@1.0.0"])
            assert "weights.onnx" in engine.refused["mended"]
            assert set(engine.kept) == {"mended@1.0.0", "tiny@1.0.0"}, "what waits comes in their place alone"
            shutil.copy(tmp_path / "later" / "weights.onnx", tmp_path / "mended" / "weights.onnx")
            release()
            await until(lambda: "mended" not in engine.refused)
            await until(lambda: served(engine) == ["later@1.0.0", "mended@1.0.0", "tiny@1.0.0"] and not engine.kept)

    asyncio.run(scenario())


def test_a_package_that_has_waited_for_long_goes_before_requests_that_come_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_package(tmp_path)
    monkeypatch.setattr("service.engine.admission.precedence._PATIENCE_S", 0.0)
    monkeypatch.setattr("service.engine.admission.precedence._MOST_S", 1e6)
    monkeypatch.setattr("service.engine.watching._RETRY_S", 0.02)

    async def scenario() -> None:
        async with running(tmp_path) as engine:
            ledger, speed = engine._admission, engine.model(None).throughput

            def refuses() -> bool:
                try:
                    ledger.check(speed, 1, 1, 60)
                except Overloaded:
                    return True
                return False

            def fails(*_: object, **__: object) -> None:
                raise OSError("the folder is gone")

            with ledger.admit(speed, 1, ledger.memory_limit - 1, 60):
                assert not refuses()
                place = put_package(tmp_path, "cells")
                await until(refuses)
                shutil.rmtree(place)
                await until(lambda: not refuses())
                put_package(tmp_path, "nuclei")
                await until(refuses)
                with monkeypatch.context() as broken:
                    broken.setattr(Rescan, "look", fails)
                    await until(lambda: not refuses())
                await until(refuses)
            await until(lambda: served(engine) == ["nuclei@1.0.0", "tiny@1.0.0"])
            assert ledger.memory_in_use == 0

    asyncio.run(scenario())


def test_packages_that_no_longer_fit_beside_working_memory_are_warned_of_until_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    graph = put_package(tmp_path) / "weights.onnx"
    monkeypatch.setattr("service.engine.packages.loading._KEPT", (80 << 20) / graph.stat().st_size)
    monkeypatch.setattr("service.engine.memory_fit.memory_limit", lambda: (128 + 384 + 10) << 20)
    monkeypatch.setattr("service.engine.memory_fit.temporary_memory", lambda: 0)

    async def scenario() -> None:
        async with running(tmp_path, memory_budget_mb=128) as engine:
            assert engine.memory_fit.conflict is None
            put_package(tmp_path, "cells")
            await until(lambda: engine.memory_fit.conflict)
            warning = engine.memory_fit.conflict or ""
            assert served(engine) == ["cells@1.0.0", "tiny@1.0.0"], "it warns of what is served"
            assert "448 MiB for the process, its nets of 160 MiB included, are 576 MiB, the limit is 522" in warning
            assert [record.message for record in caplog.records].count(warning) == 1
            shutil.rmtree(tmp_path / "cells")
            await until(lambda: engine.memory_fit.conflict is None)

    asyncio.run(scenario())


def test_what_needs_more_than_all_memory_is_refused_and_what_was_in_its_place_is_served_on(tmp_path: Path) -> None:
    put_package(tmp_path)

    async def scenario() -> None:
        async with running(tmp_path, memory_budget_mb=128) as engine:
            draft = put_package(tmp_path, version="2.0.0", place=".larger")
            with (draft / "README.md").open("ab") as file:
                file.truncate(20 << 20)
            (tmp_path / "tiny").rename(tmp_path / ".former")
            draft.rename(tmp_path / "tiny")
            await until(lambda: engine.refused)
            assert re.match(r"126 MB are needed to load .* images is 81 MB; raise UNET_MEM", engine.refused["tiny"])
            assert served(engine) == [*engine.kept] == ["tiny@1.0.0"]

    asyncio.run(scenario())


@pytest.mark.slow
def test_ten_packages_that_come_and_go_leave_no_memory_behind(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each net takes 31 MB in fp32 for its weights alone; they share one speed, being the same net."""
    process, speeds = psutil.Process(), tmp_path_factory.mktemp("speeds")
    monkeypatch.setattr("service.engine.watching._RELEASE_S", 0.02)

    async def come_and_go(engine: Engine, version: str) -> int:
        copy = tmp_path / version
        shutil.copytree(ZOO / "nuclei", copy)
        edit(read_package(copy), lambda rdf: rdf.update(version=version))
        engine.look_for_packages()
        await until(lambda: f"nuclei@{version}" in served(engine))
        session = weakref.ref(engine.model("nuclei").session)
        await engine.segment(image(disc(300)), SegmentRequest(model="nuclei"))
        shutil.rmtree(copy)
        engine.look_for_packages()
        await until(lambda: session() is None)
        return process.memory_info().rss

    async def scenario() -> None:
        put_package(tmp_path)
        async with running(tmp_path, rescan_s=0, precision="fp32", cache_dir=str(speeds)) as engine:
            resident = [await come_and_go(engine, f"9.{number}.0") for number in range(10)]
        # the first ones fill what the allocator keeps
        assert resident[-1] - resident[4] < 50 << 20, [size >> 20 for size in resident]

    asyncio.run(scenario())
