"""What a client that goes ends: its work, and answers, which are sent no faster than it takes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service.engine.admission.unsent import MOST_S
from service.protocol import HANG_UP

_PART_BYTES = 1 << 20  # read at a time
_PIECE_BYTES = 128 << 10  # sent at a time; half of it made answers on a loopback half as fast
_PATIENCE_S = MOST_S  # for one piece; measured on a loopback, 31 kbit/s are too slow and 47 are not

_LOG = logging.getLogger("unet.api")
_T = TypeVar("_T")


class Content(Protocol):
    """What an answer holds, such as :class:`service.engine.request.Body`."""

    size: int

    @property
    def in_memory(self) -> bool:
        """Whether reading takes no time."""
        ...

    def read(self, most: int = -1) -> bytes:
        """Read what follows: all of it, or at most so many bytes; empty at the end."""
        ...

    def close(self) -> None:
        """Free it."""
        ...


class PiecewiseResponse(Response):
    """An answer with its length in the header, of which the server keeps one piece beside the body itself.

    The next piece waits until the client has taken the last one. A client that takes none for a minute is dropped; it
    holds the body's memory, or its room on the disk.

    Parameters
    ----------
    body
        What is sent; closed afterwards.
    media_type, headers, status_code
        As for every response.

    """

    def __init__(self, body: Content, media_type: str, headers: Mapping[str, str], status_code: int = 200) -> None:
        of_this = {**headers, "Content-Length": str(body.size)}
        super().__init__(media_type=media_type, headers=of_this, status_code=status_code)
        self._content = body
        self.sent = 0
        """Bytes of it that have been sent; never all before the client has taken those."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""

        async def patient_send(message: Message) -> None:
            # also the start may have to wait, for earlier answers on the same connection
            async with asyncio.timeout(_PATIENCE_S):
                await send(message)

        gone = asyncio.create_task(hung_up(receive))
        try:
            await self._send_all(patient_send, gone)
        except TimeoutError:
            hang_up = (scope.get("extensions") or {}).get(HANG_UP)
            if hang_up is None:
                raise
            hang_up["call"]()
            await gone
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            self._content.close()

    async def _send_all(self, send: Send, gone: asyncio.Task[None]) -> None:
        content, sent = self._content, 0
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if content.size <= _PIECE_BYTES:
                await send({"type": "http.response.body", "body": content.read(), "more_body": False})
                self.sent = content.size
                return
            while not gone.done() and (part := await self._read()):
                for first in range(0, len(part), _PIECE_BYTES):
                    piece = part[first : first + _PIECE_BYTES]
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    sent += len(piece)
                    self.sent = min(sent, content.size - 1)
            # waits for those before it
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            self.sent = sent
        except TimeoutError:
            _LOG.warning(
                "a client took less than %d bytes of its answer in %g s, after %d of %d; the connection is dropped",
                _PIECE_BYTES,
                _PATIENCE_S,
                sent,
                content.size,
            )
            raise

    async def _read(self) -> bytes:
        if not self._content.in_memory:
            return await asyncio.to_thread(self._content.read, _PART_BYTES)
        await asyncio.sleep(0)  # a fast client must not keep the loop from others
        return self._content.read(_PART_BYTES)


async def hung_up(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Await the work, or cancel it as soon as the client hangs up.

    Raises
    ------
    ClientDisconnect
        Where the client has gone.

    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(hung_up(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
