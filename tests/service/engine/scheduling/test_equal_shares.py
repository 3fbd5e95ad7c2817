"""Turns keep to equal shares, whoever comes when: no request ends later than by them, but for one tile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.service.engine.scheduling.test_scheduler import job, scheduler_with
from tests.service.engine.scheduling.test_scheduler_speeds import WORK, Work


def served(first: Sequence[Work], coming: Callable[[list[int]], Sequence[Work]], background: int = 0) -> list[int]:
    """Whose tiles are run, one at a time; requests are numbered as they come.

    Parameters
    ----------
    first
        Requests that are there from the start; so many, of the first, in the ``background``.
    coming
        Told whose tiles were run, the last of them in work now; returns who comes meanwhile.

    """
    order: list[int] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        begun: list[asyncio.Task[None]] = []

        async def come(*works: Work) -> None:
            for work in works:
                begin(work)
            await asyncio.sleep(0)  # they are in the queue

        def begin(work: Work) -> None:
            place = len(begun)
            one = job(
                net,
                [float(place)] * work.tiles,
                key=f"{place}",
                stride=work.stride,
                pixels_per_second=work.pixels_per_second,
            )
            begun.append(asyncio.create_task(scheduler.run(replace(one, background=place < background))))

        def net(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            order.append(int(tiles[0, 0, 8, 8]))
            asyncio.run_coroutine_threadsafe(come(*coming(order)), loop).result()
            return tiles[:, :, 8:-8, 8:-8]

        async with scheduler_with(batch_tiles=1) as scheduler:
            await come(*first)
            while not all(task.done() for task in begun):
                await asyncio.gather(*begun)

    asyncio.run(scenario())
    return order


@pytest.mark.parametrize(
    ("slides", "jobs", "thumbnail_s", "most"),
    [(1, 0, 0.25, 0), (1, 0, 0.5, 0), (3, 0, 0.5, 1), (20, 0, 0.25, 6), (20, 0, 0.5, 11), (2, 3, 0.25, 0)],
)
def test_no_thumbnail_of_a_client_that_sends_one_after_the_other_waits_longer_than_it_would_alone(
    slides: int, jobs: int, thumbnail_s: float, most: int
) -> None:
    """For tiles that take no longer than it does for each slide, and beside many for one more; jobs count as one."""
    first, came_at = [Work(30, 1.0)] * (jobs + slides), list[int]()

    def coming(order: list[int]) -> list[Work]:
        # the next is sent once the answer is there: a tile of somebody else is in work by then
        through = len(first) + len(came_at) - 1 in order[:-1]
        if len(came_at) == 60 or (came_at and not through) or len(order) < 3:
            return []
        came_at.append(len(order))
        return [Work(1, thumbnail_s)]

    order = served(first, coming, jobs)
    assert len(came_at) >= 15
    waited_for = [order.index(len(first) + number) - at for number, at in enumerate(came_at)]
    assert max(waited_for) <= most


def ends_of_equal_shares(works: Sequence[Work], came_s: Sequence[float]) -> list[float]:
    """Seconds of the net after which each would be done, if all that are there were served at once."""
    now, ends = 0.0, [0.0] * len(works)
    left: dict[int, float] = {}
    waiting = list(enumerate(came_s))
    while waiting or left:
        if not left:
            now = max(now, waiting[0][1])
        while waiting and waiting[0][1] <= now:
            number, _ = waiting.pop(0)
            left[number] = works[number].tiles * works[number].tile_seconds
        step = min(left.values()) * len(left)
        if waiting:
            step = min(step, waiting[0][1] - now)
        now += step
        left = {number: seconds - step / len(left) for number, seconds in left.items()}
        for number in [number for number, seconds in left.items() if seconds < 1e-9]:
            ends[number] = now
            del left[number]
    return ends


ANY = st.tuples(st.lists(WORK, min_size=1, max_size=4), st.lists(st.tuples(st.integers(0, 3), WORK), max_size=12))


@st.composite
def thumbnails_beside_slides(draw: st.DrawFn) -> tuple[list[Work], list[tuple[int, Work]]]:
    """Many, which come at any time while the slides last."""
    slides = [Work(16, draw(st.sampled_from([1.25, 2.0, 2.5])))] * draw(st.integers(2, 6))
    thumbnail = Work(1, draw(st.sampled_from([0.25, 0.5, 1.0])))
    return slides, [(gap, thumbnail) for gap in draw(st.lists(st.integers(0, 4), min_size=20, max_size=30))]


@given(ANY | thumbnails_beside_slides())
def test_no_request_ends_later_than_by_equal_shares_but_for_one_tile(
    arrivals: tuple[list[Work], list[tuple[int, Work]]],
) -> None:
    """The bound of worst-case fair queueing: first some come at once, then each so many tiles after the one before."""
    first, later = arrivals
    works, came_at = [*first], [0] * len(first)
    todo = later[::-1]

    def coming(order: list[int]) -> list[Work]:
        now = []
        while todo and came_at[-1] + todo[-1][0] <= len(order):
            now.append(todo.pop()[1])
            came_at.append(len(order))
        works.extend(now)
        return now

    order = served(first, coming)
    spent_s = np.cumsum([0.0, *(works[number].tile_seconds for number in order)])
    due_s = ends_of_equal_shares(works, [spent_s[at] for at in came_at])
    done_s = [spent_s[max(at for at, number in enumerate(order, 1) if number == one)] for one in range(len(works))]
    largest_s = max(work.tile_seconds for work in works)
    assert max(np.subtract(done_s, due_s)) <= largest_s + 1e-6
