"""Connections on which nothing goes on, and what must not be taken for them."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.served import served

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


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
        line.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
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
