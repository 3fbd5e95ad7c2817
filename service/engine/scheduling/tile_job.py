"""The tiles of one request's plane, as the scheduler sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.stitching import Run
from service.engine.scheduling.blank import BlankTile

Progress: TypeAlias = Callable[[int, float], None]
"""Called after each batch with the work that the net has done and the seconds that it took."""

_Part = TypeVar("_Part")


@dataclass(eq=False, slots=True)
class Job(Generic[_Part]):
    """The tiles of one plane of one request, or the views of each of them.

    Parameters
    ----------
    key
        Tiles of jobs with equal keys (same session, same tile shape) may share a batch.
    run
        The net.
    read, write
        Normalised input (c, y, x) of a tile, and what to do with its output (c', y', x'); both are called in an
        inference thread, for one tile at a time of one job.
    repeat
        Does for a tile what was done for another with the same input, without the net; False where that is not enough.
    tiles
        What is to be done.
    count
        How many tiles that are.
    tile_pixels
        Input pixels of a tile.
    tile_work
        What a tile takes of the net, see :meth:`service.engine.packages.loading.LoadedModel.tile_work`.
    tile_seconds
        Seconds of the net that a tile takes at the speed that is measured by now: what a turn costs.
    batch_pixels
        Most input pixels in one call of this net.
    progress
        Told of each batch that this job leads.
    runs
        Told of each call in an inference thread that is for some of its tiles, as it begins, and of their work.
    background
        Whether it shares a job's turns with all others of which the same is true.

    """

    key: Hashable
    run: Run
    read: Callable[[_Part], NDArray[np.float32]]
    write: Callable[[_Part, NDArray[np.float32]], None]
    repeat: Callable[[_Part, _Part], bool]
    tiles: Iterator[_Part]
    count: int
    tile_pixels: int
    tile_work: int
    tile_seconds: Callable[[], float]
    batch_pixels: int
    progress: Progress
    runs: Callable[[Future[Any], int], None]
    background: bool = False
    begins_at: float = field(init=False, default=0.0)
    """When its next tile would be begun by the scheduler's clock, if all jobs were served at once; seconds."""
    blank: BlankTile[_Part] = field(init=False, default_factory=BlankTile)
    done: asyncio.Future[None] = field(init=False)
    _waiting: int = field(init=False)
    _unfinished: int = field(init=False)

    def __post_init__(self) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._waiting = self._unfinished = self.count

    @property
    def waiting(self) -> int:
        """Tiles that no batch has taken yet; 0 once the job is over."""
        return 0 if self.done.done() else self._waiting

    def ends_at(self, behind: int) -> float:
        """When the next tile would be done likewise; ``behind`` jobs in the background have one share together."""
        return self._after(1, behind)

    def through_at(self, behind: int) -> float:
        """When all that wait would be done likewise; where none does, when the last one was."""
        return self._after(self.waiting, behind)

    def _after(self, tiles: int, behind: int) -> float:
        return self.begins_at + tiles * self.tile_seconds() * (behind if self.background else 1)

    def take(self, behind: int) -> _Part:
        """Take the next tile and pay for it."""
        self._waiting -= 1
        self.begins_at = self.ends_at(behind)
        return next(self.tiles)

    def settle(self, error: Exception | None) -> None:
        """Note the end of one tile; the last one, or the first failure, ends the job."""
        self._unfinished -= 1
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        elif self._unfinished == 0:
            self.done.set_result(None)


Entry: TypeAlias = tuple[Job[Any], Any]
