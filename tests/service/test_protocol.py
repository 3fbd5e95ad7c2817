"""Connections on which nothing goes on, and what must not be taken for them."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from service.lingering import LingerLimits
from service.protocol import LimitedProtocol
from tests.served import served

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(await Request(scope, receive).body())(scope, receive, send)


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(b"no", 404)(scope, receive, send)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def read_all(line: socket.socket) -> bytes:
    """Read until the other side closes."""
    read = b""
    while received := line.recv(1 << 16):
        read += received
    return read


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="no byte"),
        pytest.param(b"\r\n", id="an empty line"),
        pytest.param(b"GET / HTTP/1.1\r\nHo", id="half headers"),
    ],
)
@pytest.mark.parametrize("requests", [0, 1])
def test_a_connection_on_which_nothing_goes_on_is_closed(requests: int, sent: bytes) -> None:
    with served(echo, keep_alive_s=1) as port, connect(port) as line:
        for _ in range(requests):
            line.sendall(GET)
            assert line.recv(1 << 16).startswith(b"HTTP/1.1 200")
        line.sendall(sent)
        assert read_all(line) == b""


@pytest.mark.parametrize("before", [b"", GET], ids=["first", "later"])
def test_headers_that_trickle_are_given_up(before: bytes) -> None:
    with served(echo, keep_alive_s=1) as port, connect(port) as line:
        line.sendall(before + b"GET / HTTP/1.1\r\nX: ")
        until = time.monotonic() + 30
        with suppress(ConnectionError):
            while time.monotonic() < until:
                line.sendall(b"a")
                time.sleep(0.05)
            pytest.fail("nobody closed the connection in 30 s")


def test_a_body_may_come_as_slowly_as_its_reader_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the time for headers nor that for the rest of a refused body is for the body of a request in work."""
    monkeypatch.setattr("service.lingering._MOST_SILENCE_S", 0.5)
    with served(echo, keep_alive_s=1) as port, connect(port) as line:
        line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\na")
        time.sleep(2)
        line.sendall(b"b")
        assert read_all(line).endswith(b"\r\n\r\nab")


def test_a_connection_that_is_kept_serves_on_after_the_rest_of_a_refused_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.lingering._MOST_SILENCE_S", 2)
    with served(refuse, keep_alive_s=20) as port, connect(port) as line:
        line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        assert line.recv(1 << 16).startswith(b"HTTP/1.1 404")
        line.sendall(b"ab")
        time.sleep(3)  # no silence in a body any more
        line.sendall(LAST)
        assert read_all(line).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(b"", id="alone"),
        pytest.param(GET, id="one behind it"),
        pytest.param(GET * 3, id="three behind it"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000), id="a body"),
    ],
)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_work_for_who_hangs_up_ends_whatever_was_sent_behind_it(behind: bytes, *, reset: bool) -> None:
    begun, gone = threading.Event(), threading.Event()

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    with served(work) as port:
        with connect(port) as line:
            line.sendall(GET)
            assert begun.wait(20)
            line.sendall(behind)
            time.sleep(0.5)  # what is read with the end hides nothing
            assert not gone.is_set()
            if reset:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert gone.wait(20)


@asynccontextmanager
async def connected(
    app: ASGIApp,
) -> AsyncIterator[tuple[LimitedProtocol, asyncio.Transport, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Give both sides of a connection that stays open on the client's side."""
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    protocol = LimitedProtocol(config, ServerState(), {}, linger=LingerLimits(1 << 20, 60))
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        yield protocol, transport, reader, writer
    finally:
        writer.close()
        while protocol in protocol.connections:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("sent", "behind", "closed"),
    [
        pytest.param(LAST, b"", True, id="all of the last request"),
        pytest.param(GET.replace(b"1.1", b"1.0"), b"", True, id="all of one of HTTP/1.0"),
        pytest.param(b"POST / HTTP/1.0\r\nHost: x\r\n\r\n", b"ab", False, id="a body without a length"),
        pytest.param(LAST.replace(b"Host", b"Content-Length: 9\r\nHost"), b"", False, id="half of a request"),
        pytest.param(b"nothing\r\n\r\n", b"", False, id="no request"),
    ],
)
def test_a_stop_waits_only_for_answers_that_what_still_comes_may_cut_off(
    sent: bytes, behind: bytes, *, closed: bool
) -> None:
    async def scenario() -> None:
        async with connected(refuse) as (protocol, transport, reader, writer):
            writer.write(sent)
            assert (await reader.read()).startswith(b"HTTP/1.1 4"), "the answer, and no more comes after it"
            assert not transport.is_closing(), "it lingers"
            writer.write(behind)
            await asyncio.sleep(0.1)
            protocol.shutdown()
            assert transport.is_closing() == closed

    asyncio.run(scenario())


def test_a_stop_waits_for_the_answer_to_a_last_request() -> None:
    async def scenario() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def work(scope: Scope, receive: Receive, send: Send) -> None:
            begun.set()
            await go_on.wait()
            await Response(b"done")(scope, receive, send)

        async with connected(work) as (protocol, _, reader, writer):
            writer.write(LAST)
            await begun.wait()
            protocol.shutdown()
            go_on.set()
            assert (await reader.read()).endswith(b"done")

    asyncio.run(scenario())
