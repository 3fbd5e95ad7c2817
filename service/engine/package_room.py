"""Memory in which packages are loaded while the service runs, and requests that wait for it in the meantime."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from service.engine.precedence import Wish

_PATIENCE_S = 10.0  # of a request: loading takes less, and who has waited for longer had better ask again


class PackageRoom:
    """What one package holds while it is opened, or waits for. Lives on one event loop."""

    def __init__(self) -> None:
        self.wishes: list[Wish] = []
        """What it waits for; of one at most."""
        self.held = 0
        """Bytes that it holds."""
        self._changed = asyncio.Event()

    def expect(self, wish: Wish | None) -> None:
        """Note what it waits for; None for nothing."""
        self.wishes = [wish] if wish else []
        self._tell()

    def hold(self, memory_bytes: int, let_go: Callable[[], None]) -> Callable[[], None]:
        """Note that it holds bytes until the returned function is called, once or more often, which lets go of them."""
        self.held = memory_bytes

        def release() -> None:
            self.held = 0
            let_go()
            self._tell()

        return release

    async def passed(self, blocks: Callable[[], bool]) -> None:
        """Wait for 10 s at most while ``blocks``, which is asked whenever anything of the package changes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                while blocks():
                    await self._changed.wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
