"""Bad input over real HTTP: each the right problem, no traceback in the log, and the next good request is answered."""

from __future__ import annotations

import contextlib
import socket
import time

import httpx
import numpy as np
import psutil
import pytest

from tests.images import disc, noise, npy_declaring, png, tiff, tiff_declaring
from tests.live import LiveServer
from tests.problems import assert_problem

GOOD = png(disc())
COLOUR = png(np.dstack([disc(), disc(radius=9), disc(radius=5)]))


@pytest.mark.parametrize(
    ("body", "query", "status", "slug"),
    [
        pytest.param(b"", {}, 400, "empty-body", id="empty body"),
        pytest.param(b"not an image", {}, 415, "unsupported-image-format", id="text named .tif"),
        pytest.param(tiff(noise(100, 100))[:5000], {}, 422, "undecodable-image", id="truncated TIFF"),
        pytest.param(png(noise(100, 100))[:5000], {}, 422, "undecodable-image", id="truncated PNG"),
        pytest.param(tiff_declaring(900, 65535, 65535), {}, 413, "image-too-large", id="900 x 65535 x 65535 TIFF"),
        pytest.param(npy_declaring((900, 65535, 65535)), {}, 413, "image-too-large", id="900 x 65535 x 65535 npy"),
        pytest.param(COLOUR, {}, 422, "image-mismatch", id="3 channels"),
        pytest.param(GOOD, {"model": "nobody"}, 404, "unknown-model", id="unknown model"),
        pytest.param(GOOD, {"format": "docx"}, 406, "unknown-format", id="unknown format"),
        pytest.param(tiff(np.full((50, 50), np.nan, np.float32)), {}, 422, "non-finite-image", id="NaN"),
    ],
)
def test_bad_input_gets_its_problem_and_the_next_good_one_is_answered(
    server: LiveServer, body: bytes, query: dict[str, str], status: int, slug: str
) -> None:
    assert_problem(httpx.post(f"{server.url}/segment", content=body, params=query), status, slug)
    assert httpx.post(f"{server.url}/segment", content=GOOD).status_code == 200
    assert not [event for event in server.events() if "exception" in event or event["level"] in {"error", "critical"}]


def test_a_body_declared_too_large_is_refused_before_it_is_sent(server: LiveServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert b" 413 " in line.recv(4096).split(b"\r\n")[0]


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ", b"a" * 1000, id="one long header"),
        pytest.param(b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"X-A: a\r\n" * 125, id="many headers"),
        pytest.param(b"GET /", b"a" * 1000, id="a long path"),
    ],
)
def test_headers_that_do_not_end_are_refused(server: LiveServer, start: bytes, piece: bytes) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(start + piece * 20_000)
        assert line.recv(4096).startswith(b"HTTP/1.1 431 ")
        assert line.recv(4096) == b""


def test_trailers_that_do_not_end_are_refused(server: LiveServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
        time.sleep(0.5)  # a read that holds a body is not counted
        line.sendall(b"X-A: " + b"a" * 60_000)
        line.sendall(b"a" * 20_000)
        assert line.recv(4096).startswith(b"HTTP/1.1 431 ")
        assert line.recv(4096) == b""


def test_long_headers_within_the_limit_are_read_again_and_again_on_one_connection(server: LiveServer) -> None:
    with httpx.Client(base_url=server.url, headers={"X-Long": "a" * 40_000}) as http:
        statuses = [http.post("/segment", content=tiff(noise(300, 300))).status_code for _ in range(4)]
    assert statuses == [200] * 4


def test_unfinished_uploads_do_not_fill_the_memory(server: LiveServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            line = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            line.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 15000000\r\n\r\n")
            line.sendall(bytes(14_000_000))
        assert httpx.post(f"{server.url}/segment", content=GOOD).status_code == 200
        grown = process.memory_info().rss - before
    assert grown < 150e6, f"{grown / 1e6:.0f} MB of 280 MB are in memory"


def test_bytes_that_are_no_http_do_not_disturb_the_next_request(server: LiveServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(bytes(range(256)) * 80_000)
        assert b" 400 " in line.recv(4096).split(b"\r\n")[0]
    assert httpx.post(f"{server.url}/segment", content=GOOD).status_code == 200


def converse(server: LiveServer, *sent: bytes) -> bytes:
    """All that is answered on one connection to what is sent, of which the last request ends it."""
    host, port = server.url.removeprefix("http://").split(":")
    answers = b""
    with socket.create_connection((host, int(port)), timeout=20) as line:
        for part in sent:
            line.sendall(part)
            time.sleep(0.1)  # parts may come as one: no less is answered then
        while received := line.recv(1 << 16):
            answers += received
    return answers


WISH = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(GOOD)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (100, GOOD[:100], len(GOOD) - 100, GOOD[100:])
LAST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([WISH + LENGTH + b"\r\n" + GOOD + LAST], id="at once"),
        pytest.param([WISH + LENGTH + b"\r\n", GOOD, LAST], id="headers first, as Java does"),
        pytest.param([WISH[:30], WISH[30:] + LENGTH + b"\r", b"\n" + GOOD[:9], GOOD[9:], LAST], id="in pieces"),
        pytest.param([WISH + CHUNKED + b"\r\n", CHUNKS[:300], CHUNKS[300:], LAST], id="in chunks"),
        pytest.param([LENGTH + WISH.replace(b"h2c", b"websocket") + b"\r\n" + GOOD, LAST], id="another protocol"),
    ],
)
def test_who_wishes_for_another_protocol_is_answered_in_this_one(server: LiveServer, sent: list[bytes]) -> None:
    begun = b"POST /segment?format=rle HTTP/1.1\r\nHost: x\r\n"
    answers = converse(server, begun + sent[0], *sent[1:])
    assert answers.count(b"HTTP/1.1 ") == answers.count(b"HTTP/1.1 200 OK") == 2
    assert httpx.post(f"{server.url}/segment?format=rle", content=GOOD).content in answers
    assert not [event for event in server.events() if "upgrade" in str(event).lower()]


def test_the_body_of_such_a_request_is_not_taken_for_the_next_one(server: LiveServer) -> None:
    smuggled = b"GET /models/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    wish = b"POST /segment HTTP/1.1\r\nHost: x\r\n" + WISH + b"Content-Length: %d\r\n\r\n" % len(smuggled)
    answers = converse(server, wish, smuggled, LAST)
    assert answers.count(b"HTTP/1.1 ") == 2
    assert b"unsupported-image-format" in answers
    assert b"smuggled" not in answers
