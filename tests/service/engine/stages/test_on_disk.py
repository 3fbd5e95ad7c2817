"""Images beyond the memory budget go through files: the same answers, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import io
import shutil
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from model.errors import ImageMismatch
from model.flooding import MARGINS, WINDOWS
from model.images import ReadLimits, open_image, read_npy, tiff_bands
from model.label_rule import LabelRule
from model.linking import band_bytes
from service.engine.admission.admission import Admission
from service.engine.admission.ticket import Throughput
from service.engine.engine import Engine
from service.engine.errors import Overloaded, SpoolFull, TooLargeForMemory
from service.engine.images.spool import Spool, SpoolShare
from service.engine.request import SegmentRequest
from service.engine.stages import accepted, demand, encoding, linking
from service.engine.stages import needs as needs_module
from service.engine.stages.forecast import Forecast
from service.engine.stages.needs import Needs, needs
from service.formats import OutputKind
from service.settings import Settings
from service.telemetry import Metrics
from tests.images import npy, tiff
from tests.packages import write_tiny_package
from tests.service.engine.images.test_spool import files_in

MB = 1_000_000


def blobs(size: int = 300) -> NDArray[np.uint16]:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((size, size + 20)), 4)
    grey: NDArray[np.uint16] = ((noise - noise.min()) / np.ptp(noise) * 60_000).astype(np.uint16)
    return grey


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    rule = LabelRule(method="watershed", seed_threshold=0.9, fill_holes=True, min_seed_share=0.1, min_area_px=5)
    write_tiny_package(tmp_path / "packages", label_rule=rule)
    return tmp_path / "packages"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send images through files that would fit into memory; those that would not are too large for a test."""
    monkeypatch.setattr(demand, "needs", lambda *_: Needs(MB, 100 * MB))
    monkeypatch.setattr(tiff_bands, "BAND_PX", 10_000)


def assert_empty(spool: Path) -> None:
    """No file is left, once the worker threads have let go of what they did last."""
    deadline = time.monotonic() + 10
    while files_in(spool) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert files_in(spool) == []


async def answer_of(engine: Engine, data: bytes, request: SegmentRequest) -> bytes:
    answer = await engine.segment(io.BytesIO(data), request)
    encoded = answer.body.read()
    answer.body.close()
    return encoded


def answers(packages: Path, spool: Path, data: bytes, *requests: SegmentRequest) -> list[bytes]:
    async def scenario() -> list[bytes]:
        engine = Engine(Settings(models_dir=packages, backend="cpu", threads=1, spool_dir=str(spool)), Metrics())
        await engine.start()
        try:
            return [await answer_of(engine, data, request) for request in requests]
        finally:
            await engine.stop()

    return asyncio.run(scenario())


REQUESTS = [
    *[SegmentRequest(output="mask", format=name) for name in ("png", "tiff", "rle", "geojson", "npy")],
    *[SegmentRequest(output="labels", format=name) for name in ("png", "tiff", "coco", "rois", "csv", "npy")],
    *[SegmentRequest(output="probabilities", format=name) for name in ("tiff", "npy")],
]
OF_STACKS = [SegmentRequest(output="labels", format=name, link=0.2) for name in ("tiff", "coco", "rois", "csv", "npy")]


@pytest.mark.parametrize("planes", [1, 3])
def test_answers_through_files_are_those_through_memory(
    packages: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, planes: int
) -> None:
    image = blobs() if planes == 1 else np.stack([np.roll(blobs(), 3 * plane, 0) for plane in range(planes)])
    data = tiff(image, compression="zlib", tile=(64, 64), photometric="minisblack")

    async def all_of_them(engine: Engine) -> list[bytes]:
        return [await answer_of(engine, data, request) for request in (REQUESTS if planes == 1 else OF_STACKS)]

    async def both_ways() -> tuple[list[bytes], list[bytes]]:
        # one engine: another one might measure other speeds, and cut other tiles
        engine = Engine(Settings(models_dir=packages, backend="cpu", threads=1, spool_dir=str(spool)), Metrics())
        await engine.start()
        in_memory = await all_of_them(engine)
        to_disk(monkeypatch)
        on_disk = await all_of_them(engine)
        await engine.stop()
        return in_memory, on_disk

    in_memory, on_disk = asyncio.run(both_ways())
    assert on_disk == in_memory
    assert_empty(spool)


