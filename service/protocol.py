"""uvicorn's HTTP protocol with what it lacks.

A limit on headers and whatever is no body, a way to hang up, and word of it to every request on the connection; limits
on connections without a request in work; answers that come before the end of a request are not lost where they end the
connection; what is no request is refused after those before it are answered, and who has only ended his own direction
gets his answers; and requests that wish for another protocol are answered in this one.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from httptools import HttpParserUpgrade
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.half_close import HalfClose, can_tell
from service.lingering import LingeringTransport, LingerLimits, Rest

HANG_UP = "unet.hang_up"
"""ASGI extension of requests: drops the connection, with what waits to be sent on it."""
_UNSENT_BYTES = 128 << 10
"""Beyond this the kernel takes nothing: its buffer of megabytes would hide for minutes that a slow client reads on."""
_TCP_NOTSENT_LOWAT = 25  # Linux; Python has a name for it from 3.12 on
MOST_HEADER_BYTES = 64 << 10
"""Of one request; proxies refuse far less. What came in one read of the socket may exceed it."""
_MESSAGE = b"the headers have more than 65536 bytes; send less of them"
_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(_MESSAGE), _MESSAGE)
)


class LimitedProtocol(HttpToolsProtocol):
    """Counts the bytes since the parser last got somewhere; it keeps them all in memory until it does.

    While no request is in work the connection has the keep-alive time for the next one to begin, and again for its
    headers to end, from their first byte; and what comes of a request after its answer has the limits of ``linger``.

    Of a request that wishes for another protocol the parser reads the headers, takes what follows for that protocol's,
    and what comes after it for the next request. None is spoken here, and such a wish is to be ignored (RFC 9110,
    section 7.8): the parser is given the headers again without it, and then the rest. Java's HttpClient, as it comes,
    wishes for HTTP/2 with each request.
    """

    _pending_bytes = 0
    _upgrade_at: int | None = None
    _body_is_coming = False
    _refusal: Callable[[], None] | None = None  # of what came and is no request: answered in here
    _has_last = False  # the request that ends the connection is whole; nothing after it is one
    _has_ended = False  # the client has ended its direction

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        linger: LingerLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._linger = linger
        self._unanswered: deque[RequestResponseCycle] = deque()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        self._cut = transport.close
        self._rest = Rest(self._linger, self._cut)
        lingering = LingeringTransport(transport, self._has_answered_too_early, self._rest)
        super().connection_made(cast(asyncio.Transport, lingering))
        self._limit_idleness(self.loop.time() + self.timeout_keep_alive)
        line = transport.get_extra_info("socket")
        self._half_close = HalfClose(line, self._awaits_answer, lingering.send_ahead, self._cut)
        if sys.platform == "linux" and line.family in {socket.AF_INET, socket.AF_INET6}:
            line.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request that is not answered yet, not only the last one that came (HTTP/1.1 pipelining)."""
        self._rest.end()
        self._unset_keepalive_if_required()
        self._half_close.end()
        self._tell_unanswered()
        super().connection_lost(exc)

    def _tell_unanswered(self) -> None:
        for cycle in self._unanswered:
            cycle.disconnected = cycle.disconnected or not cycle.response_complete
            cycle.message_event.set()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for the answers to requests that came whole, and look whether somebody waits for them."""
        if can_tell():
            self._break_off_last()
            self._has_ended = self._is_in_work()
        self._look_for_hang_up()
        return self._has_ended

    def _look_for_hang_up(self) -> None:
        """Look while it is not read: the end is read already, or may lie behind requests that wait for earlier ones."""
        if self._has_ended or self.flow.read_paused:
            self._half_close.begin()
        else:
            self._half_close.end()

    def _is_in_work(self) -> bool:
        return any(not cycle.response_complete for cycle in self._unanswered)

    def _awaits_answer(self) -> bool:
        following = next((cycle for cycle in self._unanswered if not cycle.response_complete), None)
        return following is not None and not following.response_started

    def _has_answered_too_early(self) -> bool:
        """Whether more may come of a request that has its answer already, or that gets none.

        Of the last one, too: a body may come whose length was not given, or was too small.
        """
        if any(cycle.response_started and not cycle.response_complete for cycle in self._unanswered):
            return False  # an answer that breaks off shall be seen to
        if self._has_ended:
            return False
        return self._refusal is not None or self._has_last or self._body_is_coming or bool(self.pipeline)

    def shutdown(self) -> None:
        """See uvicorn; a last request that came whole, and nothing behind it, leaves nothing to linger for."""
        if not self._is_in_work() and self._has_last and not self._rest.has_come:
            self._cut()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """See uvicorn."""
        if not self._has_last:
            answer = super().send_400_response
            self._refuse(lambda: answer(msg))

    def _refuse(self, answer: Callable[[], None]) -> None:
        """End the connection by an answer to what is no request, once those before it have theirs."""
        broken = self._break_off_last()
        self._refusal = self.transport.close if broken and broken.response_started else answer
        self._refuse_in_turn()

    def _break_off_last(self) -> RequestResponseCycle | None:
        """End the last request where the rest of its body will not come; return it."""
        if not self._body_is_coming:
            return None
        self._body_is_coming = False
        broken = self._unanswered.pop()
        broken.disconnected = True
        broken.message_event.set()
        self.pipeline = deque(waiting for waiting in self.pipeline if waiting[0] is not broken)
        return broken

    def _refuse_in_turn(self) -> None:
        if self._refusal is not None and not self._is_in_work() and not self.transport.is_closing():
            self._refusal()

    def data_received(self, data: bytes) -> None:
        """Parse, and end the connection by 431 where headers do not end."""
        if self._has_last or self._refusal is not None:
            return
        timer = self.timeout_keep_alive_task if self._pending_bytes else None  # half of a request was there already
        due = self.loop.time() + self.timeout_keep_alive if timer is None else timer.when()
        self._rest.count(len(data))
        self._pending_bytes += len(data)
        super().data_received(data)
        while self._upgrade_at is not None:
            rest, self._upgrade_at = data[self._upgrade_at :], None
            super().data_received(data := self._headers_without_upgrade() + rest)
        if self._pending_bytes <= MOST_HEADER_BYTES or self.transport.is_closing():
            self._limit_idleness(due)
            self._look_for_hang_up()
            return
        self._refuse(self._refuse_headers)

    def _refuse_headers(self) -> None:
        self.transport.write(_REFUSAL)
        self.transport.close()

    def on_response_complete(self) -> None:
        """See uvicorn."""
        super().on_response_complete()
        self._refuse_in_turn()
        self._look_for_hang_up()
        self._limit_idleness(self.loop.time() + self.timeout_keep_alive)

    def _limit_idleness(self, due: float) -> None:
        """Close at ``due`` (of the loop's clock) unless a request is in work, or the rest of one comes till then."""
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        is_idle = not self._is_in_work()
        if is_idle and self._has_ended:
            self.transport.close()
            return
        if is_idle and self._body_is_coming:
            self._rest.begin()
            return
        self._rest.end()
        if is_idle:
            self.timeout_keep_alive_task = self.loop.call_at(due, self.timeout_keep_alive_handler)

    def on_message_begin(self) -> None:
        """See httptools."""
        super().on_message_begin()
        self.scope["extensions"] = {HANG_UP: {"call": self.transport.abort}}

    def on_headers_complete(self) -> None:
        """See httptools."""
        if self._has_last or self._will_be_read_again():
            return
        self._pending_bytes = 0
        super().on_headers_complete()  # fails where the address is none
        self._body_is_coming = True
        while self._unanswered and self._unanswered[0].response_complete:
            self._unanswered.popleft()
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._pending_bytes = 0
        if not self._has_last:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._has_last or self._will_be_read_again():
            return
        self._pending_bytes = 0
        self._body_is_coming = False
        self._has_last = not self.cycle.keep_alive
        super().on_message_complete()

    def _will_be_read_again(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"  # that one has no other form

    def _unsupported_upgrade_warning(self) -> None:
        """Called by uvicorn while it handles the exception that says where headers that wish for an upgrade end."""
        stopped = sys.exception()
        if isinstance(stopped, HttpParserUpgrade) and self._will_be_read_again():
            (self._upgrade_at,) = stopped.args

    def _headers_without_upgrade(self) -> bytes:
        kept = [self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        for name, value in self.headers:
            wishes = [wish for wish in value.split(b",") if wish.strip().lower() != b"upgrade"]
            if name != b"upgrade":
                kept.append(name + b": " + (b",".join(wishes) if name == b"connection" else value))
        return b"\r\n".join([*kept, b"", b""])
