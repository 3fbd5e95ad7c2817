"""Calls in threads from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")


async def call_in(threads: ThreadPoolExecutor, function: Callable[..., _T], *arguments: Any) -> _T:  # noqa: ANN401 - passed on
    """Return what a function returns in one of these threads; once begun it goes on, though the caller is cancelled."""
    return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)
