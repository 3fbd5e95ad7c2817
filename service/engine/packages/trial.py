"""Speeds that would refuse a request, or foretell a long one, are measured anew where nothing has told lately.

What a start on a busy machine has measured, or the last batches before others went, is corrected by work; and who is
refused brings none. What a start on an idle machine has measured, or the last batches before others came, would promise
too much.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

from model.cost import measure
from service.engine.admission.ticket import Throughput
from service.engine.errors import EngineError
from service.engine.packages.loading import LoadedModel, pixels_per_second

_LOG = logging.getLogger("unet.engine")
FRESH_S = 10.0
"""A speed that was measured less long ago is believed: so often at most a net is tried."""
_PATIENCE_S = 5.0  # for which a request waits for a trial; what takes longer helps the next one
_WORTH_TILES = 16  # a trial is two of them
_UNLIMITED = Throughput(math.inf)


class Trials:
    """Runs trials in the inference threads, one of each net at a time. Lives on one event loop.

    Parameters
    ----------
    executor
        The threads.

    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._running: dict[Throughput, asyncio.Future[float]] = {}

    async def before_refusal(
        self, speed: Throughput, check: Callable[[Throughput], None], trial: Callable[[], float], timeout_s: float
    ) -> None:
        """Return at once, unless ``check`` refuses for nothing but a speed that is not fresh; else after a trial.

        It tells of no slower speed than is known, as others may be in work. Who is cancelled, or has waited for long
        enough, leaves the trial to others: it goes on.

        Parameters
        ----------
        speed
            Of the net.
        check
            Raises an :class:`~service.engine.errors.EngineError` where the request is refused at a speed.
        trial
            Measures pixels per second, in a thread.
        timeout_s
            What the request may still take.

        """
        if speed.age_s >= FRESH_S and _refuses(check, speed) and not _refuses(check, _UNLIMITED):
            await self._try(speed, trial, timeout_s, alone=False)

    async def before_promise(self, speed: Throughput, tiles: int, trial: Callable[[], float], timeout_s: float) -> None:
        """Return at once, unless so many tiles are foretold by a speed that is not fresh; else after a trial.

        For a net that is idle. Few tiles are over soon, and a trial would take about as long.
        """
        if speed.age_s >= FRESH_S and tiles >= _WORTH_TILES:
            await self._try(speed, trial, timeout_s, alone=True)

    async def _try(self, speed: Throughput, trial: Callable[[], float], timeout_s: float, *, alone: bool) -> None:
        if speed not in self._running:
            begun = asyncio.get_running_loop().run_in_executor(self._executor, trial)
            begun.add_done_callback(partial(self._ended, speed, alone=alone))
            self._running[speed] = begun
        await asyncio.wait([self._running[speed]], timeout=min(_PATIENCE_S, timeout_s / 2))

    def _ended(self, speed: Throughput, trial: asyncio.Future[float], *, alone: bool) -> None:
        del self._running[speed]
        if trial.cancelled():
            return
        if error := trial.exception():
            _LOG.warning("a net could not be tried: %s", error)
        before = speed.pixels_per_second
        speed.tried(0.0 if error else trial.result(), alone=alone)
        if speed.pixels_per_second != before:
            _LOG.info("a trial corrects %.3g Mpx/s to %.3g", before / 1e6, speed.pixels_per_second / 1e6)


def tried_speed(model: LoadedModel, input_yx: tuple[int, int]) -> float:
    """Speed of a net on tiles of noise of one shape, as :class:`~service.engine.admission.ticket.Throughput` has it.

    Raises
    ------
    InferenceFailed

    """
    (tile,) = measure(model.session.run, len(model.package.spec.channels), [input_yx], 0.0)
    return pixels_per_second(model.session, model.tile_work(input_yx), tile.seconds)


def _refuses(check: Callable[[Throughput], None], speed: Throughput) -> bool:
    try:
        check(speed)
    except EngineError:
        return True
    return False
