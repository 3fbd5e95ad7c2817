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


@pytest.mark.parametrize("read", [0, 1, 2], ids=["nothing", "a byte", "two bytes"])
def test_work_for_who_ends_his_direction_first_and_hangs_up_then_ends(read: int) -> None:
    """The system of one who has read all that was sent ahead tells of its end by the answer to the next byte alone."""
    begun, gone = threading.Event(), threading.Event()

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        begun.set()
        assert (await receive())["type"] == "http.disconnect"
        gone.set()

    with served(work) as port:
        with connect(port) as line:
            line.sendall(GET)
            assert begun.wait(20)
            line.shutdown(socket.SHUT_WR)
            assert b"".join(line.recv(1) for _ in range(read)) == b"HT"[:read]
            time.sleep(0.5)
            assert not gone.is_set()
        assert gone.wait(20)


POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
LARGE = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n" + bytes(500_000)


@pytest.mark.parametrize("work_s", [0.0, 0.3, 1.5], ids=["at once", "soon", "later"])
@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        pytest.param(GET, [b""], id="GET"),
        pytest.param(GET.replace(b"1.1", b"1.0"), [b""], id="HTTP 1.0"),
        pytest.param(LAST, [b""], id="the last"),
        pytest.param(POST, [b"body"], id="POST"),
        pytest.param(LARGE, [bytes(500_000)], id="a body that is read bit by bit"),
        pytest.param(GET + POST + GET, [b"", b"body", b""], id="three"),
        pytest.param(POST + b"GET / HT", [b"body"], id="half of another"),
        pytest.param(POST + GET + POST[:-1], [b"body", b""], id="another whose body is cut off"),
    ],
)
def test_who_only_ends_his_direction_gets_his_answers(sent: bytes, answers: list[bytes], work_s: float) -> None:
    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(work_s)
        await echo(scope, receive, send)

    with served(work, keep_alive_s=60) as port, connect(port) as line:
        line.sendall(sent)
        line.shutdown(socket.SHUT_WR)
        assert bodies(read_all(line)) == [(200, answer) for answer in answers]


def bodies(read: bytes) -> list[tuple[int, bytes]]:
    """Statuses and bodies of answers that say how long they are."""
    found = []
    while read:
        head, _, rest = read.partition(b"\r\n\r\n")
        status, *headers = head.split(b"\r\n")
        assert status.startswith(b"HTTP/1.1 ")
        length = next(int(line.split(b":")[1]) for line in headers if line.lower().startswith(b"content-length"))
        found.append((int(status.split()[1]), rest[:length]))
        read = rest[length:]
    return found


def test_who_ends_his_direction_in_the_middle_of_a_request_has_hung_up() -> None:
    gone = threading.Event()

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    with served(work) as port, connect(port) as line:
        line.sendall(POST[:-1])
        line.shutdown(socket.SHUT_WR)
        assert read_all(line) == b""
        assert gone.wait(20)


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("behind", "status"),
    [
        pytest.param(b"nothing\r\n\r\n", 400, id="no request"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + bytes(b"a" * 200_000), 431, id="endless headers"),
        pytest.param(CHUNKED + b"no length\r\n", 400, id="a broken body"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="an address without a path"),
        pytest.param(GET.replace(b"/ ", b"http://x:99999999/ "), 400, id="no port"),
    ],
)
@pytest.mark.parametrize("before", [[], [b"body"], [b"body", b"", b"body"]], ids=["alone", "one before", "three"])
@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
def test_what_is_no_request_is_refused_after_those_before_it_are_answered(
    before: list[bytes], behind: bytes, status: int, *, apart: bool
) -> None:
    go_on = threading.Event()

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await asyncio.to_thread(go_on.wait, 20)
        await Response(body)(scope, receive, send)

    with served(work) as port, connect(port) as line:
        sent = [*(POST if body else GET for body in before), behind]
        for part in sent if apart else [b"".join(sent)]:
            line.sendall(part)
            time.sleep(0.2)
        go_on.set()
        *good, (refused, _) = bodies(read_all(line))
        assert good == [(200, body) for body in before]
        assert refused == status


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
