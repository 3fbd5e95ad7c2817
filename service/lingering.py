"""The end of a connection whose client has its answer before it has sent all of its request.

A socket that is closed while bytes come answers them with a reset, and a client that sends all before it reads then
finds the reset, not the answer. So this side ends its own direction only, reads on, and throws away what comes, until
the client has read the answer and hangs up: a lingering close, as Apache and nginx have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

_MOST_SILENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class LingerLimits:
    """How much more a client may send after its answer, in bytes, and for how long, in seconds."""

    most_bytes: int
    most_s: float


class LingeringTransport:
    """A transport whose ``close`` lingers where ``is_sending`` says that more of a request is to come."""

    def __init__(self, transport: asyncio.Transport, is_sending: Callable[[], bool], limits: LingerLimits) -> None:
        self._transport = transport
        self._is_sending = is_sending
        self._limits = limits
        self._lingers = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._lingers or self._transport.is_closing()

    def close(self) -> None:
        """Close once what was written is sent, and once the client has sent all or what it may; returns at once.

        The protocol hears of nothing but the end, by ``connection_lost``.
        """
        if self.is_closing():
            return
        if not self._is_sending():
            self._transport.close()
            return
        self._lingers = True
        self._transport.set_protocol(_Discard(self._transport, self._limits))
        self._transport.write_eof()
        self._transport.resume_reading()


class _Discard(asyncio.Protocol):
    """Closes at the end of what comes, after too much, too long, or a silence."""

    def __init__(self, transport: asyncio.Transport, limits: LingerLimits) -> None:
        self._transport = transport
        self._replaced = transport.get_protocol()
        self._loop = asyncio.get_running_loop()
        self._bytes_left = limits.most_bytes
        self._heard = self._loop.time()
        self._until = self._heard + limits.most_s
        self._look()

    def _look(self) -> None:
        due = min(self._heard + _MOST_SILENCE_S, self._until)
        if self._loop.time() >= due:
            self._transport.close()
        else:
            self._timer = self._loop.call_at(due, self._look)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._heard = self._loop.time()
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._timer.cancel()
        self._replaced.connection_lost(exc)