@pytest.mark.parametrize("format_name", ["npy", "tiff"])
def test_a_disk_that_is_full_when_the_answer_is_written_is_the_spools_trouble(
    packages: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, format_name: str
) -> None:
    to_disk(monkeypatch)
    monkeypatch.setattr(Spool, "file", lambda self: Path("/dev/full").open("r+b"))  # noqa: SIM115 - closed by whom it serves
    monkeypatch.setattr(SpoolShare, "array", lambda self, shape, dtype: np.zeros(shape, dtype))
    asked = SegmentRequest(output="probabilities", format=format_name)
    with pytest.raises(SpoolFull, match=r"the answer is needed in the spool .* No space left .* UNET_SPOOL"):
        answers(packages, spool, tiff(blobs()), asked)


@pytest.mark.parametrize(
    ("module", "step"),
    [(accepted, "read_image"), (accepted, "fit"), (encoding, "write_body"), (linking, "link_planes")],
)
def test_what_threads_do_for_a_caller_who_has_gone_ends_at_the_next_part(
    packages: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str
) -> None:
    """Else a few callers who send large images and hang up could take all threads."""
    to_disk(monkeypatch)
    begun, gone, ended = threading.Event(), threading.Event(), threading.Event()
    ends: list[type[BaseException] | None] = []
    real = getattr(module, step)
    of_stacks = module is linking
    image = np.stack([blobs(), blobs()]) if of_stacks else blobs()
    asked = SegmentRequest(output="labels", format="tiff", link=0.5) if of_stacks else SegmentRequest(format="tiff")

    def late(*arguments: Any) -> Any:
        begun.set()
        gone.wait(20)
        try:
            done = real(*arguments)
        except BaseException as error:
            ends.append(type(error))
            ended.set()
            raise
        ends.append(None)
        ended.set()
        return done

    monkeypatch.setattr(module, step, late)

    async def scenario(*, hang_up: bool) -> None:
        engine = Engine(Settings(models_dir=packages, backend="cpu", threads=1, spool_dir=str(spool)), Metrics())
        await engine.start()
        answer = asyncio.create_task(answer_of(engine, tiff(image, rowsperstrip=16), asked))
        await asyncio.to_thread(begun.wait, 20)
        if hang_up:
            answer.cancel()
            await asyncio.wait([answer])
        gone.set()
        await asyncio.gather(answer, return_exceptions=True)
        await engine.stop()

    asyncio.run(scenario(hang_up=False))
    assert ends == [None]
    for event in (begun, gone, ended):
        event.clear()
    asyncio.run(scenario(hang_up=True))
    assert ended.wait(20)  # the engine's end waits for threads no longer than a moment
    assert ends == [None, CancelledError]
    assert_empty(spool)


@pytest.mark.parametrize("layout", ["contig", "separate", "pages", "CYX", "YXC", "XCY"])
@pytest.mark.parametrize("channel", [None, 0, 2])
def test_the_channel_that_is_wanted_is_taken_part_by_part(
    packages: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, layout: str, channel: int | None
) -> None:
    grey = blobs(100)
    pixels = np.stack([grey] * 3 if channel is None else [grey, grey[::-1], grey[:, ::-1]])
    options: dict[str, Any] = {"photometric": "rgb", "rowsperstrip": 16}
    axes = layout if layout.isupper() else None
    if axes is not None:
        data = npy(np.einsum(f"CYX->{axes}", pixels))
        monkeypatch.setattr(read_npy, "PART_BYTES", 1000)
    elif layout == "contig":
        data = tiff(np.moveaxis(pixels, 0, -1), **options)
    elif layout == "separate":
        data = tiff(pixels, planarconfig="separate", **options)
    else:
        data = tiff(pixels, photometric="minisblack", metadata={"axes": "CYX"}, rowsperstrip=16)
    request = SegmentRequest(format="npy", channel=channel, axes=axes)
    expected = answers(packages, spool, data, request)
    to_disk(monkeypatch)
    assert answers(packages, spool, data, request) == expected


@pytest.mark.parametrize("on_disk", [False, True])
def test_three_channels_that_differ_are_refused(
    packages: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, on_disk: bool
) -> None:
    pixels = np.stack([blobs(100)] * 3, axis=-1)
    pixels[90, 5, 2] += 1
    if on_disk:
        to_disk(monkeypatch)
    with pytest.raises(ImageMismatch, match="3 channels"):
        answers(packages, spool, tiff(pixels, photometric="rgb", rowsperstrip=16), SegmentRequest())
    assert_empty(spool)


def wait_for_file(folder: Path) -> None:
    while not files_in(folder):
        time.sleep(0.001)


