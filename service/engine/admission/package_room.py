"""Memory in which packages are loaded while the service runs, and requests that wait for it in the meantime."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from service.engine.admission.precedence import Wish

_LOOK_S = 0.05
_PATIENCE_S = 10.0  # of a request: loading takes less, and who has waited for longer had better ask again


class PackageRoom:
    """What one package holds while it is opened, or waits for. Lives on one event loop."""

    def __init__(self) -> None:
        self.wishes: list[Wish] = []
        """What it waits for; of one at most."""
        self.held = 0
        """Bytes that it holds."""
        self._waiting: dict[object, int] = {}  # bytes that requests need, in their order

    @property
    def awaited(self) -> int:
        """Bytes that requests need which wait."""
        return sum(self._waiting.values())

    def expect(self, wish: Wish | None) -> None:
        """Note what it waits for; None for nothing."""
        self.wishes = [wish] if wish else []

    def hold(self, memory_bytes: int, let_go: Callable[[], None]) -> Callable[[], None]:
        """Note that it holds bytes until the returned function is called, once or more often, which lets go of them."""
        self.held = memory_bytes

        def release() -> None:
            self.held = 0
            let_go()

        return release

    async def passed(self, memory_bytes: int, blocks: Callable[[int], bool], most_s: float) -> None:
        """Wait with a request for 10 s at most, and no longer than it may.

        Parameters
        ----------
        memory_bytes
            What the request needs.
        blocks
            Whether it must wait, if those that came before it get what they wait for, in bytes. Memory is freed by any
            thread, the garbage collector's too, and these can wake nobody: so it is asked again and again.
        most_s
            Seconds; below 0 is 0.

        """
        loop, this = asyncio.get_running_loop(), object()
        until, before = loop.time() + min(most_s, _PATIENCE_S), [*self._waiting]
        self._waiting[this] = memory_bytes
        try:
            while blocks(sum(self._waiting.get(other, 0) for other in before)):
                if loop.time() + _LOOK_S > until:
                    return
                await asyncio.sleep(_LOOK_S)
        finally:
            del self._waiting[this]
