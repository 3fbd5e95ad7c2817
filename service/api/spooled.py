"""Responses whose body lies on disk: sent piece by piece, and freed however sending ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.engine.request import Body

_PIECE_BYTES = 1 << 20


class SpooledResponse(Response):
    """An answer with its length in the header, of which one piece is in memory at a time.

    Parameters
    ----------
    body
        What is sent; closed afterwards.
    media_type, headers
        As for every response.

    """

    def __init__(self, body: Body, media_type: str, headers: Mapping[str, str]) -> None:
        super().__init__(media_type=media_type, headers={**headers, "Content-Length": str(body.size)})
        self._spooled = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while piece := await asyncio.to_thread(self._spooled.read, _PIECE_BYTES):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._spooled.close()
