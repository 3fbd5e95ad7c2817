"""What is made piece by piece in threads, while the event loop serves others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator


async def in_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Make each piece in a thread when it is asked for; an empty one is the last."""
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece
