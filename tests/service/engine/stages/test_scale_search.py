"""``scale=auto`` where no pixel sizes are known: objects become as large as the package knows them."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.package import write_package
from service.engine.admission.ticket import Throughput
from service.engine.engine import Engine
from service.engine.images.scaling import NormalisedPixels, scaled_image
from service.engine.packages.found_scales import FoundScales
from service.engine.request import SegmentRequest
from service.engine.stages.progress import Progress
from service.settings import Settings
from service.telemetry import Metrics
from tests.app_client import AppClient, ready_app
from tests.images import disc, npy
from tests.packages import write_tiny_package
from tests.problems import assert_problem
from training.measures.objects import match_objects

IMAGE = np.tile(disc(48, 48, 9), (2, 3))
KNOWN_PX = 10.0  # median of what the package was trained on
LEARNT = "those that tiny@1.0.0 was trained on 8 to 20 px (median 10 px)"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    package = write_tiny_package(folder)
    write_package(
        package.path,
        package.spec.model_copy(update={"object_diameter_px": (8.0, KNOWN_PX, 20.0)}),
        package.own_files(),
    )
    return folder


@pytest.fixture(scope="module")
def client(packages: Path) -> Iterator[AppClient]:
    with ready_app(Settings(models_dir=str(packages), backend="cpu", threads=1)) as running:
        yield running


def answered(client: AppClient, image: NDArray[Any], **query: object) -> tuple[bytes, dict[str, Any]]:
    answer = client.segment(npy(image), params={"format": "npy", **query})
    assert answer.status_code == 200, answer.text
    return answer.content, json.loads(answer.headers["x-unet-receipt"])


def scale_note(receipt: dict[str, Any]) -> str:
    (note,) = [note for note in receipt["input"]["notes"] if note.startswith("scale=auto took ")]
    return str(note)


@pytest.mark.parametrize("radius", [3, 20, 70])
def test_objects_become_as_large_as_the_package_knows_them(client: AppClient, radius: int) -> None:
    one = disc(3 * radius, 3 * radius, radius)
    image, across = np.tile(one, (4, 5)), 2 * np.sqrt((one > 110).sum() / np.pi)
    found, receipt = answered(client, image, output="labels", scale="auto")
    scale = receipt["output"]["scale"]
    assert scale == pytest.approx(KNOWN_PX / across, rel=0.15)
    assert np.load(io.BytesIO(found)).max() == 20
    again, same = answered(client, image, output="labels", scale="auto")
    assert (again, same["output"]) == (found, receipt["output"])
    assert answered(client, image, output="labels", scale=scale)[0] == found
    note = scale_note(receipt)
    told = float(re.findall(r"the objects in the middle are ([\d.]+) px across", note)[0])
    assert told == pytest.approx(across, rel=0.15)
    assert note.endswith(LEARNT)


@pytest.mark.parametrize("radius", [5, 7, 9])
def test_objects_as_large_as_the_package_knows_them_stay_as_they_are(client: AppClient, radius: int) -> None:
    one = disc(40, 40, radius)
    image, across = np.tile(one, (4, 5)), 2 * np.sqrt((one > 110).sum() / np.pi)
    found, receipt = answered(client, image, output="labels", scale="auto")
    assert receipt["output"]["scale"] == 1
    assert found == answered(client, image, output="labels")[0]
    assert scale_note(receipt) == (
        f"scale=auto took 1: the objects in the middle are {across:.3g} px across (median), {LEARNT}, "
        "so that the image stays as it is"
    )


def test_all_planes_have_the_scale_of_the_middle_one(client: AppClient) -> None:
    large, small = np.tile(disc(120, 120, 40), (2, 3)), np.tile(disc(24, 24, 8), (10, 15))
    for first, middle in ((large, small), (small, large)):
        alone = answered(client, middle, scale="auto")[1]["output"]["scale"]
        stack = np.stack([first, middle, first])
        found, receipt = answered(client, stack, scale="auto")
        assert receipt["output"]["scale"] == alone
        assert answered(client, stack, scale=alone)[0] == found
        assert ": the objects in the middle plane are " in scale_note(receipt)


def test_a_stack_whose_middle_plane_tells_nothing_stays_as_it_is(client: AppClient) -> None:
    """The others are not looked at, and the note says which one was."""
    large = np.tile(disc(120, 120, 40), (2, 3))
    _, receipt = answered(client, np.stack([large, 0 * large, large]), scale="auto")
    assert receipt["output"]["scale"] == 1
    assert scale_note(receipt) == (
        f"scale=auto took 1: at no scale were 5 objects found in the middle plane as large as {LEARNT}"
    )


@pytest.mark.parametrize("image", [disc(96, 96, 40), np.full((256, 256), 7, dtype=np.uint8)], ids=["one", "none"])
def test_without_objects_the_image_stays_as_it_is(client: AppClient, image: NDArray[Any]) -> None:
    found, receipt = answered(client, image, scale="auto")
    assert receipt["output"]["scale"] == 1
    assert answered(client, image)[0] == found
    assert scale_note(receipt).startswith("scale=auto took 1: at no scale were 5 objects found in the middle as large")


@pytest.mark.parametrize(
    "image",
    [
        np.random.default_rng(1).poisson(100, (256, 256)).astype(np.uint16),
        np.random.default_rng(1).normal(30, 3, (700, 900)).clip(0, 255).astype(np.uint8),
    ],
    ids=["poisson", "gaussian"],
)
def test_specks_of_noise_are_no_objects_however_far_they_are_enlarged(tmp_path: Path, image: NDArray[Any]) -> None:
    """At 4 they are as large as what such a package knows, and each is of a pixel or two in the image."""
    package = write_tiny_package(tmp_path)
    assert package.spec.object_diameter_px == (4.0, 10.0, 20.0)
    with ready_app(Settings(models_dir=str(tmp_path), backend="cpu", threads=1)) as running:
        enlarged = np.load(io.BytesIO(answered(running, image, output="labels", scale=4)[0]))
        assert 4 < 4 * 2 * np.sqrt(np.median(np.bincount(enlarged.ravel())[1:]) / np.pi) < 20
        _, receipt = answered(running, image, scale="auto")
        assert receipt["output"]["scale"] == 1
        assert scale_note(receipt).startswith("scale=auto took 1: at no scale were 5 objects found")


def test_objects_that_nobody_can_see_are_not_guessed(client: AppClient) -> None:
    plan = client.get("/plan", params={"size": "5x5", "scale": "auto"})
    answer = client.segment(npy(IMAGE[:5, :5]), params={"scale": "auto"})
    missing = "scale=auto lacks the size of the image's pixels, and the image is too small to look for objects"
    for problem in (plan, answer):
        said = assert_problem(problem, 422, "invalid-parameter")["detail"]
        assert said.startswith(f"{missing}; give pixel_size in micrometres or scale as a number")


@pytest.mark.parametrize("size_yx", [(96, 144), (1024, 1024)])
def test_a_plan_counts_the_tiles_that_the_search_takes(
    client: AppClient, monkeypatch: pytest.MonkeyPatch, size_yx: tuple[int, int]
) -> None:
    monkeypatch.setattr(FoundScales, "likely", 1.0)  # whatever other tests have found

    def planned(**query: object) -> dict[str, Any]:
        plan: dict[str, Any] = client.get("/plan", params={"size": f"{size_yx[0]}x{size_yx[1]}", **query}).json()
        return plan

    through: list[int] = []
    monkeypatch.setattr(Throughput, "add", lambda _, pixels, __: through.append(pixels))
    monkeypatch.setattr(Throughput, "pixels_per_second", 1e5)
    own, auto = planned(), planned(scale="auto")
    # a ramp has one object at most, so that all scales are tried and the image stays as it is
    ramp = np.repeat(np.linspace(0, 255, size_yx[0]).astype(np.uint8)[:, np.newaxis], size_yx[1], axis=1)
    _, receipt = answered(client, ramp, scale="auto")
    assert receipt["output"]["scale"] == auto["scale"] == own["scale"] == 1
    assert auto["compute_seconds"] == pytest.approx(sum(through) / 1e5, abs=0.002)
    assert auto["search_seconds"] == pytest.approx(auto["compute_seconds"] - own["compute_seconds"], abs=0.002)
    assert auto["search_seconds"] > 0
    assert own["search_seconds"] is None
    assert auto["expected_seconds"] >= auto["compute_seconds"]
    assert auto["tiles"] == own["tiles"]
    assert auto["memory_bytes"] >= own["memory_bytes"]
    assert auto["refusal"] is None
    timeout_s = own["compute_seconds"] + auto["search_seconds"] / 2  # an idle service tries what takes twice that
    assert planned(timeout=timeout_s / 2)["refusal"] is None
    late = planned(scale="auto", timeout=timeout_s / 2)["refusal"]
    assert late["type"] == "/problems/deadline-exceeded"


def test_a_plan_whose_pixel_sizes_are_known_searches_nothing(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    known = {"object_diameter_px": (8.0, KNOWN_PX, 20.0), "pixel_size_um": (1.0, 1.0)}
    write_package(package.path, package.spec.model_copy(update=known), package.own_files())
    with ready_app(Settings(models_dir=str(tmp_path), backend="cpu", threads=1)) as running:
        plan = running.get("/plan", params={"size": "96x144", "scale": "auto", "pixel_size": "0.5"}).json()
    assert (plan["scale"], plan["search_seconds"]) == (0.5, None)


def test_a_refusal_at_the_scale_found_tells_it(packages: Path) -> None:
    image = np.tile(disc(12, 12, 3), (12, 12))
    with ready_app(Settings(models_dir=str(packages), backend="cpu", threads=1, max_pixels=image.size)) as running:
        problem = assert_problem(running.segment(npy(image), params={"scale": "auto"}), 422, "invalid-parameter")
    scale = float(re.findall(r"; scale=auto took ([\d.]+), scale= with a number replaces it$", problem["detail"])[0])
    assert scale == pytest.approx(KNOWN_PX / 6, rel=0.15)
    assert problem["detail"].startswith(f"scale {scale:g} makes ")


def test_a_job_looks_for_the_scale_too(client: AppClient) -> None:
    query = {"format": "npy", "output": "labels", "scale": "auto"}
    job = client.segment(npy(IMAGE), params={**query, "respond_async": "true"})
    assert job.status_code == 202
    result = client.get(f"{job.headers['location']}/result", params={"wait": "50"})
    assert result.content == answered(client, IMAGE, **query)[0]
    state = client.get(job.headers["location"]).json()
    assert (state["state"], state["pixels_done"], state["pixels"]) == ("done", IMAGE.size, IMAGE.size)


def test_a_search_that_would_take_too_long_is_refused_before(client: AppClient) -> None:
    answer = client.segment(npy(IMAGE), params={"scale": "auto", "timeout": "0.000001"})
    assert_problem(answer, 504, "deadline-exceeded")


@pytest.mark.parametrize("background", [False, True])
def test_the_search_is_promised_work_that_ends_when_nobody_waits(
    packages: Path, monkeypatch: pytest.MonkeyPatch, *, background: bool
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def late(*arguments: Any) -> NormalisedPixels:
        begun.set()
        go_on.wait(30)
        return scaled_image(*arguments)

    monkeypatch.setattr("service.engine.stages.scale_search.scaled_image", late)
    request = SegmentRequest(model="tiny", auto_scale=True, format="npy", background=background)

    async def scenario() -> None:
        engine = Engine(Settings(models_dir=str(packages), backend="cpu", threads=1), Metrics())
        await engine.start()
        try:
            progress = Progress()
            task = asyncio.create_task(engine.segment(io.BytesIO(npy(IMAGE)), request, progress))
            assert await asyncio.to_thread(begun.wait, 30)
            assert engine._admission.backlog_pixels > 0
            assert (progress.pixels, progress.pixels_done) == (IMAGE.size, 0)
            assert progress.seconds_left is None
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            go_on.set()
            async with asyncio.timeout(30):
                while engine._admission.backlog_pixels:  # noqa: ASYNC110 - the thread ends when it likes
                    await asyncio.sleep(0.01)
        finally:
            go_on.set()
            await engine.stop()

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def shipped() -> Iterator[AppClient]:
    with ready_app(
        Settings(models_dir="zoo", backend="openvino", threads=1, deadline_s=600, max_backlog_s=600)
    ) as running:
        yield running


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stem", "left"),
    [
        ("04acab7636c4cf61", {1, 3}),
        ("fd8065bcb1afdbed", {1}),  # three times their size the net finds pieces, and those are of a size it knows
        ("2cfa61bef6542dd3", {1 / 3, 1}),
    ],
)
def test_nuclei_of_any_size_are_found(shipped: AppClient, data_root: Path, stem: str, left: set[float]) -> None:
    """Held-out images whose nuclei are 13, 24 and 29 px across, at a third and at three times their size.

    Some are left as they are, as the rule is: the objects found there are of a size that the package knows.
    """
    folder = data_root / "nuclei-dsb2018"
    whole, whole_labels = (Image.open(folder / side / f"{stem}.png") for side in ("images", "labels"))
    part = (0, 0, min(400, whole.width), min(400, whole.height))
    image, labels = whole.crop(part), whole_labels.crop(part)
    known_px = 20.5
    query = {"model": "nuclei", "output": "labels"}
    for factor in (1 / 3, 1, 3):
        size_xy = round(image.width * factor), round(image.height * factor)
        shrunk = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
        resampled = np.asarray(image.convert("L").resize(size_xy, shrunk))
        truth = np.asarray(labels.resize(size_xy, Image.Resampling.NEAREST)).astype(np.int32)
        found, receipt = answered(shipped, resampled, scale="auto", **query)
        own = answered(shipped, resampled, **query)[0]
        if factor in left:
            assert receipt["output"]["scale"] == 1
            assert found == own
            continue
        areas = np.bincount(truth.ravel())[1:]
        across = 2 * np.sqrt(np.median(areas[areas > 0]) / np.pi)
        assert 1 / 1.35 < receipt["output"]["scale"] * across / known_px < 1.35
        scored, as_it_is = (
            match_objects(np.load(io.BytesIO(content)), truth, (0.5,))[0].ap for content in (found, own)
        )
        assert scored >= as_it_is - 0.05
        assert scored > 0.65
