"""The engine with a real package: what is admitted, refused, and answered."""

from __future__ import annotations

import asyncio
import errno
import io
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.images import ReadLimits, open_image
from model.labels import Objects, label_evidence
from model.package import ZOO, read_package
from model.session import SessionOptions, open_session
from service.engine.engine import Engine
from service.engine.errors import BadParameter, DeadlineExceeded, Draining, NotReady, Overloaded, TooLargeForMemory
from service.engine.images.plane import check_output
from service.engine.request import Answer, SegmentRequest
from service.formats import Encoder, SegmentationResult
from service.settings import Settings
from service.telemetry import Metrics
from tests.engines import running
from tests.packages import write_tiny_package
from training.evaluation.prediction import session_predictor


def npy(array: NDArray[Any]) -> io.BytesIO:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    write_tiny_package(tmp_path / "packages")
    return tmp_path / "packages"


class HeldBack(io.BytesIO):
    """A file on a disk that takes its time."""

    def __init__(self, content: bytes, go_on: threading.Event) -> None:
        super().__init__(content)
        self._go_on = go_on

    def read(self, size: int | None = -1) -> bytes:
        self._go_on.wait(30)
        return super().read(size)


def test_small_images_pass_large_ones_that_hold_all_threads_for_their_size(packages: Path) -> None:
    async def scenario() -> None:
        go_on = threading.Event()
        large = npy(np.zeros((1100, 1100), dtype=np.uint8)).getvalue()
        request = SegmentRequest(output="mask", format="npy")
        async with running(packages) as engine, asyncio.timeout(20):
            held = [asyncio.create_task(engine.segment(HeldBack(large, go_on), request)) for _ in range(100)]
            await asyncio.sleep(0)
            try:
                await engine.segment(npy(np.zeros((64, 64), dtype=np.uint8)), request)
                assert not any(task.done() for task in held)
            finally:
                for task in held:
                    task.cancel()
                go_on.set()
                await asyncio.gather(*held, return_exceptions=True)

    asyncio.run(scenario())


def test_many_tiny_images_do_not_spoil_the_estimate_for_larger_ones(packages: Path) -> None:
    async def scenario() -> tuple[float, float]:
        async with running(packages) as engine:
            before = engine.pixels_per_second
            for _ in range(60):
                await engine.segment(npy(np.zeros((1, 1), np.uint8)), SegmentRequest())
            await engine.segment(npy(np.zeros((40, 8, 8), np.uint8)), SegmentRequest(format="tiff"))
            await engine.segment(npy(np.zeros((512, 512), np.uint8)), SegmentRequest(timeout_s=20))
            return before, engine.pixels_per_second

    before, after = asyncio.run(scenario())
    assert after > before / 100


class CountingEncoder(Encoder):
    """Notes how many planes it is asked to write."""

    def __init__(self) -> None:
        self.planes: list[int] = []

    def write(self, result: SegmentationResult, target: IO[bytes]) -> None:
        self.planes.append(len(result.planes))


@pytest.mark.parametrize(("planes", "written"), [(1, 1), (2, 2), (100_000, 2)])
def test_an_output_is_checked_with_two_planes_however_many_there_are(packages: Path, planes: int, written: int) -> None:
    encoder = CountingEncoder()
    spec = write_tiny_package(packages, name="other").spec
    header = open_image(npy(np.zeros((planes, 1, 5), np.uint8)), ReadLimits(10**9, 10**9)).header
    check_output(encoder, header, spec, SegmentRequest())
    assert encoder.planes == [written]


def test_outlines_of_noise_beyond_the_memory_budget_are_refused_and_fewer_edges_are_not(packages: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1600, 1600), dtype=np.uint8)
    disc = np.zeros((1600, 1600), np.uint8)
    disc[400:1200, 400:1200] = 200
    asked = SegmentRequest(output="labels", format="geojson")

    async def scenario() -> str:
        async with running(packages, memory_budget_mb=192) as engine:
            with pytest.raises(TooLargeForMemory) as refusal:
                await engine.segment(npy(noise), asked)
            assert b"Polygon" in (await engine.segment(npy(disc), asked)).body.read()
            return str(refusal.value)

    assert "UNET_MEMORY_BUDGET_MB" in asyncio.run(scenario())


