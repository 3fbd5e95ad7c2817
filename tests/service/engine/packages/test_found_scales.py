"""What follows a search for a scale counts before it is known, by the scales that were found lately."""

from __future__ import annotations

import asyncio
import io
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from service.engine.admission.admission import Admission
from service.engine.admission.ticket import Throughput
from service.engine.errors import Overloaded
from service.engine.packages.found_scales import FoundScales
from service.engine.request import SegmentRequest
from service.engine.stages.forecast import imagined
from service.engine.stages.progress import Progress
from tests.engines import running
from tests.images import npy
from tests.packages import write_tiny_package
from tests.service.engine.stages.test_scale_flow import AUTO, IMAGE, eventually, settled_at

MB = 1_000_000


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    write_tiny_package(tmp_path / "packages")
    return tmp_path / "packages"


def test_the_median_of_the_last_eight_is_likely_and_the_images_own_before_them() -> None:
    scales = FoundScales()
    work = scales.work(100)
    assert (scales.likely, work()) == (1, 100)
    for scale in (0.5, 0.5, 4.0):
        scales.add(scale)
    assert (scales.likely, work()) == (0.5, 25)
    for _ in range(8):
        scales.add(2.0)
    assert (scales.likely, work()) == (2, 400)
    asked = scales.request(AUTO, (100, 100), 200 * 200)
    assert (asked.scale, asked.auto_scale) == (2, False)
    assert scales.request(AUTO, (100, 100), 200 * 200 - 1) == AUTO, "the search may find one that is taken"


def test_others_wait_for_what_follows_a_search() -> None:
    admission, speed, scales = Admission(100 * MB, 100, turns=2), Throughput(MB), FoundScales()
    with admission.admit(speed, 2 * MB, MB, 10, background=True, later=scales.work(40 * MB)) as job:
        newcomer_s = partial(admission.seconds_until_done, speed, 50 * MB, background=True)
        assert newcomer_s() == 50 + 2 + 40
        scales.add(0.5)
        assert newcomer_s() == 50 + 2 + 10
        admission.order.begin(job)
        assert admission.order._begun(None) == 2 + 10
        scales.add(0.25)
        scales.add(0.25)
        assert newcomer_s() == 50 + 2 + 10, "what is charged for its turn stays until more is known"
        job.done(2 * MB)
        asyncio.run(admission.go_on(job, 7 * MB, MB, 60, patient=True))
        assert admission.backlog_seconds == 7
        assert admission.order._begun(None) == 2 + 7
    assert admission.backlog_pixels == 0


def test_what_follows_a_search_counts_among_what_may_wait() -> None:
    admission, speed, scales = Admission(100 * MB, 60), Throughput(MB), FoundScales()
    with admission.admit(speed, 2 * MB, MB, 60, later=scales.work(50 * MB)):
        with pytest.raises(Overloaded, match="52 s of work wait and this request adds 20 s, the limit is 60 s"):
            admission.check(speed, 20 * MB, MB, 100)
        with pytest.raises(Overloaded, match="52 s of work wait and this request adds 52 s, the limit is 60 s"):
            admission.check(speed, 2 * MB, MB, 60, later=scales.work(50 * MB))
        scales.add(0.5)
        admission.check(speed, 20 * MB, MB, 100)
        admission.check(speed, 2 * MB, MB, 60, later=scales.work(50 * MB))


def test_no_deadline_is_refused_for_what_is_likely_to_follow() -> None:
    admission, speed, scales = Admission(100 * MB, 60), Throughput(MB), FoundScales()
    admission.check(speed, 2 * MB, MB, 3, later=scales.work(50 * MB))
    with admission.admit(speed, MB // 2, MB, 60):
        admission.check(speed, 2 * MB, MB, 3, later=scales.work(50 * MB))


def test_who_waits_for_a_turn_before_the_search_is_told_how_long() -> None:
    admission, speed, scales, progress = Admission(100 * MB, 60), Throughput(MB), FoundScales(), Progress()
    with admission.admit(speed, 2 * MB, MB, 60, background=True, later=scales.work(40 * MB)) as job:
        progress.accept(imagined((1000, 1000), 1, 1), job, admission, 3.0, preparing=True)
        assert progress.seconds_left == 2 + 40 + 3
        admission.order.begin(job)
        assert progress.seconds_left is None, "it is being searched"


def test_a_plan_takes_the_scale_that_was_found_for_the_last_image(packages: Path) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            own = await engine.forecast(IMAGE.shape, 1, AUTO)
            assert own.scale == 1
            at_scale = await settled_at(engine, IMAGE)
            assert at_scale.scale is not None
            assert at_scale.scale < 1
            alone = await engine.forecast(IMAGE.shape, 1, at_scale)
            auto = await engine.forecast(IMAGE.shape, 1, AUTO)
            assert auto.scale == alone.scale == at_scale.scale
            assert auto.search_s is not None
            assert auto.compute_s == pytest.approx(auto.search_s + alone.compute_s)
            assert auto.memory_bytes == own.memory_bytes, "the least that any scale takes"

    asyncio.run(scenario())


def test_a_job_that_waits_to_be_searched_counts_as_the_image_that_follows(packages: Path) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            (model,) = engine.models
            asked: SegmentRequest = replace(AUTO, background=True)
            forecast = await engine.forecast(IMAGE.shape, 1, asked)
            turns, progress = engine._working().pipeline.turns, Progress()
            turns._free = 0
            job = asyncio.create_task(engine.segment(io.BytesIO(npy(IMAGE)), asked, progress))
            await eventually(progress.accepted.is_set)
            pixels_per_second = model.throughput.pixels_per_second
            assert engine.backlog_seconds == pytest.approx(forecast.compute_s)
            model.found_scales.add(0.5)
            search_s, work_s = forecast.search_s or 0.0, model.work(forecast.plan) / pixels_per_second
            assert engine.backlog_seconds == pytest.approx(search_s + work_s / 4)
            job.cancel()
            with suppress(asyncio.CancelledError):
                await job
            assert engine.backlog_seconds == 0

    asyncio.run(scenario())
