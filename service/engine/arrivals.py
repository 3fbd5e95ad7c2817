"""Requests that have arrived and are not answered yet, so that the service ends after the last of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Arrivals:
    """Counts requests. Lives on one event loop."""

    def __init__(self) -> None:
        self.count = 0
        """How many there are now."""
        self._over = asyncio.Event()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one more for the length of a ``with`` block."""
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            if not self.count:
                self._over.set()

    async def over(self) -> None:
        """Wait until there is none."""
        while self.count:
            self._over.clear()
            await self._over.wait()
