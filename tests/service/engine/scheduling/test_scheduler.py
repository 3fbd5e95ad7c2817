"""The scheduler: batches across requests, fair turns, poison, cancellation, shutdown. Real tiles, a net of numpy."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import ExtremePixels, InferenceFailed, NonFiniteOutput
from model.stitching import Stitcher
from model.tiling import Tile, plan_with_stride, valid_unet_geometry
from service.engine.scheduling.between import BetweenBatches
from service.engine.scheduling.scheduler import Scheduler, run_batch
from service.engine.scheduling.tile_job import Job

GEOMETRY = valid_unet_geometry(1)
POISON = 666.0


@dataclass
class Recorder:
    """A net that returns its input's crop, notes every batch, fails on poison, and waits where a test says so."""

    batches: list[list[float]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        self.gate.wait(10)
        self.batches.append([float(tile[0, 8, 8]) for tile in tiles])
        if (tiles == POISON).any():
            raise InferenceFailed("poison")
        return tiles[:, :, 8:-8, 8:-8]


@asynccontextmanager
async def scheduler_with(
    *,
    lanes: int = 1,
    batch_tiles: int = 4,
    between: BetweenBatches | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> AsyncIterator[Scheduler]:
    with ThreadPoolExecutor(lanes) as executor:
        scheduler = Scheduler(
            executor,
            lanes=lanes,
            batch_tiles=batch_tiles,
            observe=lambda _tiles: None,
            between=between,
            clock=clock,
        )
        scheduler.start()
        try:
            yield scheduler
        finally:
            await scheduler.stop()


def job(
    net: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    values: list[float],
    *,
    written: list[float] | None = None,
    key: str = "net",
    stride: int = 10,
    batch_pixels: int = 10**6,
    pixels_per_second: float = 1.0,
) -> Job[Tile]:
    """One tile for each value, all of its pixels that value."""
    plan = plan_with_stride((stride, stride * len(values)), GEOMETRY, (stride, stride))
    target = [] if written is None else written
    tile_pixels = math.prod(plan.input_yx)

    def read(tile: Tile) -> NDArray[np.float32]:
        value = values[tile.write.x.start // stride]
        return np.full((1, *plan.input_yx), value, dtype=np.float32)

    return Job(
        key=(key, plan.input_yx),
        run=net,
        read=read,
        write=lambda _tile, output: target.append(float(output[0, 0, 0])),
        repeat=lambda _done, _tile: False,
        tiles=iter(plan),
        count=len(plan),
        tile_pixels=tile_pixels,
        tile_work=tile_pixels,
        tile_seconds=lambda: tile_pixels / pixels_per_second,
        batch_pixels=batch_pixels,
        progress=lambda _pixels, _seconds: None,
        runs=lambda _thread, _pixels: None,
    )


def open_net() -> Recorder:
    net = Recorder()
    net.gate.set()
    return net


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is changed by another thread
            await asyncio.sleep(0.001)


def test_every_tile_is_run_and_written_once() -> None:
    async def scenario() -> list[float]:
        written: list[float] = []
        async with scheduler_with() as scheduler:
            await scheduler.run(job(open_net(), [float(n) for n in range(23)], written=written))
        return written

    assert sorted(asyncio.run(scenario())) == [float(n) for n in range(23)]


def test_tiles_of_several_requests_share_a_batch() -> None:
    async def scenario() -> list[list[float]]:
        net = Recorder()
        async with scheduler_with() as scheduler:
            jobs = [asyncio.create_task(scheduler.run(job(net, [float(n)]))) for n in range(5)]
            await asyncio.sleep(0.01)
            net.gate.set()
            await asyncio.gather(*jobs)
        return net.batches

    batches = asyncio.run(scenario())
    assert [len(batch) for batch in batches] == [4, 1]


def test_tiles_of_different_nets_or_shapes_do_not_share_a_batch() -> None:
    async def scenario() -> list[list[float]]:
        net = Recorder()
        async with scheduler_with() as scheduler:
            jobs = [
                asyncio.create_task(scheduler.run(work))
                for work in (job(net, [0.0]), job(net, [1.0], key="a"), job(net, [2.0], stride=8), job(net, [3.0]))
            ]
            await asyncio.sleep(0.01)
            net.gate.set()
            await asyncio.gather(*jobs)
        return net.batches

    assert all(len(set(batch) & {1.0, 2.0}) == 0 or len(batch) == 1 for batch in asyncio.run(scenario()))


def test_a_batch_keeps_within_the_pixels_of_its_own_net() -> None:
    async def scenario(pixels: int) -> list[int]:
        small, other = open_net(), open_net()
        async with scheduler_with(batch_tiles=100) as scheduler:
            await asyncio.gather(
                scheduler.run(job(small, [1.0] * 10, batch_pixels=2 * pixels)),
                scheduler.run(job(other, [2.0] * 8, key="other", batch_pixels=8 * pixels)),
            )
        return [*map(len, small.batches), *map(len, other.batches)]

    assert asyncio.run(scenario(26 * 26)) == [2, 2, 2, 2, 2, 8]


def test_a_thumbnail_passes_a_slide() -> None:
    async def scenario() -> tuple[int, int]:
        net = Recorder()
        async with scheduler_with(batch_tiles=1) as scheduler:
            slide = asyncio.create_task(scheduler.run(job(net, [1.0] * 200)))
            await asyncio.sleep(0.01)
            thumbnail = asyncio.create_task(scheduler.run(job(net, [2.0], key="other")))
            await asyncio.sleep(0.01)
            net.gate.set()
            await thumbnail
            done_before = len(net.batches)
            await slide
        return done_before, len(net.batches)

    before, total = asyncio.run(scenario())
    assert total == 201
    assert before <= 5


def test_jobs_of_nets_that_left_are_ended_where_no_net_is_left() -> None:
    """Else no share of the turns of those in the background would ever pay for a tile."""

    async def scenario() -> list[float]:
        written: list[float] = []
        async with scheduler_with() as scheduler:
            jobs = [replace(job(open_net(), [1.0] * 3, written=written), background=True) for _ in range(2)]
            running = [asyncio.create_task(scheduler.run(each)) for each in jobs]
            scheduler.forget(lambda _: True)
            await asyncio.gather(*running)
        return written

    assert asyncio.run(scenario()) == [1.0] * 6


def test_any_number_in_the_background_get_the_turns_of_one() -> None:
    async def scenario() -> list[float]:
        net = Recorder()
        async with scheduler_with(batch_tiles=1) as scheduler:
            behind = [replace(job(net, [1.0] * 100, key=f"{n}"), background=True) for n in range(5)]
            waited_for = job(net, [2.0] * 100, key="other")
            running = [asyncio.create_task(scheduler.run(work)) for work in (*behind, waited_for)]
            await asyncio.sleep(0.01)
            net.gate.set()
            await asyncio.gather(*running)
        return [batch[0] for batch in net.batches]

    order = asyncio.run(scenario())
    assert len(order) == 600
    assert 0.4 < order[:180].count(2.0) / 180 < 0.6


def test_a_thumbnail_waits_for_as_much_of_each_slide_as_it_asks_for_itself() -> None:
    """Not for a tile of each: theirs are larger."""

    async def scenario() -> list[float]:
        net = Recorder()
        async with scheduler_with(batch_tiles=1) as scheduler:
            slides = [asyncio.create_task(scheduler.run(job(net, [1.0] * 20, stride=60))) for _ in range(20)]
            await asyncio.sleep(0.01)
            thumbnail = asyncio.create_task(scheduler.run(job(net, [2.0], stride=10)))
            await asyncio.sleep(0.01)
            net.gate.set()
            await asyncio.gather(*slides, thumbnail)
        return [batch[0] for batch in net.batches]

    slide_tile, thumbnail_tile = 76 * 76, 26 * 26
    served_before = asyncio.run(scenario()).index(2.0)
    assert served_before <= 20 * thumbnail_tile / slide_tile + 2


def test_no_thumbnail_of_many_waits_for_a_tile_of_each_slide() -> None:
    """Nor one in ten: slides that began together would be due for a tile together, too."""

    async def scenario() -> list[float]:
        net = open_net()
        async with scheduler_with(batch_tiles=1) as scheduler:
            slides = [asyncio.create_task(scheduler.run(job(net, [1.0] * 10, stride=60))) for _ in range(12)]
            await asyncio.sleep(0)
            for _ in range(60):
                await scheduler.run(job(net, [2.0], stride=10))
            await asyncio.gather(*slides)
        return [batch[0] for batch in net.batches]

    order = asyncio.run(scenario())
    thumbnails = [0, *(place for place, value in enumerate(order) if value == 2.0)]
    assert len(thumbnails) == 61
    slide_tile, thumbnail_tile = 76 * 76, 26 * 26
    most = 12 * thumbnail_tile / slide_tile + 3  # and those in work when it comes, and when it goes
    assert max(np.diff(thumbnails)) - 1 <= most


def test_a_slide_alone_has_run_up_no_credit_when_a_thumbnail_comes() -> None:
    async def scenario() -> list[list[float]]:
        net = open_net()
        async with scheduler_with(batch_tiles=4) as scheduler:
            slide = asyncio.create_task(scheduler.run(job(net, [1.0] * 400, stride=30)))
            await until(lambda: len(net.batches) > 20)
            begun = len(net.batches)
            await scheduler.run(job(net, [2.0]))
            slide.cancel()
        return net.batches[begun:]

    assert [2.0] in asyncio.run(scenario())[:4]


def test_turns_are_shared_by_pixels_not_by_tiles() -> None:
    """A request of large tiles and one of small tiles get the same number of pixels while both wait."""

    async def scenario() -> list[float]:
        net = Recorder()
        async with scheduler_with(batch_tiles=1) as scheduler:
            large = asyncio.create_task(scheduler.run(job(net, [1.0] * 60, stride=30)))
            small = asyncio.create_task(scheduler.run(job(net, [2.0] * 180, stride=10)))
            await asyncio.sleep(0.01)
            net.gate.set()
            await asyncio.gather(large, small)
        return [batch[0] for batch in net.batches]

    order = asyncio.run(scenario())[:120]
    large_pixels = order.count(1.0) * 46 * 46
    small_pixels = order.count(2.0) * 26 * 26
    assert 0.8 < large_pixels / small_pixels < 1.25


def test_a_poisoned_tile_fails_alone() -> None:
    async def scenario() -> tuple[list[object], bool]:
        net = Recorder()
        async with scheduler_with() as scheduler:
            values = [[1.0], [2.0], [POISON], [3.0]]
            jobs = [asyncio.create_task(scheduler.run(job(net, value))) for value in values]
            await asyncio.sleep(0.01)
            net.gate.set()
            outcomes: list[object] = list(await asyncio.gather(*jobs, return_exceptions=True))
            await scheduler.run(job(net, [4.0]))
            return outcomes, scheduler.alive

    outcomes, alive = asyncio.run(scenario())
    assert alive
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), InferenceFailed, type(None)]


@pytest.mark.parametrize(
    ("value", "blamed"), [(3.0, NonFiniteOutput), (1e4, NonFiniteOutput), (1e5, ExtremePixels), (np.inf, ExtremePixels)]
)
def test_a_net_that_returns_nan_for_extreme_pixels_is_not_to_blame(value: float, blamed: type[Exception]) -> None:
    def write(_tile: Tile, output_cyx: NDArray[np.float32]) -> None:
        Stitcher((np.empty((1, 10, 10), dtype=np.float32), lambda output: output)).write(whole, output_cyx)

    async def befallen() -> Exception | None:
        nan = replace(job(lambda tiles: tiles * np.nan, [value]), write=write)
        return run_batch([(nan, whole)], time.perf_counter)[0][0]

    whole = next(iter(plan_with_stride((10, 10), GEOMETRY, (10, 10))))
    error = asyncio.run(befallen())
    assert type(error) is blamed
    assert "NaN or infinity" in str(error)


def test_only_tiles_that_were_run_count_as_progress() -> None:
    """Else a net that fails at once would look fast, and let in more than can be done."""
    done: list[int] = []

    async def scenario() -> None:
        async with scheduler_with() as scheduler:
            sick = job(open_net(), [1.0, POISON, 2.0])
            with pytest.raises(InferenceFailed):
                await scheduler.run(replace(sick, tile_work=7, progress=lambda work, _seconds: done.append(work)))

    asyncio.run(scenario())
    assert done == [2 * 7], "tiles count by their work"


@pytest.mark.parametrize("broken", ["read", "write"])
def test_a_request_whose_own_part_fails_fails_alone(broken: str) -> None:
    def fail(*_arguments: object) -> NDArray[np.float32]:
        raise ValueError(broken)

    async def scenario() -> list[object]:
        net = Recorder()
        async with scheduler_with() as scheduler:
            good, bad = job(net, [1.0]), job(net, [2.0])
            setattr(bad, broken, fail)
            jobs = [asyncio.create_task(scheduler.run(work)) for work in (job(net, [0.0]), good, bad)]
            await asyncio.sleep(0.01)
            net.gate.set()
            return list(await asyncio.gather(*jobs, return_exceptions=True))

    assert [type(outcome) for outcome in asyncio.run(scenario())] == [type(None), type(None), ValueError]


def test_tiles_of_a_caller_who_has_gone_are_dropped() -> None:
    async def scenario() -> int:
        net = Recorder()
        async with scheduler_with(batch_tiles=1) as scheduler:
            gone = asyncio.create_task(scheduler.run(job(net, [1.0] * 500)))
            await asyncio.sleep(0.01)
            gone.cancel()
            net.gate.set()
            await scheduler.run(job(net, [2.0]))
            await until(gone.done)
            return sum(batch.count(1.0) for batch in net.batches)

    assert asyncio.run(scenario()) <= 1


def test_stopping_cancels_what_waits_and_ends() -> None:
    async def scenario() -> asyncio.Task[None]:
        net = Recorder()
        async with scheduler_with(batch_tiles=1) as scheduler:
            waiting = asyncio.create_task(scheduler.run(job(net, [1.0] * 5)))
            await asyncio.sleep(0.01)
            net.gate.set()
            await scheduler.stop()
            assert not scheduler.alive
            await asyncio.gather(waiting, return_exceptions=True)
        return waiting

    waiting = asyncio.run(scenario())
    assert waiting.cancelled()


def test_who_comes_now_is_told_what_is_left_of_the_batch_in_work_where_no_lane_is_free() -> None:
    async def scenario(lanes: int) -> tuple[float, float, list[int]]:
        net, told = Recorder(), list[int]()
        async with scheduler_with(lanes=lanes, batch_tiles=2) as scheduler:
            # said to take 1000 s for a tile
            work = replace(
                job(net, [1.0] * 2, pixels_per_second=26 * 26 / 1000),
                tile_work=7,
                runs=lambda _, work: told.append(work),
            )
            running = asyncio.create_task(scheduler.run(work))
            await until(lambda: bool(told))
            during = scheduler.busy_s
            net.gate.set()
            await running
            return during, scheduler.busy_s, told

    during, after, told = asyncio.run(scenario(1))
    assert 1900 < during <= 2000
    assert (after, told) == (0, [2 * 7])
    assert asyncio.run(scenario(2))[0] == 0


def test_two_lanes_work_side_by_side() -> None:
    async def scenario() -> int:
        barrier = threading.Barrier(2, timeout=10)

        def meet(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            return tiles[:, :, 8:-8, 8:-8] + barrier.wait() * 0

        async with scheduler_with(lanes=2, batch_tiles=1) as scheduler:
            await asyncio.gather(scheduler.run(job(meet, [1.0] * 4)), scheduler.run(job(meet, [2.0] * 4)))
        return barrier.n_waiting

    assert asyncio.run(scenario()) == 0
