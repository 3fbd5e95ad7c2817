"""Threads that wait for the disk of jobs, and calls in them from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from service.engine.ending import end

_T = TypeVar("_T")


class Threads:
    """Not those of others: a network's file system may make these wait for long."""

    def __init__(self) -> None:
        self.looks = ThreadPoolExecutor(4, thread_name_prefix="unet-jobs")
        self.results = ThreadPoolExecutor(2, thread_name_prefix="unet-jobs-results")
        self.maker = ThreadPoolExecutor(1, thread_name_prefix="unet-jobs-maker")
        self.beats = ThreadPoolExecutor(1, thread_name_prefix="unet-jobs-beats")
        """For signs of life: behind nothing that may take long."""

    async def end(self) -> None:
        """End them; one that hangs is left alone."""
        await asyncio.gather(*map(end, (self.looks, self.results, self.maker, self.beats)))


async def call_in(threads: ThreadPoolExecutor, function: Callable[..., _T], *arguments: Any) -> _T:  # noqa: ANN401 - passed on
    """Return what a function returns in one of these threads; once begun it goes on, though the caller is cancelled."""
    return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)
