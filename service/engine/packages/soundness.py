"""Whether the nets that were sound when they were loaded still are.

A device can fail for good while the process goes on: after some errors of CUDA every later call fails, until the
process is started anew. Such a replica fails faster than others work, so that a balancer sends it most of what comes.
Or it hangs: a call never comes back, and whoever is sent there waits in vain.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from model.devices import each_device
from model.errors import InferenceFailed, OutOfDeviceMemory
from service.engine.packages.loading import LoadedModel

_LOG = logging.getLogger("unet.engine")
FAILURES = 3
"""Requests in a row that a net fails on before it is examined: one hostile image takes no replica out."""
LOST = 12
"""Examinations in a row that a net fails before the process is given up; one that hangs has as much time."""
LEAST_PATIENCE_S = 60.0
"""A batch that takes less hangs nowhere, however short the time is that requests may take."""


class Soundness:
    """Told how requests end; examines nets that fail, and says which are broken. Lives on one event loop.

    Parameters
    ----------
    executor
        Inference threads.
    longest
        Says for how many seconds the oldest work has been going on, and what it is.
    patience_s
        For how long it may be: as long as any request may take.
    pause_s
        Between two examinations of a net that is broken.

    """

    def __init__(
        self, executor: Executor, longest: Callable[[], tuple[float, str]], patience_s: float, pause_s: float = 5.0
    ) -> None:
        self._executor = executor
        self._longest = longest
        self._patience_s = patience_s
        self._pause_s = pause_s
        self._failures: Counter[LoadedModel] = Counter()
        self._broken: dict[LoadedModel, str] = {}
        self._tries: Counter[LoadedModel] = Counter()
        self._examinations: dict[LoadedModel, asyncio.Task[None]] = {}

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is wrong with each net that is broken, or with all."""
        hanging = self._hanging
        return (*self._broken.values(), *([hanging] if hanging else []))

    @property
    def _hanging(self) -> str | None:
        taken_s, what = self._longest()
        if taken_s <= self._patience_s:
            return None
        return (
            f"{what} has been in work for {taken_s:.0f} s, the limit is {self._patience_s:g} s "
            f"(UNET_DEADLINE_S, at least {LEAST_PATIENCE_S:g}); restart the service if it stays so"
        )

    @property
    def lost(self) -> str | None:
        """What has been wrong for so long that only a new process may help."""
        if self._longest()[0] > self._patience_s + LOST * self._pause_s:
            return self._hanging
        return next((self._broken[model] for model, tries in self._tries.items() if tries >= LOST), None)

    def reason(self, model: LoadedModel) -> str | None:
        """What is wrong with a net; None where it is not known to be broken, or to wait for one that hangs."""
        return self._broken.get(model) or self._hanging

    def passed(self, model: LoadedModel) -> None:
        """Note an answer."""
        self._failures.pop(model, None)

    def failed(self, model: LoadedModel, error: InferenceFailed) -> None:
        """Note a request that the net failed on; for want of memory a smaller one may pass."""
        if isinstance(error, OutOfDeviceMemory):
            return
        self._failures[model] += 1
        if self._failures[model] >= FAILURES and model not in self._examinations:
            self._examinations[model] = asyncio.create_task(self._examine(model))

    def forget(self, gone: Callable[[LoadedModel], bool]) -> None:
        """Let go of nets that are served no longer, whatever was wrong with them."""
        for model in filter(gone, {*self._failures, *self._broken, *self._examinations}):
            if task := self._examinations.get(model):
                task.cancel()
            for noted in (self._failures, self._broken, self._tries, self._examinations):
                noted.pop(model, None)

    async def stop(self) -> None:
        """End all examinations; those under way are waited for by their executor."""
        for task in self._examinations.values():
            task.cancel()
        await asyncio.gather(*self._examinations.values(), return_exceptions=True)

    async def _examine(self, model: LoadedModel) -> None:
        """Run the net until it works."""
        loop, name = asyncio.get_running_loop(), model.package.spec.reference
        while (trouble := await loop.run_in_executor(self._executor, what_ails, model)) is not None:
            if model not in self._broken:
                _LOG.error("the net of %s fails on whatever it is given: %s", name, trouble)
            self._broken[model] = f"the net of {name} fails: {trouble}; restart the service if it stays so"
            self._tries[model] += 1
            await asyncio.sleep(self._pause_s)
        if self._broken.pop(model, None):
            _LOG.warning("the net of %s works again", name)
        for noted in (self._failures, self._tries, self._examinations):
            noted.pop(model, None)


def what_ails(model: LoadedModel) -> str | None:
    """Run a net on one tile of zeros, on each of its devices; return what happens, None where all is well."""
    try:
        tile_bcyx = np.zeros((1, len(model.package.spec.channels), *model.planner.plan((1, 1)).input_yx), np.float32)
        for device in each_device(model.session):
            if not np.isfinite(device.run(tile_bcyx)).all():
                return "it returns NaN or infinity for a tile of zeros"
    except OutOfDeviceMemory:
        return None
    except Exception as error:  # whatever it is, the net cannot be run
        return str(error)
    return None