def test_the_threads_of_callers_who_have_gone_neither_hold_up_the_end_nor_compute_on(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labelling asks the loop for memory, while the loop waits for labelling to end."""
    begun, gone, counted = threading.Event(), threading.Event(), threading.Event()

    def labelling(*arguments: Any, tell: Callable[[int], None], **options: Any) -> Objects:
        def late(count: int) -> None:
            begun.set()
            gone.wait(20)
            tell(count + 300_000)
            counted.set()

        return label_evidence(*arguments, tell=late, **options)

    monkeypatch.setattr("service.engine.stages.accepted.label_evidence", labelling)

    async def scenario(*, hang_up: bool) -> None:
        async with running(packages, drain_delay_s=0) as engine:
            request = SegmentRequest(output="labels", format="npy")
            answer = asyncio.create_task(engine.segment(npy(np.zeros((64, 64), np.uint8)), request))
            await asyncio.to_thread(begun.wait, 20)
            if hang_up:
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)
            # as late as the end of the service, which this loop takes part in
            asyncio.get_running_loop().call_later(0.2, gone.set)
        await asyncio.gather(answer, return_exceptions=True)

    asyncio.run(asyncio.wait_for(scenario(hang_up=False), 60))
    assert counted.is_set()
    for event in (begun, gone, counted):
        event.clear()
    asyncio.run(asyncio.wait_for(scenario(hang_up=True), 60))
    assert not counted.is_set()


def test_an_answer_is_charged_until_it_is_closed_or_forgotten(packages: Path) -> None:
    image, asked = np.zeros((1500, 1500), np.uint8), SegmentRequest(output="probabilities", format="npy")

    async def scenario() -> None:
        async with running(packages, memory_budget_mb=256) as engine:
            answers = [await engine.segment(npy(image), asked)]
            with suppress(Overloaded):
                while len(answers) < 20:
                    answers.append(await engine.segment(npy(image), asked))
            assert 1 < len(answers) < 20
            with pytest.raises(Overloaded, match="requests hold"):
                await engine.segment(npy(image), asked)
            answers[0].body.close()
            answers[0] = await engine.segment(npy(image), asked)
            with pytest.raises(Overloaded):
                await engine.segment(npy(image), asked)
            del answers[0]
            # the thread that wrote it may hold it for a moment longer
            async with asyncio.timeout(20):
                while True:
                    with suppress(Overloaded):
                        await engine.segment(npy(image), asked)
                        break
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_what_is_late_is_told_so_and_the_next_request_is_answered(packages: Path) -> None:
    async def scenario() -> bytes:
        async with running(packages) as engine:
            with pytest.raises(DeadlineExceeded, match=r"0\.001 s"):
                await engine.segment(npy(np.zeros((3000, 3000), np.uint16)), SegmentRequest(timeout_s=0.001))
            return (await engine.segment(npy(np.zeros((30, 30), np.uint16)), SegmentRequest())).body.read()

    assert asyncio.run(scenario()).startswith(b"\x89PNG")


def test_a_mirrored_request_gets_the_mean_of_eight_views_to_the_last_bit() -> None:
    """On the shipped net, cut into tiles; told in the receipt."""
    image = np.random.default_rng(0).integers(0, 4000, (200, 180), dtype=np.uint16)
    package = read_package(ZOO / "nuclei")
    alone = session_predictor(
        package, open_session(package, SessionOptions(backend="cpu", precision="fp32", threads=1))
    )
    options = {"precision": "fp32", "threads": 1, "memory_budget_mb": 256}

    async def scenario() -> list[Answer]:
        async with running(package.path, **options) as engine:
            asked = [SegmentRequest(output="probabilities", format="npy", mirror=mirror) for mirror in (False, True)]
            return [await engine.segment(npy(image), each) for each in asked]

    plain, mirrored = asyncio.run(scenario())
    for answer, mirror in ((plain, False), (mirrored, True)):
        expected = replace(alone, mirror=mirror).probabilities(image[..., np.newaxis])
        np.testing.assert_array_equal(np.load(io.BytesIO(answer.body.read())), expected)
        assert answer.receipt["tiles"].get("views", 1) == (8 if mirror else 1)


def test_packages_that_cannot_be_read_are_the_reason_for_not_being_ready(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(packages))

    monkeypatch.setattr("service.engine.engine.load_registry", unreadable)

    async def scenario() -> tuple[str, ...]:
        engine = Engine(Settings(models_dir=packages, backend="cpu"), Metrics())
        with pytest.raises(PermissionError):
            await engine.start()
        return engine.readiness().reasons

    (reason,) = asyncio.run(scenario())
    assert "cannot be read" in reason
    assert str(packages) in reason


def test_a_channel_that_does_not_exist_is_refused_from_the_header(packages: Path) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            await engine.segment(npy(np.zeros((9, 9, 3), np.uint8)), SegmentRequest(channel=2))
            with pytest.raises(BadParameter, match="use 0 to 2"):
                await engine.segment(npy(np.zeros((9, 9, 3), np.uint8)), SegmentRequest(channel=3))

    asyncio.run(scenario())


def test_what_has_arrived_before_the_drain_is_finished(packages: Path) -> None:
    async def scenario() -> bytes:
        async with running(packages) as engine:
            with engine.arrival():
                engine.drain()
                assert not engine.readiness().ready
                with pytest.raises(Draining), engine.arrival():
                    pytest.fail("nothing new")
                return (await engine.segment(npy(np.zeros((30, 30), np.uint16)), SegmentRequest())).body.read()

    assert asyncio.run(scenario())


def test_who_comes_while_load_balancers_have_not_noticed_is_still_served(packages: Path) -> None:
    async def scenario() -> bytes:
        async with running(packages) as engine:
            engine.retire()
            assert engine.readiness().reasons == ("the service is draining",)
            with engine.arrival():
                return (await engine.segment(npy(np.zeros((30, 30), np.uint16)), SegmentRequest())).body.read()

    assert asyncio.run(scenario())


def test_a_spool_folder_that_cannot_be_written_is_the_reason_for_not_being_ready(packages: Path) -> None:
    async def reasons() -> tuple[str, ...]:
        async with running(packages, spool_dir=str(packages / "nowhere")) as engine:
            return engine.readiness().reasons

    (reason,) = asyncio.run(reasons())
    assert re.search(r"0 files .* spool folder '.*nowhere', 1 is needed: .*UNET_SPOOL_DIR", reason)


def test_a_required_gpu_that_is_missing_leaves_the_engine_unready(packages: Path) -> None:
    async def scenario() -> tuple[str, ...]:
        async with running(packages, require_gpu=True) as engine:
            with pytest.raises(NotReady):
                engine.model(None)
            return engine.readiness().reasons

    assert "a GPU is required" in asyncio.run(scenario())[0]
