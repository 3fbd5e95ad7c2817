"""One owner of all waiting tiles: batches across requests, turns by seconds of the net (worst-case fair queueing).

Every request plane is a :class:`.Job`. The owner task alone touches the queue of jobs. It builds batches of equal tile
shape, from several jobs where that fills them, and hands them to inference threads. Its clock counts the seconds of the
net that each job would have had by now if all were served at once, in equal shares; a tile takes its pixels over the
measured speed of its net, so that jobs of one net share it by pixels. Of the tiles that would have been begun by then,
that one is next which would be done first (WF2Q, Bennett and Zhang 1996): no job is done later than by equal shares,
but for one tile. So a thumbnail waits, beside the batch in work, for as many seconds of each slide as it takes itself,
and for one tile at most beyond that; thumbnails that were served just before it, ahead of their shares, count as slides
do until their shares are through.

A batch that fails is re-run tile by tile, once; only the culprit's job fails, and the owner goes on. A batch for which
there is no memory is halved until it passes, and later batches of its kind are no larger: what is done is kept, and a
job fails only where there is no memory for one of its tiles. A job whose caller has gone is dropped before the next.

What a net takes is timed in the inference thread: a batch that waits there for something else counts as no slower.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Hashable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.cost import Clock
from model.errors import InferenceFailed, OutOfDeviceMemory
from model.normalization import explained
from model.planner import batch_room
from service.engine.ending import LAST_S
from service.engine.scheduling.between import BetweenBatches, Turn
from service.engine.scheduling.tile_job import Entry, Job
from service.engine.scheduling.virtual_time import VirtualTime
from service.engine.tracebacks import clear_locals

_LOG = logging.getLogger("unet.engine")


class Scheduler:
    """See the module's docstring.

    Parameters
    ----------
    executor
        Inference threads; at least ``lanes``.
    lanes
        Batches in work at a time.
    batch_tiles
        Most tiles of one batch, within what its net may take; batches are of 1, 2, 4, 8 ... tiles at most.
    observe
        Told the number of tiles of each batch.
    between
        Calls that go between batches, with one lane; None where there are none.
    clock
        Seconds, asked in inference threads.

    """

    def __init__(
        self,
        executor: Executor,
        *,
        lanes: int,
        batch_tiles: int,
        observe: Callable[[float], None],
        between: BetweenBatches | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._executor = executor
        self._lanes = lanes
        self._batch_tiles = batch_tiles
        self._observe = observe
        self._between = between
        self._seconds = clock
        self._passing: dict[Hashable, int] = {}  # most tiles of a batch, by key, where memory was too small for more
        self._queue: list[Job[Any]] = []  # in order of arrival
        self._time = VirtualTime()
        self._changed = asyncio.Event()
        self._running: dict[asyncio.Task[None], float] = {}  # and when each was begun
        self._due: list[float] = []  # when each batch in work should be done
        self._owner: asyncio.Task[None] | None = None

    def forget(self, gone: Callable[[Hashable], bool]) -> None:
        """Go on with other nets; ``gone`` tells keys of jobs that will not come."""
        self._passing = {key: most for key, most in self._passing.items() if not gone(key)}

    def start(self) -> None:
        """Start the owner task."""
        if self._between:
            loop = asyncio.get_running_loop()
            self._between.begin(lambda: loop.call_soon_threadsafe(self._changed.set))
        self._owner = asyncio.create_task(self._own(), name="unet-scheduler")

    @property
    def alive(self) -> bool:
        """Whether the owner task runs."""
        return self._owner is not None and not self._owner.done()

    @property
    def longest_s(self) -> float:
        """Seconds for which the oldest batch in work has been there; 0 where there is none."""
        return asyncio.get_running_loop().time() - min(self._running.values()) if self._running else 0.0

    @property
    def busy_s(self) -> float:
        """Seconds until who comes now can be begun, at the measured speeds: batches in work are not interrupted."""
        if len(self._due) < self._lanes:
            return 0.0
        return max(0.0, min(self._due) - asyncio.get_running_loop().time())

    async def stop(self) -> None:
        """End the owner task after the batches in work, unless one hangs; jobs still waiting are cancelled."""
        if self._between:
            self._between.end()
        if self._owner is not None:
            self._owner.cancel()
            await asyncio.wait((self._owner, *self._running), timeout=LAST_S)
        for work in (*self._running, *(job.done for job in self._queue)):
            work.cancel()
        self._queue.clear()

    async def run(self, job: Job[Any]) -> None:
        """Run all tiles of a job; cancelling this call drops those that still wait.

        Raises
        ------
        ModelError
            What the culprit tile raised.

        """
        job.begins_at = self._time.now
        self._queue.append(job)
        self._changed.set()
        # awaited without a shield: cancelling the caller cancels the future, which is how a job is known to be dropped
        await job.done

    async def _own(self) -> None:
        while True:
            rest_s = self._between.rest_s(batches_wait=False) if self._between and not self._running else None
            with suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._changed.wait()
            self._changed.clear()
            while len(self._running) < self._lanes and (work := self._next()):
                task = asyncio.create_task(work)
                self._running[task] = asyncio.get_running_loop().time()
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task)
        self._changed.set()

    def _next(self) -> Coroutine[Any, Any, None] | None:
        """What is done next, in a free lane; None where nothing waits, or a net that is loaded has to wait."""
        self._time.leave(job for job in self._queue if not job.waiting)
        self._queue = [job for job in self._queue if job.waiting]
        if self._between and (turn := self._between.next(batches_wait=bool(self._queue))):
            return self._let_in(turn)
        batch = self._next_batch()
        return self._process(batch) if batch else None

    def _next_batch(self) -> list[Entry]:
        """Tile of the job whose turn it is, filled up with others of the same key; empty where nothing waits."""
        if not self._queue:
            return []
        batch = [self._take(self._queue)]
        leader = batch[0][0]
        room = batch_room(leader.tile_pixels, self._batch_tiles, leader.batch_pixels)
        room = min(room, self._passing.get(leader.key, room))
        # places that would stay empty go to whoever can use them; it is charged for, and evens out later
        while len(batch) < room and (alike := [job for job in self._queue if job.key == leader.key and job.waiting]):
            batch.append(self._take(alike))
        return batch

    def _take(self, jobs: Sequence[Job[Any]]) -> Entry:
        """Take the tile whose turn it is among those of some jobs, all of which wait."""
        behind = sum(job.background for job in self._queue)  # together they get one share
        self._time.reach(min(job.begins_at for job in self._queue))
        begun = [job for job in jobs if job.begins_at <= self._time.now]
        job = min(begun or jobs, key=lambda job: job.ends_at(behind))
        seconds, tile = job.tile_seconds(), job.take(behind)
        self._time.spend(seconds, self._queue, behind)
        return job, tile

    async def _let_in(self, turn: Turn) -> None:
        call, waiting = turn
        try:
            thread = self._executor.submit(call)
        except RuntimeError:  # the executor has been shut down under us
            waiting.cancel()
            return
        waiting.set_result(thread)
        await asyncio.gather(asyncio.wrap_future(thread), return_exceptions=True)  # who waits is told of them

    async def _process(self, batch: list[Entry]) -> None:
        due = asyncio.get_running_loop().time() + sum(job.tile_seconds() for job, _ in batch)
        self._due.append(due)
        try:
            thread = self._executor.submit(run_batch, batch, self._seconds)
            for job, tiles in Counter(job for job, _ in batch).items():
                job.runs(thread, tiles * job.tile_work)
            done = await asyncio.wrap_future(thread)
        except RuntimeError as error:  # the executor has been shut down under us
            gone: Exception | None = InferenceFailed(f"the inference thread is gone: {error}")
            done = BatchDone([gone] * len(batch), passing=len(batch), work=0, seconds=0.0)
        finally:
            self._due.remove(due)
        for (job, _), outcome in zip(batch, done.outcomes, strict=True):
            if outcome is not None:
                clear_locals(outcome)  # it went through the thread's frames, which hold the whole batch
            job.settle(outcome)
        if done.passing < len(batch):
            self._passing[batch[0][0].key] = min(done.passing, self._passing.get(batch[0][0].key, done.passing))
        # lanes work side by side, on one device or several: of the time that passed each batch is charged its share
        self._observe(len(batch))
        batch[0][0].progress(done.work, done.seconds / max(1, len(self._running)))
        # an error that went through the thread may keep its call, and that would keep the error and all jobs
        batch.clear()
        done.outcomes.clear()


class BatchDone(NamedTuple):
    """A batch, once it is over."""

    outcomes: list[Exception | None]
    """What befell each tile."""
    passing: int
    """The most tiles that memory sufficed for: all of them, where it was not the trouble."""
    work: int
    """Of the tiles that the net was run for, and that came to a good end."""
    seconds: float
    """That all of it took, but for what was only repeated."""


def run_batch(batch: Sequence[Entry], clock: Clock) -> BatchDone:
    """Read, run and write the tiles of one batch, in an inference thread; a blank tile is run once for its job.

    Parameters
    ----------
    batch
        At least one tile, all of one key.
    clock
        Seconds.

    """
    started = clock()
    outcomes: list[Exception | None] = [None] * len(batch)
    inputs: dict[int, NDArray[np.float32]] = {}
    for place, (job, tile) in enumerate(batch):
        began = clock()
        try:
            read = job.read(tile)
            done = job.blank.like(read)
            if done is None or not job.repeat(done, tile):
                inputs[place] = read
            else:
                started += clock() - began
        except Exception as error:
            outcomes[place] = error
    passing = len(batch)
    groups = deque([list(inputs)] if inputs else [])
    while groups:
        group = groups.popleft()
        try:
            _run_group(batch, group, inputs)
        except OutOfDeviceMemory as error:
            if len(group) == 1:
                outcomes[group[0]] = error
                continue
            half = (len(group) + 1) // 2
            passing = min(passing, half)
            why = str(error)  # a log may keep what it is given
            _LOG.warning("no memory for a batch of %d tiles, %d at a time from now on: %s", len(group), half, why)
            groups.extendleft((group[half:], group[:half]))
        except Exception as error:
            if len(group) == 1:
                outcomes[group[0]] = explained(error, inputs[group[0]])
                continue
            _LOG.warning("a batch of %d tiles failed and is run tile by tile: %s", len(group), str(error))
            groups.extendleft([place] for place in reversed(group))
    work = sum(batch[place][0].tile_work for place in inputs if outcomes[place] is None)
    return BatchDone(outcomes, passing, work, clock() - started)


def _run_group(batch: Sequence[Entry], places: Sequence[int], inputs: dict[int, NDArray[np.float32]]) -> None:
    tiles = [inputs[place] for place in places]
    # one tile is a batch as it is: a copy would take a quarter of the time that reading it does
    together = np.ascontiguousarray(tiles[0])[np.newaxis] if len(tiles) == 1 else np.stack(tiles)
    outputs = batch[places[0]][0].run(together)
    for place, output in zip(places, outputs, strict=True):
        job, tile = batch[place]
        job.write(tile, output)
        job.blank.note(tile, inputs[place])
