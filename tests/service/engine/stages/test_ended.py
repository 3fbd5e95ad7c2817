"""What a request leaves when it ends: nothing, though no garbage collector runs; what its threads are at goes later."""

from __future__ import annotations

import asyncio
import io
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import pytest

from model.errors import NonFiniteOutput
from model.stitching import Reduce, Run
from service.engine.engine import Engine
from service.engine.errors import DeadlineExceeded, SpoolFull
from service.engine.images.plane import chosen_run
from service.engine.images.spool import Spool, SpooledArray
from service.engine.request import SegmentRequest
from service.engine.stages import accepted, demand, encoding
from service.engine.stages.needs import Needs
from service.formats import OutputKind
from tests.disks import small_disk
from tests.engines import running
from tests.images import npy, tiff
from tests.live import wait_until
from tests.packages import write_tiny_package
from tests.service.engine.images.test_spool import files_in
from tests.service.engine.stages.test_on_disk import MB, blobs

IMAGE = tiff(blobs(1100), rowsperstrip=16)
LEAST_ARRAY_BYTES = 1100 * 1120  # a mask; the image takes twice as much, labels and probabilities more
LABELS = SegmentRequest(output="labels", format="tiff")
STAGES = [
    (accepted, "read_image"),
    (accepted, "fit"),
    (accepted, "read_tile"),
    (accepted, "label_evidence"),
    (encoding, "write_body"),
]
Scenario: TypeAlias = Callable[[Engine, Path], Awaitable[None]]

pytestmark = pytest.mark.usefixtures("no_collector")


@pytest.fixture(params=[True, False], ids=["in files", "in memory"])
def in_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    to_disk: bool = request.param
    if to_disk:
        monkeypatch.setattr(demand, "needs", lambda *_: Needs(MB, 100 * MB))
    return to_disk


def check_that_nothing_is_left(tmp_path: Path, scenario: Scenario) -> None:
    """Run a scenario; its files go, and its memory, and what it was promised."""
    spool = tmp_path / "spool"
    spool.mkdir()
    write_tiny_package(tmp_path / "packages")

    async def checked() -> None:
        async with running(tmp_path / "packages", spool_dir=str(spool)) as engine:
            (await engine.segment(io.BytesIO(npy(blobs(40))), LABELS)).body.close()  # what is kept from the first on
            tracemalloc.start()
            try:
                before, _ = tracemalloc.get_traced_memory()
                await scenario(engine, spool)
                for has_gone in (
                    lambda: not engine._admission.in_flight,
                    lambda: not files_in(spool),
                    lambda: tracemalloc.get_traced_memory()[0] - before < LEAST_ARRAY_BYTES // 2,
                ):
                    await asyncio.to_thread(wait_until, has_gone)
            finally:
                tracemalloc.stop()
            assert (engine._admission.memory_in_use, engine._admission.disk_in_use) == (0, 0)

    asyncio.run(checked())


@pytest.mark.parametrize("end", ["deadline", "hang-up"])
@pytest.mark.parametrize(("module", "stage"), STAGES, ids=lambda each: each if isinstance(each, str) else "")
def test_what_a_thread_is_at_goes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, stage: str, end: str, *, in_files: bool
) -> None:
    begun, gone = threading.Event(), threading.Event()
    real, ends = getattr(module, stage), list[type[BaseException]]()

    def late(*arguments: Any, **named: Any) -> Any:
        begun.set()
        gone.wait(60)
        try:
            return real(*arguments, **named)
        except BaseException as error:
            ends.append(type(error))
            raise

    async def scenario(engine: Engine, spool: Path) -> None:
        monkeypatch.setattr(module, stage, late)
        timeout_s = 0.5 if end == "deadline" else 60.0
        request = SegmentRequest(output="labels", format="tiff", timeout_s=timeout_s)
        answer = asyncio.create_task(engine.segment(io.BytesIO(IMAGE), request))
        try:
            if end == "hang-up":
                assert await asyncio.to_thread(begun.wait, 60)
                answer.cancel()
            with pytest.raises(DeadlineExceeded if end == "deadline" else asyncio.CancelledError):
                await answer
            if begun.is_set():  # a slow machine may be at another stage at the deadline
                assert engine._admission.in_flight == 1
                assert bool(files_in(spool)) == (in_files and stage != "read_image")
                assert bool(engine._admission.disk_in_use) == in_files
        finally:
            gone.set()

    check_that_nothing_is_left(tmp_path, scenario)
    assert set(ends) <= {CancelledError}, "nothing was taken from under it"


@pytest.mark.parametrize("last", range(1, 5))
@pytest.mark.parametrize("output", ["labels", "probabilities"])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: OutputKind, last: int
) -> None:
    """From the first array, the image, to the last, which the labels are written to; the answer where there are two."""
    made, real = [0], Spool.array

    def array(self: Spool, shape: tuple[int, ...], dtype: np.dtype[Any]) -> SpooledArray:
        made[0] += 1
        with small_disk(1) if made[0] == last else nullcontext():
            return real(self, shape, dtype)

    async def scenario(engine: Engine, _: Path) -> None:
        monkeypatch.setattr(demand, "needs", lambda *_: Needs(MB, 100 * MB))
        monkeypatch.setattr(Spool, "array", array)
        request = SegmentRequest(output=output, format="tiff")
        full_at_the_end = output == "probabilities" and last > 2
        with pytest.raises(SpoolFull), small_disk(6 * MB) if full_at_the_end else nullcontext():
            await engine.segment(io.BytesIO(IMAGE), request)

    check_that_nothing_is_left(tmp_path, scenario)


@pytest.mark.usefixtures("in_files")
def test_a_net_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any) -> tuple[Run, list[Reduce]]:
        run, reduces = chosen_run(*arguments)
        return lambda tiles_bcyx: run(tiles_bcyx) * np.float32(np.nan), reduces

    async def scenario(engine: Engine, _: Path) -> None:
        monkeypatch.setattr(accepted, "chosen_run", failing)
        for _again in range(2):
            with pytest.raises(NonFiniteOutput):
                await engine.segment(io.BytesIO(IMAGE), LABELS)

    check_that_nothing_is_left(tmp_path, scenario)


@pytest.mark.usefixtures("in_files")
def test_an_answer_leaves_nothing_but_its_own_file(tmp_path: Path) -> None:
    async def scenario(engine: Engine, spool: Path) -> None:
        answer = await engine.segment(io.BytesIO(IMAGE), LABELS)
        assert len(files_in(spool)) == (not answer.body.in_memory)
        assert len(answer.body.read()) == answer.body.size
        answer.body.close()

    check_that_nothing_is_left(tmp_path, scenario)
