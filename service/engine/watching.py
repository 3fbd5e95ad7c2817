"""Looks after the packages while the service runs, beside the event loop."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from service.engine.admission.admission import Admission
from service.engine.ending import end
from service.engine.errors import TooLargeForMemory
from service.engine.memory_fit import MemoryFit
from service.engine.packages.loading import LoadedModel
from service.engine.packages.registry import Registry
from service.engine.packages.rescan import Rescan
from service.engine.resources import give_memory_back

_LOG = logging.getLogger("unet.engine")
_RELEASE_S = 1.0
_RETRY_S = 1.0  # what waits for memory may have changed or gone
_LOOK_S = 0.05  # whether there is memory by now: what is kept for it nobody has


class _Waiting(NamedTuple):
    """A package that waits for memory."""

    since: float
    """By the loop's clock."""
    needed: int
    """Bytes."""


class Watch:
    """Looks at the packages again and again. Lives on one event loop.

    Parameters
    ----------
    rescan
        What does the work.
    every_s
        Seconds between two looks; 0 looks only when it is asked to.
    serve
        Told what is served from now on, on the event loop.
    admission
        Where working memory is reserved.
    memory_fit
        Whether it fits beside what is served.
    awaits
        Told, there too, which packages are loaded, or wait for memory in which to be.

    """

    def __init__(
        self,
        rescan: Rescan,
        every_s: float,
        serve: Callable[[Registry], None],
        admission: Admission,
        memory_fit: MemoryFit,
        *,
        awaits: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._rescan = rescan
        self._every_s = every_s or math.inf
        self._serve = serve
        self._awaits = awaits
        self._admission = admission
        self._memory_fit = memory_fit
        self._registry = rescan.registry
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="unet-packages")
        self._asked = asyncio.Event()
        self._waiting: dict[Path, _Waiting] = {}  # packages for which there was no memory
        self._uses: Counter[LoadedModel] = Counter()
        self._leaving: list[LoadedModel] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._watch(), name="unet-packages")

    def ask(self) -> None:
        """Have it look now, take all for complete that it finds, and try again what was refused."""
        self._asked.set()

    async def stop(self) -> None:
        """End; a package that is being loaded is waited for, unless it takes long."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await end(self._thread)

    def serves(self, model: LoadedModel) -> bool:
        """Whether new requests may get it."""
        return model in self._registry.models

    @contextmanager
    def using(self, model: LoadedModel) -> Iterator[None]:
        """Keep a net for the length of a ``with`` block, whatever becomes of its package."""
        self._uses[model] += 1
        try:
            yield
        finally:
            self._uses[model] -= 1
            if not self._uses[model]:
                del self._uses[model]

    async def _watch(self) -> None:
        while True:
            asked = await self._next()
            try:
                await self._look(asked=asked)
            except Exception:
                # what is served stays as it is, and the next look may find better times
                _LOG.exception("the packages could not be looked at")
                self._awaits(())
                self._admission.expect(0)

    async def _next(self) -> bool:
        """Wait for the time of the next look, or until it is asked for; returns which of them it was."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (min(self._every_s, _RETRY_S) if self._waiting else self._every_s)
        while (left_s := until - loop.time()) > 0:
            # memory is freed by any thread, the garbage collector's too, and these can wake nobody
            pause_s = min(left_s, _LOOK_S if self._waiting else math.inf, _RELEASE_S if self._leaving else math.inf)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if pause_s == math.inf else pause_s):
                    await self._asked.wait()
                break
            self._let_go()
            if self._has_room():
                break
        asked = self._asked.is_set()
        self._asked.clear()
        return asked

    def _has_room(self) -> bool:
        """Whether there is memory by now for a package that waits for it."""
        kept = self._kept_bytes
        return any(
            self._admission.has_room(waiting.needed, kept, goes_first=number == 0)
            for number, waiting in enumerate(self._waiting.values())
        )

    @property
    def _kept_bytes(self) -> int:
        """Memory of nets that jobs in the queue keep: as many as there is memory for, beside what requests take."""
        return sum(net.working_bytes for net in self._leaving if net in self._uses)

    async def _look(self, *, asked: bool) -> None:
        loop, former = asyncio.get_running_loop(), self._registry
        due = await loop.run_in_executor(self._thread, lambda: self._rescan.look(asked=asked))
        self._publish()
        before, self._waiting = self._waiting, {}
        self._admission.expect(0)
        now = loop.time()
        in_turn = sorted(due, key=lambda package: before[package.path].since if package.path in before else now)
        left = [package.name for package in in_turn]
        for package in in_turn:
            self._awaits(tuple(left))
            needed, kept = package.working_bytes, self._kept_bytes
            try:
                release = self._admission.reserve(needed, kept)
            except TooLargeForMemory as error:
                await loop.run_in_executor(self._thread, self._rescan.refuse, package.path, str(error))
                left.remove(package.name)
                continue
            if release is None:
                if package.path not in before:
                    _LOG.info("%s waits for memory in which to be loaded", package.path.name)
                since = before[package.path].since if package.path in before else loop.time()
                if not self._waiting:
                    self._admission.expect(needed, kept, loop.time() - since)
                self._waiting[package.path] = _Waiting(since, needed)
                continue
            opened = partial(_call_soon, loop, release)
            try:
                await loop.run_in_executor(self._thread, self._rescan.load, package.path, opened)
            finally:
                release()
            self._publish()
            left.remove(package.name)
        self._awaits(tuple(left))
        await loop.run_in_executor(self._thread, self._rescan.drop, tuple(self._waiting))
        self._publish()
        if self._registry is not former:
            nets = sum(model.net_bytes for model in self._registry.models)
            await loop.run_in_executor(self._thread, self._memory_fit.look, nets)

    def _publish(self) -> None:
        former, self._registry = self._registry, self._rescan.registry
        if self._registry is not former:
            self._leaving += [model for model in former.models if model not in self._registry.models]
            self._serve(self._registry)

    def _let_go(self) -> None:
        """Close the nets that left a while ago and nobody uses any more, in the thread: the loop has no time for it."""
        idle = [model for model in self._leaving if model not in self._uses]
        self._leaving = [model for model in self._leaving if model in self._uses]
        if idle:
            self._thread.submit(_close, idle)


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Have a loop call a function, from another thread, unless it has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function)


def _close(idle: list[LoadedModel]) -> None:
    idle.clear()
    give_memory_back()
