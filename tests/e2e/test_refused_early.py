"""Refusals that come while the body is still sent, on connections that end: they reach who reads only afterwards."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPResponse
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.test_running import metric, wait_for_metric
from tests.live import LiveServer, live_server, wait_until
from tests.problems import assert_problem

KEY = "0123456789abcdef"
MAX_BODY_MB = 20
BODY = b"II*\0" + bytes(MAX_BODY_MB << 20)[4:]
FORM = b'--b\r\nContent-Disposition: form-data; name="%d"\r\n\r\n'
LAST_1_1 = ("HTTP/1.1", "Connection: close\r\n")
LAST_1_0 = ("HTTP/1.0", "")
KEPT = ("HTTP/1.1", "")
GET_LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("refusing")
    (folder / "keys").write_text(f"alice:{KEY}\n")
    with live_server(folder, packages, api_keys_file=folder / "keys", max_body_mb=MAX_BODY_MB) as running:
        yield running


def connect(server: LiveServer) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def head(path: str, manner: tuple[str, str], *further: str) -> bytes:
    version, last = manner
    lines = "".join(f"{line}\r\n" for line in further)
    return f"POST {path} {version}\r\nHost: x\r\n{last}{lines}\r\n".encode()


def read_answer(line: socket.socket) -> httpx.Response:
    """Read an answer to its end; the connection stays open."""
    with closing(HTTPResponse(line, method="POST")) as answer:
        answer.begin()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


TIFF = ("Content-Type: image/tiff", f"Authorization: Bearer {KEY}")
MULTIPART = ("Content-Type: multipart/form-data; boundary=b", f"Authorization: Bearer {KEY}")
LONG_FIELD = FORM % 0 + BODY[:-1000] + b"\r\n--b--\r\n"
MANY_FIELDS = b"".join(FORM % number + bytes(3500) + b"\r\n" for number in range(5000)) + b"--b--\r\n"


@pytest.mark.parametrize(
    "manner",
    [pytest.param(LAST_1_1, id="last"), pytest.param(LAST_1_0, id="HTTP 1.0"), pytest.param(KEPT, id="kept")],
)
@pytest.mark.parametrize(
    ("path", "headers", "body", "refusal"),
    [
        pytest.param("/segment?model=nix", TIFF, BODY, (404, "unknown-model"), id="404"),
        pytest.param("/segment?nix=1", TIFF, BODY, (422, "invalid-parameter"), id="422"),
        pytest.param("/segment", TIFF[:1], BODY, (401, "unauthorized"), id="401"),
        pytest.param("/segment", TIFF, BODY * 3, (413, "body-too-large"), id="413"),
        pytest.param("/segment", MULTIPART, LONG_FIELD, (400, "broken-multipart"), id="a long field"),
        pytest.param("/segment", MULTIPART, MANY_FIELDS, (400, "broken-multipart"), id="many fields"),
    ],
)
def test_who_sends_all_before_reading_gets_the_problem(
    refusing: LiveServer,
    *,
    manner: tuple[str, str],
    path: str,
    headers: tuple[str, ...],
    body: bytes,
    refusal: tuple[int, str],
) -> None:
    with connect(refusing) as line:
        line.sendall(head(path, manner, *headers, f"Content-Length: {len(body)}") + body)
        answer = read_answer(line)
        assert_problem(answer, *refusal)
        if manner != KEPT:
            assert answer.headers["Connection"] == "close"
            assert line.recv(1) == b""


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        pytest.param(TIFF[:1], (401, "unauthorized"), id="at once"),
        pytest.param(TIFF, (400, "empty-body"), id="after its end"),
    ],
)
@pytest.mark.parametrize("manner", [pytest.param(LAST_1_1, id="last"), pytest.param(LAST_1_0, id="HTTP 1.0")])
def test_who_does_not_say_how_much_comes_gets_the_problem(
    refusing: LiveServer, manner: tuple[str, str], headers: tuple[str, ...], refusal: tuple[int, str]
) -> None:
    with connect(refusing) as line:
        line.sendall(head("/segment", manner, *headers))
        line.sendall(BODY)
        assert_problem(read_answer(line), *refusal)


@pytest.mark.parametrize("behind", [pytest.param(BODY, id="a body"), pytest.param(GET_LIVEZ * 2, id="requests")])
@pytest.mark.parametrize("manner", [pytest.param(LAST_1_1, id="last"), pytest.param(LAST_1_0, id="HTTP 1.0")])
def test_what_comes_after_the_last_request_takes_no_answer_from_it(
    refusing: LiveServer, manner: tuple[str, str], behind: bytes
) -> None:
    with connect(refusing) as line:
        line.sendall(head("/segment", manner, *TIFF, "Content-Length: 5") + b"hello" + behind)
        assert_problem(read_answer(line), 415, "unsupported-image-format")
        assert line.recv(1) == b""


def test_who_waits_to_be_asked_for_a_body_that_is_not_wanted_is_told_that_the_connection_ends(
    refusing: LiveServer,
) -> None:
    with connect(refusing) as line:
        line.sendall(head("/segment", KEPT, *TIFF[:1], f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
        answer = read_answer(line)
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["Connection"] == "close"
        assert line.recv(1) == b""


def test_who_waits_to_be_asked_for_a_body_that_is_wanted_may_go_on_afterwards(refusing: LiveServer) -> None:
    with connect(refusing) as line:
        line.sendall(head("/segment", KEPT, *TIFF, "Content-Length: 5", "Expect: 100-continue"))
        asked = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert line.recv(len(asked), socket.MSG_WAITALL) == asked
        line.sendall(b"hello")
        answer = read_answer(line)
        assert_problem(answer, 415, "unsupported-image-format")
        assert "Connection" not in answer.headers
        line.sendall(GET_LIVEZ)
        assert read_answer(line).status_code == 200


def test_what_is_thrown_away_is_not_kept(refusing: LiveServer) -> None:
    process = psutil.Process(refusing.process.pid)
    before = process.memory_info().rss
    with connect(refusing) as line:
        line.sendall(head("/segment", LAST_1_1, f"Content-Length: {len(BODY) * 15}"))
        for _ in range(15):
            line.sendall(BODY)
        grown = process.memory_info().rss - before
        assert_problem(read_answer(line), 401, "unauthorized")
    assert grown < 100e6, f"{grown / 1e6:.0f} MB of 300 MB are in memory"


def test_while_draining_they_reach_those_that_would_keep_the_connection(packages: Path, tmp_path: Path) -> None:
    with live_server(tmp_path, packages, drain_delay_s=300) as server:
        server.terminate()
        wait_until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        with connect(server) as line:
            line.sendall(head("/segment?model=nix", KEPT, f"Content-Length: {len(BODY)}") + BODY)
            answer = read_answer(line)
        assert_problem(answer, 404, "unknown-model")
        assert answer.headers["Connection"] == "close"
        server.terminate()
        assert server.process.wait(30) == 0


def test_they_outlive_the_end_of_the_listener(packages: Path, tmp_path: Path) -> None:
    """Refused on a connection that was to be kept, which the end of the service finds in the middle of a body."""
    with live_server(tmp_path, packages) as server, connect(server) as line:
        line.sendall(head("/segment?model=nix", KEPT, f"Content-Length: {len(BODY)}") + BODY[:1000])
        wait_for_metric(server.url, "unet_rejected_total", 1)
        server.terminate()
        wait_until(lambda: not listens(server))
        line.sendall(BODY[1000:])
        assert_problem(read_answer(line), 404, "unknown-model")
        line.close()
        assert server.process.wait(30) == 0


def listens(server: LiveServer) -> bool:
    with suppress(ConnectionRefusedError), connect(server):
        return True
    return False


def send_until_cut(line: socket.socket, piece: bytes, pause_s: float) -> int:
    """Send two pieces between pauses without end; returns the bytes that the other side let in before it closed."""
    sent = 0
    until = time.monotonic() + 60
    with suppress(ConnectionError):
        while time.monotonic() < until:
            # the first piece after the end is answered with a reset, which the second one meets
            for _ in range(2):
                line.sendall(piece)
                sent += len(piece)
                time.sleep(min(pause_s, 0.2))
            time.sleep(pause_s)
        pytest.fail("nobody closed the connection in 60 s")
    return sent


@pytest.fixture(scope="module")
def limited(
    request: pytest.FixtureRequest, packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """A service with the limits that a test asks for."""
    with live_server(tmp_path_factory.mktemp("limited"), packages, **request.param) as running:
        yield running


@pytest.mark.parametrize("manner", [pytest.param(LAST_1_1, id="last"), pytest.param(KEPT, id="kept")])
@pytest.mark.parametrize(
    ("limited", "piece", "pause_s", "least"),
    [
        pytest.param({"deadline_s": 2}, b"1\r\na\r\n", 0.05, 0, id="too long"),
        pytest.param(
            {"max_body_mb": 1, "upload_limit_mb": 30}, b"10000\r\n%s\r\n" % bytes(1 << 16), 0, 30 << 20, id="too much"
        ),
        pytest.param({}, b"1\r\na\r\n", 6, 0, id="silent"),
    ],
    indirect=["limited"],
    scope="module",
)
def test_who_never_ends_is_cut(
    limited: LiveServer, piece: bytes, pause_s: float, least: int, *, manner: tuple[str, str]
) -> None:
    with connect(limited) as line:
        line.sendall(head("/segment?model=nix", manner, "Transfer-Encoding: chunked"))
        assert_problem(read_answer(line), 404, "unknown-model")
        assert send_until_cut(line, piece, pause_s) > least
        assert httpx.get(f"{limited.url}/readyz").status_code == 200


def test_who_never_ends_is_no_request_in_work_and_keeps_the_process_for_its_grace_at_most(
    packages: Path, tmp_path: Path
) -> None:
    with live_server(tmp_path, packages, shutdown_grace_s=1) as server, connect(server) as line:
        line.sendall(head("/segment?model=nix", LAST_1_1, "Transfer-Encoding: chunked"))
        assert_problem(read_answer(line), 404, "unknown-model")
        line.sendall(b"1\r\na\r\n")
        assert metric(server.url, "unet_in_flight") == 0
        server.terminate()
        assert send_until_cut(line, b"1\r\na\r\n", 0.05)
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.log.read_text()
