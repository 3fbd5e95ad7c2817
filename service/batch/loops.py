"""What is left on an event loop, of which nobody asks for the results any more."""

from __future__ import annotations

import asyncio


async def end_tasks() -> None:
    """End all other tasks on this loop, whatever they are at."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
