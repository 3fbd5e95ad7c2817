"""Ends threads; one that never ends, because a net or a disk hangs, holds nobody up for longer than a moment."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from concurrent.futures import Executor
from functools import partial

_LOG = logging.getLogger("unet.engine")
OWN = "unet-"
"""How the names of all threads begin that the service starts."""
LAST_S = 2.0
"""What still computes gets so many more seconds: at the end nobody waits for it."""
_POLL_S = 0.01


async def end(executor: Executor) -> None:
    """Shut an executor down, and wait for its threads, but not for ever; what has not begun is cancelled."""
    # it asks this loop for memory, perhaps, while it ends: the loop goes on
    ending = threading.Thread(target=partial(executor.shutdown, wait=True, cancel_futures=True), daemon=True)
    ending.start()
    loop = asyncio.get_running_loop()
    until = loop.time() + LAST_S
    while ending.is_alive() and loop.time() < until:  # noqa: ASYNC110 - a thread tells no loop
        await asyncio.sleep(_POLL_S)


def leave_what_hangs() -> None:
    """End the process at once, with status 0, where a thread is left that its orderly end would wait for.

    Threads that libraries keep for later are idle by now, and end by themselves.
    """
    left = [each.name for each in threading.enumerate() if not each.daemon and each.name.startswith(OWN)]
    if left:
        _LOG.warning("left behind, still computing: %s", ", ".join(left))
        logging.shutdown()
        os._exit(0)
