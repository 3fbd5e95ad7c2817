"""Responses that are sent piece by piece, no faster than the client takes them, and freed however that ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.engine.request import Body
from service.protocol import HANG_UP

_PIECE_BYTES = 256 << 10
_SMALL_BYTES = 64 << 10  # what uvicorn lets wait on any connection
_PATIENCE_S = 60.0  # for one piece: who takes less than 35 kbit/s has stopped reading

_LOG = logging.getLogger("unet.api")


class PiecewiseResponse(Response):
    """An answer with its length in the header, of which the server keeps one piece beside the body itself.

    The next piece waits until the client has taken the last one. One that stops reading holds the body's memory, or its
    room on the disk, for a minute; then the connection is dropped.

    Parameters
    ----------
    body
        What is sent; closed afterwards.
    media_type, headers
        As for every response.

    """

    def __init__(self, body: Body, media_type: str, headers: Mapping[str, str]) -> None:
        super().__init__(media_type=media_type, headers={**headers, "Content-Length": str(body.size)})
        self._content = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if self._content.size <= _SMALL_BYTES:
                await send({"type": "http.response.body", "body": self._content.read(), "more_body": False})
            else:
                await self._send_pieces(scope, send)
        finally:
            self._content.close()

    async def _send_pieces(self, scope: Scope, send: Send) -> None:
        loop, content, sent = asyncio.get_running_loop(), self._content, 0
        try:
            async with asyncio.timeout(_PATIENCE_S) as patience:
                piece = b" "
                while piece:
                    if content.in_memory:
                        piece = content.read(_PIECE_BYTES)
                    else:
                        piece = await asyncio.to_thread(content.read, _PIECE_BYTES)
                    # the empty last one waits for those before it
                    await send({"type": "http.response.body", "body": piece, "more_body": bool(piece)})
                    sent += len(piece)
                    patience.reschedule(loop.time() + _PATIENCE_S)
        except TimeoutError:
            _LOG.warning(
                "a client took nothing of its answer for %g s, after %d of %d bytes; the connection is dropped",
                _PATIENCE_S,
                sent,
                content.size,
            )
            hang_up = (scope.get("extensions") or {}).get(HANG_UP)
            if hang_up is None:
                raise
            hang_up["call"]()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
