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
        line.sendall(start + piece * 50)
        time.sleep(0.05)  # what is not read before the end turns it into a reset
        line.sendall(piece * 20)
        assert line.recv(4096).startswith(b"HTTP/1.1 431 ")
        assert line.recv(4096) == b""


def test_trailers_that_do_not_end_close_the_connection(server: LiveServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
        time.sleep(0.5)  # a read that holds a body is not counted
        line.sendall(b"X-A: " + b"a" * 60_000)
        time.sleep(0.05)  # what is not read before the end turns it into a reset
        line.sendall(b"a" * 20_000)
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
        line.sendall(bytes(range(256)) * 16)
        assert b" 400 " in line.recv(4096).split(b"\r\n")[0]
    assert httpx.post(f"{server.url}/segment", content=GOOD).status_code == 200
