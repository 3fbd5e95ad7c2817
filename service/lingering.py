"""The end of a connection whose client has its answer before it has sent all of its request.

A socket that is closed while bytes come answers them with a reset, and a client that sends all before it reads then
finds the reset, not the answer. So this side ends its own direction only, reads on, and throws away what comes, until
the client has read the answer and hangs up: a lingering close, as Apache and nginx have it. On a connection that stays
for the next request the rest is thrown away, too; so much of it, and for so long.
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


class Rest:
    """What comes of a request after its answer; too much, too long, or a silence ends the connection.

    Parameters
    ----------
    limits
        From the answer on.
    cut
        Ends the connection.

    """

    def __init__(self, limits: LingerLimits, cut: Callable[[], None]) -> None:
        self._limits = limits
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Count from now on; does nothing where it has begun."""
        if self._timer is None:
            self._bytes_left = self._limits.most_bytes
            self._heard = self._loop.time()
            self._until = self._heard + self._limits.most_s
            self._look()

    def _look(self) -> None:
        due = min(self._heard + _MOST_SILENCE_S, self._until)
        if self._loop.time() >= due:
            self._cut()
        else:
            self._timer = self._loop.call_at(due, self._look)

    def count(self, size: int) -> None:
        """Note that so many bytes have come; those that come before it has begun do not count."""
        if self._timer is not None:
            self._heard = self._loop.time()
            self._bytes_left -= size
            if self._bytes_left < 0:
                self._cut()

    @property
    def has_come(self) -> bool:
        """Whether any byte has come since it began."""
        return self._timer is not None and self._bytes_left < self._limits.most_bytes

    def end(self) -> None:
        """All has come, or the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class LingeringTransport:
    """A transport whose ``close`` lingers where ``is_sending`` says that more of a request may come."""

    def __init__(self, transport: asyncio.Transport, is_sending: Callable[[], bool], rest: Rest) -> None:
        self._transport = transport
        self._is_sending = is_sending
        self._rest = rest
        self._lingers = False
        self._ahead = 0  # bytes of the next answer that are sent

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """See asyncio; what was sent ahead is left out."""
        ahead, self._ahead = self._ahead, 0
        self._transport.write(data[ahead:])

    def send_ahead(self, opening: bytes) -> bool:
        """Send one more byte of what the next answer begins with; whether there was one left."""
        byte = opening[self._ahead : self._ahead + 1]
        if byte:
            self._transport.write(byte)
            self._ahead += 1
        return bool(byte)

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
        self._rest.begin()
        self._transport.set_protocol(_Discard(self._transport.get_protocol(), self._rest))
        self._transport.write_eof()
        self._transport.resume_reading()


class _Discard(asyncio.Protocol):
    """Throws away what comes, until the client hangs up."""

    def __init__(self, replaced: asyncio.BaseProtocol, rest: Rest) -> None:
        self._replaced = replaced
        self._rest = rest

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._rest.count(len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._replaced.connection_lost(exc)
