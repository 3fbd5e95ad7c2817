"""Answers over a real socket to clients that take their time."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from service.api import piecewise
from service.api.piecewise import PiecewiseResponse
from service.engine.request import Body
from tests.served import served

CONTENT = bytes(range(256)) * (64 << 10)  # 16 MiB, more than sockets hold


class CountingFile(io.BytesIO):
    """Notes how much of it has been asked for."""

    handed_on = 0

    def read(self, most: int | None = -1) -> bytes:
        piece = super().read(most)
        self.handed_on += len(piece)
        return piece


@contextmanager
def serving(make: Callable[[], io.BytesIO], freed: Callable[[], None]) -> Iterator[int]:
    """Serve answers on a port of the loopback."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = Body(make())
        body.when_freed(freed)
        await PiecewiseResponse(body, "application/octet-stream", {})(scope, receive, send)

    with served(app) as port:
        yield port


@contextmanager
def half_hearted(port: int, requests: int = 1) -> Iterator[socket.socket]:
    """Ask for the answer, once or more often, and take its first bytes alone."""
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(20)
        line.connect(("127.0.0.1", port))
        line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * requests)
        assert line.recv(12) == b"HTTP/1.1 200"
        yield line


@pytest.mark.parametrize("size", [0, 1, 128 << 10, (128 << 10) + 1, 1 << 20, (1 << 20) + 1, len(CONTENT)])
def test_an_answer_comes_whole_and_is_freed(size: int) -> None:
    freed = threading.Event()
    with serving(lambda: io.BytesIO(CONTENT[:size]), freed.set) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/")
        assert answer.content == CONTENT[:size]
        assert answer.headers["Content-Length"] == str(size)
        assert freed.wait(20)


def test_no_more_is_handed_on_than_the_client_takes() -> None:
    """Nor into the kernel's buffer: of megabytes there a client may take for minutes what no piece tells of."""
    file, freed = CountingFile(CONTENT), threading.Event()
    with serving(lambda: file, freed.set) as port, half_hearted(port) as line:
        time.sleep(0.5)
        held = file.handed_on
        assert 0 < held <= 2 << 20  # read from the file by the megabyte
        assert not freed.is_set()
        taken = 0
        while taken < len(CONTENT):
            taken += len(line.recv(1 << 20))
        assert freed.wait(20)
        assert file.handed_on == len(CONTENT)


def test_a_client_that_takes_nothing_is_dropped_and_the_next_one_is_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(piecewise, "_PATIENCE_S", 0.5)
    freed = threading.Event()
    with serving(lambda: io.BytesIO(CONTENT), freed.set) as port:
        with half_hearted(port) as line:
            assert freed.wait(20)
            taken = 0
            while piece := line.recv(1 << 20):
                taken += len(piece)
            assert taken < len(CONTENT)
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=20).content == CONTENT
    said = [record for record in caplog.records if record.name == "unet.api"]
    assert len(said) == 1
    assert "took less than 131072 bytes of its answer in 0.5 s" in said[0].getMessage()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_the_rest_of_an_answer_is_not_read_for_a_client_who_has_gone() -> None:
    file, freed = CountingFile(CONTENT * 8), threading.Event()
    with serving(lambda: file, freed.set) as port:
        with half_hearted(port):
            pass
        assert freed.wait(20)
    assert file.handed_on < len(CONTENT)


def test_an_answer_that_others_wait_behind_is_dropped_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn tells the last request on a connection alone that it has gone."""
    monkeypatch.setattr(piecewise, "_PATIENCE_S", 0.5)
    freed = threading.Event()
    with serving(lambda: io.BytesIO(CONTENT), freed.set) as port, half_hearted(port, requests=3):
        assert freed.wait(20)


def test_an_answer_behind_others_that_nobody_takes_is_dropped_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piecewise, "_PATIENCE_S", 0.5)
    freed: list[float] = []
    made: list[io.BytesIO] = []

    def small_then_large() -> io.BytesIO:
        made.append(io.BytesIO(CONTENT[: 60_000 if len(made) < 5 else len(CONTENT)]))
        return made[-1]

    with serving(small_then_large, lambda: freed.append(time.monotonic())) as port, half_hearted(port) as line:
        with suppress(OSError):  # the connection may be dropped meanwhile
            line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
        until = time.monotonic() + 20
        while len(freed) < len(made) or not freed:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_the_end_of_a_last_answer_is_not_cut_off_for_who_takes_long_to_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a connection lingers, and its client sends nothing more."""
    monkeypatch.setattr("service.lingering._MOST_SILENCE_S", 0.2)
    freed = threading.Event()
    with serving(lambda: io.BytesIO(CONTENT), freed.set) as port, socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(20)
        line.connect(("127.0.0.1", port))
        line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        taken = bytearray()
        while not freed.is_set():  # all is handed on; the last of it is on its way
            taken += line.recv(1 << 12)
        time.sleep(1)
        while piece := line.recv(1 << 16):
            taken += piece
        assert taken.endswith(b"\r\n\r\n" + CONTENT)