def test_a_cancelled_request_leaves_no_file(packages: Path, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to_disk(monkeypatch)
    data = io.BytesIO(tiff(blobs(2000), compression="zlib", tile=(64, 64)))

    async def scenario() -> int:
        engine = Engine(Settings(models_dir=packages, backend="cpu", threads=1, spool_dir=str(spool)), Metrics())
        await engine.start()
        task = asyncio.create_task(engine.segment(data, SegmentRequest(output="labels", format="tiff")))
        await asyncio.to_thread(wait_for_file, spool)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await engine.stop()
        return len(data.getvalue())

    assert asyncio.run(scenario())
    assert_empty(spool)


def test_objects_beyond_the_memory_budget_end_their_request_alone(
    packages: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        engine = Engine(Settings(models_dir=packages, backend="cpu", threads=1, spool_dir=str(spool)), Metrics())
        await engine.start()
        data, wanted = tiff(blobs()), SegmentRequest(output="labels", format="png")
        with monkeypatch.context() as patch:
            patch.setattr(accepted, "BYTES_PER_OBJECT", 1 << 40)
            with pytest.raises(TooLargeForMemory, match="raise UNET_MEMORY_BUDGET_MB"):
                await answer_of(engine, data, wanted)
        assert engine._admission.memory_in_use == 0
        assert await answer_of(engine, data, wanted)
        await engine.stop()

    asyncio.run(scenario())


def test_needs_go_to_disk_only_where_memory_is_too_small(packages: Path) -> None:
    spec = write_tiny_package(packages, name="other").spec
    header = open_image(io.BytesIO(tiff(np.zeros((4000, 5000), np.uint16))), ReadLimits(10**9, 10**9)).header
    request = SegmentRequest()
    roomy = needs(header, spec, [request], MB, Needs(100 * MB, 1000 * MB))
    assert roomy == Needs(4000 * 5000 * (2 + 2), 0)
    tight = needs(header, spec, [request], MB, Needs(roomy.memory_bytes - 1, 1000 * MB))
    assert tight.disk_bytes == roomy.memory_bytes
    larger = needs(header, spec, [SegmentRequest(output="labels")], MB, Needs(MB, 1000 * MB))
    assert larger.disk_bytes > tight.disk_bytes
    assert needs(header, spec, [request], MB, Needs(MB, 0)) == roomy


def test_what_the_spools_disk_could_never_hold_is_refused_for_good(
    packages: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spool, "capacity", 2 * MB)
    monkeypatch.setattr(demand, "needs", lambda *_: Needs(MB, 3 * MB))
    with pytest.raises(TooLargeForMemory, match=r"3 MB in files, .* 2 MB; raise UNET_SPOOL_LIMIT_MB on a disk"):
        answers(packages, spool, tiff(blobs()), SegmentRequest())


def test_the_capacity_of_a_spool_is_that_of_its_file_system(spool: Path) -> None:
    assert Spool(str(spool)).capacity == shutil.disk_usage(spool).total
    assert Spool(str(spool / "nowhere")).capacity > 1 << 60


def test_a_stack_that_has_to_be_read_whole_is_charged_for_that(packages: Path) -> None:
    spec = write_tiny_package(packages, name="other").spec
    file = io.BytesIO()
    np.save(file, np.zeros((50, 100, 200), np.uint16, order="F"))
    reader = open_image(file, ReadLimits(10**9, 10**9))
    assert reader.part_bytes == 50 * 100 * 200 * 2
    most = Needs(100 * MB, 1000 * MB)
    whole, by_rows = (
        needs(reader.header, spec, [SegmentRequest()], part, most) for part in (reader.part_bytes, 40_000)
    )
    assert whole.memory_bytes == by_rows.memory_bytes + 2 * reader.part_bytes


@pytest.mark.parametrize("planes", [1, 3])
@pytest.mark.parametrize("output", ["mask", "labels"])
def test_a_file_that_is_decoded_whole_is_charged_for_its_copies(
    packages: Path, planes: int, output: OutputKind
) -> None:
    data = tiff(np.zeros((planes, 1500, 1500), np.uint16), photometric="minisblack", compression="lzw")
    reader = open_image(io.BytesIO(data), ReadLimits(10**9, 10**9))
    plane, part = 1500**2, reader.part_bytes
    assert part == 2 * plane
    spec, request = write_tiny_package(packages, name="other").spec, SegmentRequest(output=output)
    charged = needs(reader.header, spec, [request], part, Needs(1000 * MB, 0)).memory_bytes
    by_rows = needs(reader.header, spec, [request], 9000, Needs(1000 * MB, 0)).memory_bytes
    of_results = {"mask": 1, "labels": 4}[output] * plane * (planes - 1)
    assert charged == max(by_rows, 3 * part + of_results)


@pytest.mark.parametrize(
    "stored", [{"tile": (512, 512)}, {"tile": (256, 256)}, {"rowsperstrip": 16}, {"rowsperstrip": 512}], ids=str
)
def test_a_plan_counts_at_least_what_the_parts_of_a_usual_file_take(packages: Path, stored: dict[str, Any]) -> None:
    file = io.BytesIO(tiff(np.zeros((4000, 4000), np.uint16), compression="zlib", **stored))
    reader = open_image(file, ReadLimits(10**9, 10**9))
    spec = write_tiny_package(packages, name="other").spec
    request = SegmentRequest(output="probabilities", format="tiff")
    most = Needs(100 * MB, 1000 * MB)
    real = needs(reader.header, spec, [request], reader.part_bytes, most)

    async def planned() -> Forecast:
        engine = Engine(Settings(models_dir=packages, backend="cpu", threads=1, memory_budget_mb=192), Metrics())
        await engine.start()
        try:
            return await engine.forecast((4000, 4000), 1, request)
        finally:
            await engine.stop()

    plan = asyncio.run(planned())
    assert real.on_disk
    assert plan.disk_bytes == real.disk_bytes
    assert real.memory_bytes <= plan.memory_bytes < 1.1 * real.memory_bytes


@pytest.mark.parametrize(("planes", "output"), [(1, "labels"), (2, "labels"), (2, "mask")])
def test_planes_that_are_linked_are_charged_for_the_band_that_is_compared(
    packages: Path, planes: int, output: OutputKind
) -> None:
    spec = write_tiny_package(packages, name="other").spec
    data = tiff(np.zeros((planes, 600, 700), np.uint8), photometric="minisblack")
    header = open_image(io.BytesIO(data), ReadLimits(10**9, 10**9)).header
    plain, linked = (
        needs(header, spec, [SegmentRequest(output=output, link=link)], MB, Needs(100 * MB, 0)).memory_bytes
        for link in (None, 0.5)
    )
    of_labels = 600 * 700 * needs_module._BYTES_PER_BANDED_PX
    assert linked - plain == (band_bytes((600, 700)) - of_labels if planes > 1 and output == "labels" else 0)


def test_a_watershed_takes_smaller_windows_before_it_goes_to_disk(packages: Path) -> None:
    spec = write_tiny_package(packages, name="other", label_rule=LabelRule(method="watershed")).spec
    header = open_image(io.BytesIO(tiff(np.zeros((2048, 2048), np.uint16))), ReadLimits(10**9, 10**9)).header
    request = SegmentRequest(output="labels")
    room = Needs(1000 * MB, 1000 * MB)
    found = []
    while not (room := needs(header, spec, [request], MB, room)).on_disk:
        found.append(room)
        room = Needs(room.memory_bytes - 1, 1000 * MB)
    assert [each.flood_window for each in found] == list(WINDOWS)
    # 2048 px are no longer than the largest window with its margins; the others leave some of it out
    flooded = [min(2048, window + 2 * MARGINS[-1]) ** 2 * 60 for window in WINDOWS]
    assert [each.memory_bytes - found[0].memory_bytes for each in found] == [each - flooded[0] for each in flooded]


def test_a_gigapixel_keeps_within_the_default_budget(packages: Path) -> None:
    """32,768 squared, 16 bits: labels by a watershed in less than 0.8 GB of memory."""
    spec = write_tiny_package(packages, name="other", label_rule=LabelRule(method="watershed")).spec
    data = io.BytesIO(tiff(np.zeros((16, 16), np.uint16), tile=(16, 16)))
    small = open_image(data, ReadLimits(10**9, 10**9)).header
    header = type(small)(**{name: getattr(small, name) for name in small.__slots__} | {"size_yx": (32_768, 32_768)})
    room = needs(header, spec, [SegmentRequest(output="labels", format="tiff")], 17 * MB, Needs(1228 * MB, 32_768 * MB))
    assert room.memory_bytes < 800 * MB
    assert room.disk_bytes < 24_000 * MB


def test_the_disk_is_promised_like_memory() -> None:
    admission = Admission(100 * MB, 10, disk_bytes=50 * MB)
    speed = Throughput(MB)
    with (
        pytest.raises(TooLargeForMemory, match=r"51 MB in files.*50 MB.*UNET_SPOOL_LIMIT_MB"),
        admission.admit(speed, 1, MB, 20, 51 * MB),
    ):
        pytest.fail("more than the spool")
    with admission.admit(speed, 1, MB, 20, 40 * MB):
        assert admission.disk_in_use == 40 * MB
        with pytest.raises(Overloaded) as refusal, admission.admit(speed, 1, MB, 20, 11 * MB):
            pytest.fail("51 MB are more than 50")
        with admission.admit(speed, 1, MB, 20):
            assert admission.in_flight == 2
    assert refusal.value.reason == "disk"
    assert admission.disk_in_use == 0
