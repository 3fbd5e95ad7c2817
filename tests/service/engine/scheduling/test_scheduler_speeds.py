"""Turns of nets of different speed: of others no more is waited for than a plan would say."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.admission.admission import Admission
from service.engine.admission.ticket import Throughput
from service.engine.request import SegmentRequest
from service.engine.scheduling.scheduler import Scheduler
from service.engine.scheduling.tile_job import Job
from tests.engines import running
from tests.packages import write_tiny_package
from tests.service.engine.scheduling.test_scheduler import job, scheduler_with


@dataclass(frozen=True)
class Work:
    """Tiles of one request, and the seconds that its net is said to take for each."""

    tiles: int
    tile_seconds: float
    stride: int = 10

    @property
    def tile_pixels(self) -> int:
        return (self.stride + 16) ** 2

    @property
    def pixels_per_second(self) -> float:
        return self.tile_pixels / self.tile_seconds


def served(others: Sequence[Work], new: Work, tile: int) -> list[int]:
    """Whose tiles are run, one at a time: the new one, who is the last, comes while one of the others' is in work."""
    order: list[int] = []

    async def scenario() -> None:
        loop, begun = asyncio.get_running_loop(), []

        async def come(place: int, work: Work) -> None:
            values, speed = [float(place)] * work.tiles, work.pixels_per_second
            one = job(net, values, key=f"{place}", stride=work.stride, pixels_per_second=speed)
            begun.append(asyncio.create_task(scheduler.run(one)))
            await asyncio.sleep(0)  # it is in the queue

        def net(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            if len(order) == tile:
                asyncio.run_coroutine_threadsafe(come(len(others), new), loop).result()
            order.append(int(tiles[0, 0, 8, 8]))
            return tiles[:, :, 8:-8, 8:-8]

        async with scheduler_with(batch_tiles=1) as scheduler:
            for place, work in enumerate(others):
                await come(place, work)
            while not all(task.done() for task in begun):
                await asyncio.gather(*begun)

    asyncio.run(scenario())
    return order


def promised_s(others: Sequence[Work], new: Work) -> float:
    """What a plan would say."""
    admission = Admission(1, math.inf)
    with ExitStack() as stack:
        for work in others:
            speed = Throughput(work.pixels_per_second)
            stack.enter_context(admission.admit(speed, work.tiles * work.tile_pixels, 0, math.inf))
        return admission.seconds_until_done(Throughput(new.pixels_per_second), new.tiles * new.tile_pixels)


def taken_and_promised_s(others: Sequence[Work], new: Work, tile: int) -> tuple[float, float]:
    """Seconds from the end of the tile in work until the new one is done, and what was promised when it came."""
    order = served(others, new, tile)
    done = Counter(order[:tile])
    left = [Work(work.tiles - done[place], work.tile_seconds, work.stride) for place, work in enumerate(others)]
    end = max(at for at, place in enumerate(order) if place == len(others))
    works = [*others, new]
    return sum(works[place].tile_seconds for place in order[tile + 1 : end + 1]), promised_s(left, new)


@pytest.mark.parametrize(
    ("others", "new", "most_s"),
    [([Work(50, 8.0)] * 2, Work(8, 1.0), 24), ([Work(50, 1.0)] * 2, Work(1, 8.0), 24)],
    ids=["fast beside slow", "slow beside fast"],
)
def test_of_others_no_more_seconds_are_waited_for_than_are_asked_for(
    others: list[Work], new: Work, most_s: float
) -> None:
    taken, promised = taken_and_promised_s(others, new, 5)
    assert promised == most_s
    assert taken <= promised


def test_turns_are_shared_by_seconds_not_by_pixels() -> None:
    """Requests of equal pixels get equal seconds while both wait, whatever their nets make of them."""
    works = [Work(20, 8.0), Work(180, 1.0)]
    order = served(works, Work(1, 1.0), 0)[:90]
    slow_s, fast_s = (works[place].tile_seconds * order.count(place) for place in (0, 1))
    assert 0.8 < slow_s / fast_s < 1.25


WORK = st.builds(Work, st.integers(1, 30), st.sampled_from([0.1, 0.3, 1.0, 2.5, 8.0]), st.sampled_from([10, 20]))


@given(st.lists(WORK, min_size=1, max_size=5), WORK, st.data())
def test_the_time_promised_is_kept_but_for_two_tiles(others: list[Work], new: Work, data: st.DataObject) -> None:
    """A tile is no smaller than it is, and may have been due when the new one came."""
    tile = data.draw(st.integers(0, sum(work.tiles for work in others) - 1))
    taken, promised = taken_and_promised_s(others, new, tile)
    assert taken <= promised + 2 * max(work.tile_seconds for work in others) + 1e-9


def test_turns_of_a_package_cost_what_is_measured_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_package(tmp_path / "packages")
    run, before, after = Scheduler.run, [], []

    async def watched(self: Scheduler, job: Job[Any]) -> None:
        before.append(job.tile_work / job.tile_seconds())
        await run(self, job)
        after.append(job.tile_work / job.tile_seconds())

    async def scenario() -> None:
        monkeypatch.setattr(Scheduler, "run", watched)
        image = BytesIO()
        np.save(image, np.zeros((64, 64), dtype=np.uint8))
        async with running(tmp_path / "packages") as engine:
            known = engine.pixels_per_second
            await engine.segment(image, SegmentRequest(output="mask", format="npy"))
            assert before == pytest.approx([known])
            assert after == pytest.approx([engine.pixels_per_second])
            assert before != after, "its batch has been measured"

    asyncio.run(scenario())
