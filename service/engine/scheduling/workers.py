"""Threads for what computes beside the net, such as decoding, labelling and encoding: small images pass large ones.

A call has the threads for calls of its size, first come, first served among these; between threads the operating
system shares the CPUs. In one queue a thumbnail would wait until a slide's labels are drawn.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, TypeVar

from service.engine.admission.ticket import Ticket
from service.engine.scheduling.clock import StageClock
from service.engine.tracebacks import clear_locals_of

_T = TypeVar("_T")
SIZES = (1 << 20, 1 << 24, math.inf)
"""Largest call for each group of threads, in values of the image: 1024 x 1024 px of one channel, 4096 x 4096, others.

Calls on the first take less than a tenth of a second, on the second about one.
"""


class Workers:
    """Worker threads by size of the call; those that are never needed are never started.

    Parameters
    ----------
    threads
        For each size.

    """

    def __init__(self, threads: int) -> None:
        # decoding, labelling and encoding release the interpreter lock; inference has threads of its own
        self.executors: tuple[Executor, ...] = tuple(
            ThreadPoolExecutor(threads, thread_name_prefix=f"unet-codec-{number}") for number in range(len(SIZES))
        )
        """To be ended by whoever made this."""

    async def call(
        self,
        size: float,
        function: Callable[..., _T],
        *arguments: Any,  # noqa: ANN401 - passed on
        ticket: Ticket | None = None,
        clock: StageClock | None = None,
    ) -> _T:
        """Call in a worker thread; a call that has begun cannot be stopped and keeps the ticket until it ends.

        Parameters
        ----------
        size
            About how many values it goes through.
        function, arguments
            What to call.
        ticket
            Of the request that it is done for.
        clock
            Likewise: waiting for a thread is no work of the request.

        """
        with clock.queue() if clock else nullcontext(lambda: None) as begun:
            thread = self.executors[bisect_left(SIZES, size)].submit(_called, begun, function, *arguments)
            thread.add_done_callback(clear_locals_of)  # also where nobody waits for it any more
            if ticket is not None:
                ticket.runs(thread)
            try:
                return await asyncio.wrap_future(thread)
            finally:
                # an error that the call ended with holds this frame; if the frame held the call, the arrays of the
                # request would stay until the garbage collector looks for cycles, and so would their files
                if ticket is not None:
                    ticket.still_running()
                del thread


def _called(begun: Callable[[], None], function: Callable[..., _T], *arguments: Any) -> _T:  # noqa: ANN401 - passed on
    begun()
    return function(*arguments)
