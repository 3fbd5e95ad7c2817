"""The client: patience with a busy server, problems as exceptions. The server is scripted here, real in e2e."""

from __future__ import annotations

import io
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.cli import main
from service.client import (
    KEY_URL_VARIABLE,
    KEY_VARIABLE,
    RECEIPT,
    Client,
    ServiceGone,
    ServiceProblem,
    ServiceUnreachable,
)
from service.client.request import Option
from service.client.sink import Sink
from service.settings import unknown_variables
from tests.images import disc, png
from tests.live import live_server
from tests.packages import write_tiny_package

BUSY = httpx.Response(
    503,
    headers={"Retry-After": "7", "Content-Type": "application/problem+json"},
    json={"type": "/problems/overloaded", "status": 503, "title": "Full", "detail": "9 s", "request_id": "r1"},
)

MASK = httpx.Response(200, headers={RECEIPT: "{}", "Content-Type": "image/png"}, content=b"mask")


def scripted(*answers: httpx.Response | Exception) -> tuple[Callable[[httpx.Request], httpx.Response], list[bytes]]:
    """Return a server that gives these answers in turn, and the list of bodies that it will have got."""
    bodies: list[bytes] = []
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        now = left.pop(0)
        if isinstance(now, Exception):
            raise now
        return now

    return answer, bodies


def test_a_busy_server_is_asked_again_after_the_time_it_names_with_the_whole_file(tmp_path: Path) -> None:
    image = tmp_path / "a.tif"
    image.write_bytes(b"pixels")
    handler, bodies = scripted(BUSY, BUSY, MASK)
    slept: list[float] = []
    with Client("http://x", transport=httpx.MockTransport(handler), sleep=slept.append) as client:
        assert client.segment(image, output="mask") == b"mask"
    assert slept == [7, 7]
    assert bodies == [b"pixels"] * 3


@pytest.mark.parametrize("status", [413, 429, 503])
def test_any_refusal_that_names_a_time_is_waited_out(status: int) -> None:
    """As 429 of a proxy that counts requests, and its words."""
    handler, bodies = scripted(httpx.Response(status, headers={"Retry-After": "3"}, text="<h1>later</h1>"), MASK)
    slept: list[float] = []
    with Client("http://x", transport=httpx.MockTransport(handler), sleep=slept.append) as client:
        assert client.segment(b"image") == b"mask"
    assert (slept, len(bodies)) == ([3], 2)


def test_why_requests_wait_is_told_while_they_do() -> None:
    handler, _ = scripted(BUSY, MASK)
    told: list[list[str]] = []
    with Client(
        "http://x", transport=httpx.MockTransport(handler), sleep=lambda _: told.append(client.waits_for)
    ) as client:
        client.segment(b"image")
        assert told == [["503 Full: 9 s"]]
        assert client.waits_for == []


@pytest.mark.parametrize("refused", [{}, {"broken": "why"}])
def test_the_default_package_is_waited_for_while_packages_load(refused: dict[str, str]) -> None:
    """A server answers while it loads them, with a list that is empty."""
    loading = httpx.Response(503, headers={"Retry-After": "5"}, json={"ready": False, "reasons": ["loading"]})
    card = {"name": "tiny", "version": "1.0.0", "default": True}
    paths: list[str] = []
    answers: dict[str, list[httpx.Response | dict[str, object]]] = {
        "/models": [{"models": [], "refused": refused}, {"models": [card], "refused": {}}],
        "/readyz": [loading, {"ready": True}],
        "/models/tiny@1.0.0": [card],
    }

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        now = answers[request.url.path].pop(0)
        return now if isinstance(now, httpx.Response) else httpx.Response(200, json=now)

    slept: list[float] = []
    with Client("http://x", transport=httpx.MockTransport(answer), sleep=slept.append) as client:
        if refused:
            with pytest.raises(ServiceProblem, match="There is no default model: name a model"):
                client.model()
            assert paths == ["/models"]
            return
        assert client.model() == card
    assert slept == [5]
    assert paths == ["/models", "/readyz", "/readyz", "/models", "/models/tiny@1.0.0"]


def test_only_results_may_take_longer_than_ten_minutes() -> None:
    seen: dict[str, dict[str, float]] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        seen[request.url.path] = request.extensions["timeout"]
        return MASK if request.method == "POST" else httpx.Response(200, json={"models": []})

    with Client("http://x", transport=httpx.MockTransport(answer), timeout_s=86_400) as client:
        client.segment(b"image")
        client.models()
    assert {path: limits["read"] for path, limits in seen.items()} == {"/segment": 86_400, "/models": 600}
    assert {limits["write"] for limits in seen.values()} == {600}


def test_connections_are_probed_so_that_none_is_waited_for_whose_other_end_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as connection:
                request = b""
                while not request.endswith(b"image"):
                    request += connection.recv(65_536)
                connection.sendall(f"HTTP/1.1 200 OK\r\n{RECEIPT}: {{}}\r\nContent-Length: 4\r\n\r\nmask".encode())
                connection.recv(1)

        serving = threading.Thread(target=serve)
        serving.start()
        with Client(f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
            answer = client.answer(b"image")
            connected = answer.extensions["network_stream"].get_extra_info("socket")
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if sys.platform == "linux":
                options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                idle_s, interval_s, probes = (connected.getsockopt(socket.IPPROTO_TCP, option) for option in options)
                assert idle_s + probes * interval_s == 120
        serving.join(30)


def test_patience_ends_with_the_problem_of_the_server() -> None:
    handler, _ = scripted(*[BUSY] * 4)
    slept: list[float] = []
    with (
        Client("http://x", transport=httpx.MockTransport(handler), sleep=slept.append, max_wait_s=20) as client,
        pytest.raises(ServiceProblem) as refusal,
    ):
        client.segment(b"image")
    assert slept == [7, 7]
    assert (refusal.value.status, refusal.value.type, refusal.value.request_id) == (503, "/problems/overloaded", "r1")
    assert str(refusal.value) == "503 Full: 9 s"


LATE = httpx.Response(
    504,
    headers={"Content-Type": "application/problem+json"},
    json={"type": "/problems/deadline-exceeded", "status": 504, "title": "Late", "detail": "from a replica"},
)


@pytest.mark.parametrize(
    "refusal", [LATE, *(httpx.Response(status, text="from a proxy") for status in (400, 413, 422, 500))]
)
def test_other_failures_are_not_repeated(refusal: httpx.Response) -> None:
    handler, bodies = scripted(refusal)
    with (
        Client("http://x", transport=httpx.MockTransport(handler)) as client,
        pytest.raises(ServiceProblem, match="from a"),
    ):
        client.segment(b"image")
    assert len(bodies) == 1


def test_patience_grows_to_half_a_minute_and_no_further() -> None:
    none_ready = httpx.Response(503, text="<h1>503 Service Temporarily Unavailable</h1>")
    handler, _ = scripted(*[none_ready] * 9, MASK)
    slept: list[float] = []
    with Client("http://x", transport=httpx.MockTransport(handler), sleep=slept.append, max_wait_s=1000) as client:
        assert client.segment(b"image") == b"mask"
    assert slept == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize(
    "lost",
    [
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
        httpx.ReadError("reset"),
        httpx.WriteError("broken pipe"),
        *(httpx.Response(status, text="from a proxy") for status in (502, 503, 504)),
    ],
)
def test_an_answer_that_was_lost_is_asked_for_again_with_growing_patience(lost: httpx.Response | Exception) -> None:
    handler, bodies = scripted(lost, lost, MASK)
    slept: list[float] = []
    with Client("http://x", transport=httpx.MockTransport(handler), sleep=slept.append) as client:
        assert client.segment(b"image") == b"mask"
    assert slept == [0.5, 1]
    assert bodies == [b"image"] * 3


def test_a_server_that_keeps_hanging_up_is_given_up_in_the_end() -> None:
    handler, bodies = scripted(*[httpx.ReadError("reset")] * 9)
    with (
        Client("http://x", transport=httpx.MockTransport(handler), sleep=lambda _: None, max_wait_s=4) as client,
        pytest.raises(ServiceUnreachable, match="http://x: reset"),
    ):
        client.segment(b"image")
    assert len(bodies) == 4  # after 0, 0.5, 1.5 and 3.5 s


@pytest.mark.parametrize("before", [MASK, httpx.ReadError("reset")])
def test_a_server_that_has_been_there_may_refuse_connections_for_a_while(before: httpx.Response | Exception) -> None:
    """Its last ready replica was killed, and the next one is not ready yet."""
    refused = httpx.ConnectError("refused")
    handler, bodies = scripted(before, refused, refused, *[MASK] * 2)
    with Client("http://x", transport=httpx.MockTransport(handler), sleep=lambda _: None) as client:
        assert [client.segment(b"image") for _ in range(2)] == [b"mask"] * 2
    assert len(bodies) == (4 if isinstance(before, httpx.Response) else 5)


@pytest.mark.parametrize(
    "away",
    [httpx.ConnectError("refused"), httpx.ConnectTimeout("10 s"), httpx.Response(502), httpx.Response(503)],
    ids=repr,
)
def test_a_server_that_is_gone_is_waited_for_by_all_requests_together(away: httpx.Response | Exception) -> None:
    started, slept, told = threading.Barrier(4), list[float](), list[str]()
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.read())
        if len(asked) == 1:
            return MASK
        if isinstance(away, Exception):
            raise away
        return away

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        started.wait(30)  # so that all wait at the same time

    with Client(
        "http://x", transport=httpx.MockTransport(answer), sleep=sleep, max_wait_s=5, waiting=told.append
    ) as it:
        assert it.segment(b"before") == b"mask"
        jobs = [it.submit(b"image", format="png") for _ in range(4)]
        for job in jobs:
            with pytest.raises(ServiceGone, match="the server has been away since"):
                job.result()
    assert slept == [0.5] * 4 + [1.0] * 4 + [2.0] * 4
    assert len(told) == 1
    assert "waiting for the server, 5 s at most: " in told[0]


def test_images_of_one_map_wait_once_for_a_server_that_is_gone() -> None:
    """Each is asked for only when the one before has failed: no request is under way in between."""
    asked, slept = [], list[float]()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.read())
        if len(asked) == 1:
            return MASK
        raise httpx.ConnectError("refused")

    with Client("http://x", transport=httpx.MockTransport(answer), sleep=slept.append, max_wait_s=5) as client:
        client.segment(b"before")
        results = client.map([b"image"] * 3, workers=1, format="png")
        for _ in range(3):
            with pytest.raises(ServiceGone, match="the server has been away since"):
                next(results)
        assert list(results) == []
        assert slept == [0.5, 1, 2]
        with pytest.raises(ServiceGone):
            client.segment(b"later")
        assert slept == [0.5, 1, 2] * 2


def test_after_an_answer_patience_begins_anew_and_ends_for_one_image_all_the_same() -> None:
    refused = httpx.ConnectError("refused")
    handler, _ = scripted(MASK, refused, refused, BUSY, refused, refused, MASK, *[httpx.Response(504)] * 9)
    slept: list[float] = []
    told: list[str] = []
    with Client(
        "http://x", transport=httpx.MockTransport(handler), sleep=slept.append, max_wait_s=12, waiting=told.append
    ) as client:
        client.segment(b"image")
        assert client.segment(b"image") == b"mask"
        assert slept == [0.5, 1, 7, 2, 4]
        with pytest.raises(ServiceProblem, match="504"):
            client.segment(b"image")
    assert slept[5:] == [0.5, 1, 2, 4]
    assert len(told) == 2


def test_a_result_is_written_as_it_comes_and_anew_where_it_breaks_off() -> None:
    into, written = io.BytesIO(), list[int]()

    def pieces(number: int) -> Iterator[bytes]:
        for _ in range(number):
            written.append(into.tell())
            yield b"12345"
        if number > 3:
            raise httpx.ReadError("reset")

    left = [4, 3]

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        return httpx.Response(200, headers={RECEIPT: '{"service": "1"}'}, content=pieces(left.pop(0)))

    with Client("http://x", transport=httpx.MockTransport(answer), sleep=lambda _: None) as client:
        assert client.segment_into(into, b"image", format="png") == {"service": "1"}
    assert into.getvalue() == b"12345" * 3
    assert written == [0, 5, 10, 15, 0, 5, 10], "what has come is kept in memory"


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (httpx.Response(206, headers={"Content-Range": "bytes 4-9/10"}, content=b"efghij"), b"abcdefghij"),
        (httpx.Response(206, headers={"Content-Range": "bytes 0-1/10"}, content=b"ab"), b"0123456789"),
        (httpx.Response(200, content=b"0123456789"), b"0123456789"),
    ],
    ids=["the rest", "another part", "another result"],
)
def test_what_has_come_of_a_jobs_result_is_kept_where_the_server_goes_on(rest: httpx.Response, expected: bytes) -> None:
    asked: list[str | None] = []

    def breaks_off() -> Iterator[bytes]:
        yield b"abcde"
        raise httpx.ReadError("reset")

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(202, json={"id": "1"})
        if not request.url.path.endswith("/result"):
            return httpx.Response(200, json={"state": "done"})
        asked.append(request.headers.get("range"))
        assert request.headers.get("if-range") == ('"1"' if asked[-1] else None)
        if len(asked) == 1:
            return httpx.Response(200, headers={RECEIPT: "{}", "ETag": '"1"'}, content=breaks_off())
        given = rest if len(asked) == 2 else httpx.Response(200, content=b"0123456789")
        given.headers[RECEIPT] = "{}"
        return given

    into = io.BytesIO()
    with Client("http://x", transport=httpx.MockTransport(answer), sleep=lambda _: None) as client:
        client.segment_into(into, b"image", format="npy", respond_async=True)
    assert into.getvalue() == expected
    assert asked[:2] == [None, "bytes=4-"]


@pytest.mark.parametrize("headers", [{"ETag": 'W/"1"'}, {"ETag": '"1"', "Content-Encoding": "gzip"}, {}])
def test_what_may_be_no_part_of_the_result_is_asked_for_anew(headers: dict[str, str]) -> None:
    sink = Sink(io.BytesIO())
    sink.begin(httpx.Response(200, headers=headers))
    sink.write(b"abc")
    assert sink.rest() == {}


def test_what_is_no_result_is_not_written() -> None:
    into = io.BytesIO()
    for other in (httpx.Response(200, text="a proxy"), httpx.Response(422, text="no image")):
        handler, _ = scripted(other)
        transport = httpx.MockTransport(handler)
        with Client("http://x", transport=transport) as client, pytest.raises(ServiceProblem):
            client.segment_into(into, b"image")
    assert into.getvalue() == b""


def test_a_slow_server_is_not_asked_twice() -> None:
    handler, bodies = scripted(httpx.ReadTimeout("600 s"))
    with (
        Client("http://x", transport=httpx.MockTransport(handler)) as client,
        pytest.raises(ServiceUnreachable, match="600 s"),
    ):
        client.segment(b"image")
    assert len(bodies) == 1


def test_a_server_that_is_not_there_is_named() -> None:
    handler, _ = scripted(httpx.ConnectError("refused"))
    with (
        Client("http://nowhere:1", transport=httpx.MockTransport(handler)) as client,
        pytest.raises(ServiceUnreachable, match="http://nowhere:1: refused"),
    ):
        client.models()


def test_a_password_in_the_address_is_sent_and_not_shown() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        raise httpx.ConnectError("refused")

    with (
        Client("https://alice:secret@unet.example.org", transport=httpx.MockTransport(answer)) as client,
        pytest.raises(ServiceUnreachable) as error,
    ):
        client.models()
    assert seen[0].headers["authorization"].startswith("Basic ")
    assert "secret" not in str(error.value)


def test_a_plan_is_asked_for_by_size() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"expected_seconds": 2.5})

    with Client("http://x", transport=httpx.MockTransport(answer)) as client:
        assert client.plan((1024, 1360), planes=3, mirror=True, model=None) == {"expected_seconds": 2.5}
    assert dict(seen[0].url.params) == {"size": "1024x1360", "planes": "3", "mirror": "true"}


@pytest.mark.parametrize("origin", [(5, -6.5), [5, -6.5], (np.int64(5), np.float64(-6.5)), "5,-6.5"])
def test_two_numbers_are_one_option(origin: Option) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return MASK

    with Client("http://x", transport=httpx.MockTransport(answer)) as client:
        client.segment(b"image", origin=origin, pixel_size=(0.65,), mirror=True)
    expected = [("origin", "5,-6.5"), ("pixel_size", "0.65"), ("mirror", "true")]
    assert seen[0].url.params.multi_items() == expected


def test_options_that_are_none_are_not_sent_and_the_key_is() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return MASK

    with Client("http://x", "secret", transport=httpx.MockTransport(answer)) as client:
        client.segment(np.zeros((2, 2), np.uint8), model=None, threshold=0.5)
    assert dict(seen[0].url.params) == {"threshold": "0.5"}
    assert seen[0].headers["authorization"] == "Bearer secret"
    assert seen[0].read().startswith(b"\x93NUMPY")


@pytest.mark.parametrize(
    ("variable", "given", "sent"),
    [
        (None, None, None),
        ("from-there", None, "Bearer from-there"),
        ("from-there\n", None, "Bearer from-there"),
        ("from-there", "mine", "Bearer mine"),
        ("from-there", "", None),
    ],
)
def test_a_key_that_is_not_given_is_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, given: str | None, sent: str | None
) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return MASK

    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(KEY_VARIABLE, variable)
    with Client("http://x", given, transport=httpx.MockTransport(answer)) as client:
        client.segment(b"image")
    assert seen[0].headers.get("authorization") == sent


@pytest.mark.parametrize(
    ("bound", "url", "sent"),
    [
        ("https://unet.lab.org", "https://UNET.lab.org:443/", "Bearer from-there"),
        ("https://unet.lab.org/behind/a/path", "https://unet.lab.org/behind", "Bearer from-there"),
        ("https://unet.lab.org", "https://unet.lab.org:8443", None),
        ("https://unet.lab.org", "http://unet.lab.org", None),
        ("https://unet.lab.org", "https://unet.lab.org.evil.net", None),
        ("https://unet.lab.org", "https://unet.lab.org@evil.net", "Basic dW5ldC5sYWIub3JnOg=="),
        ("unet.lab.org", "https://unet.lab.org", None),
    ],
)
def test_a_key_of_the_environment_goes_to_its_own_service_alone(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    bound: str,
    url: str,
    sent: str | None,
) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return MASK

    monkeypatch.setenv(KEY_VARIABLE, "from-there")
    monkeypatch.setenv(KEY_URL_VARIABLE, bound)
    with Client(url, transport=httpx.MockTransport(answer)) as client:
        client.segment(b"image")
    with Client(url.replace("@", "."), "mine", transport=httpx.MockTransport(answer)) as client:
        client.segment(b"image")
    assert [request.headers.get("authorization") for request in seen] == [sent, "Bearer mine"]
    withheld = f"UNET_API_KEY is for {bound!r}" if "//" not in bound else f"UNET_API_KEY is for {bound}"
    assert (withheld in caplog.text) == (sent is None or sent.startswith("Basic"))
    assert "from-there" not in caplog.text


@pytest.mark.parametrize(
    ("url", "open_to_others"),
    [
        ("http://unet.lab.org", True),
        ("http://8.8.8.8:8000", True),
        ("http://[2001:4860:4860::8888]", True),
        ("https://unet.lab.org", False),
        ("http://127.0.0.1:8000", False),
        ("http://[::1]:8000", False),
        ("http://192.168.3.4", False),
        ("http://100.64.1.2", False),
        ("http://microscope", False),
        ("http://unet.unet.svc.cluster.local", False),
    ],
)
def test_a_key_that_others_could_read_on_its_way_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str, open_to_others: bool
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    Client(url).close()
    assert caplog.text == "", "there is no key"
    for address, key in ((url, "secret"), (url.replace("://", "://me:secret@"), None)):
        caplog.clear()
        Client(address, key).close()
        assert [record.getMessage() for record in caplog.records] == [
            f"the key for {url} goes there unencrypted, and everybody on the way can read it; use https:// if the "
            "service has it"
        ] * open_to_others


def test_a_key_does_not_follow_an_answer_that_sends_it_elsewhere() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(307, headers={"Location": "https://evil.net/segment"})

    with (
        Client("https://unet.lab.org", "secret", transport=httpx.MockTransport(answer)) as client,
        pytest.raises(ServiceProblem, match=r"sends on to https://evil\.net/segment"),
    ):
        client.segment(b"image")
    assert asked == ["https://unet.lab.org/segment"]


def test_commands_take_the_key_of_a_server_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    keys, image = tmp_path / "keys", tmp_path / "a.png"
    keys.write_text("alice:alice-key-0123456789\n")
    image.write_bytes(png(disc()))
    write_tiny_package(tmp_path / "packages")
    commands = (["models"], ["segment", str(image), "-o", str(tmp_path / "mask.png")])
    with live_server(tmp_path, tmp_path / "packages", api_keys_file=keys) as server:
        for command in commands:
            assert main([*command, "--url", server.url]) == 1
            assert "unet-service: " in (said := capsys.readouterr().err)
            assert "401" in said
        monkeypatch.setenv(KEY_VARIABLE, "alice-key-0123456789")
        for command in commands:
            assert main([*command, "--url", server.url]) == 0
    # at a server the file of keys may have been meant, which it is not: it would let everybody in
    assert "did you mean UNET_API_KEYS_FILE?" in str(unknown_variables({KEY_VARIABLE: "alice-key-0123456789"}))


@pytest.mark.parametrize(
    ("key", "where"), [("clé-secrète", 3), ("cle-sec\nrete", 8), ("cle\udcffsec", 4), ("c sec", 2)]
)
def test_a_key_that_cannot_be_sent_is_explained_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str, where: int
) -> None:
    with pytest.raises(ServiceUnreachable, match=f"the key of api_key .* character {where} of its {len(key)} is none"):
        Client("http://127.0.0.1:9", key)
    monkeypatch.setenv(KEY_VARIABLE, key)
    (tmp_path / "a.png").write_bytes(png(disc()))
    for command in (["models"], ["segment", str(tmp_path / "a.png"), "-o", str(tmp_path / "mask.png")]):
        assert main([*command, "--url", "http://any:cle@127.0.0.1:9"]) == 1
        said = capsys.readouterr().err
        assert said.startswith("unet-service: the key of UNET_API_KEY cannot be sent to http://127.0.0.1:9:")
        assert "sec" not in said


@pytest.mark.parametrize("password", ["sec\nret", "sec\udcffret", "sec#ret"])
def test_a_password_of_what_is_no_address_is_not_shown(password: str) -> None:
    with pytest.raises(ServiceUnreachable, match="is no address: in a password") as error:
        Client(f"http://any:{password}@127.0.0.1:9")
    assert "sec" not in str(error.value)
    assert "ret" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            httpx.Response(200, headers={"Content-Type": "text/html"}, content=b"<html>Welcome"),
            "13 bytes of text/html without .* came from http://x/",
        ),
        (httpx.Response(200), "0 bytes of nothing without .* came from http://x/"),
        (
            httpx.Response(200, json={"hello": "world"}),
            "or a proxy drops it; give the address of one, such as http://127",
        ),
        (httpx.Response(200, json=["hello"]), "no U-Net service"),
        (httpx.Response(302, headers={"Location": "https://login/"}), "sends on to https://login/; give the address"),
        (httpx.Response(500, headers={"Content-Type": "application/problem+json"}, content=b"<html>"), "500 .*<html>"),
        (httpx.Response(500, headers={"Content-Type": "application/problem+json"}, content=b"[1]"), r"500 .*\[1\]"),
    ],
)
@pytest.mark.parametrize("ask", ["segment", "models", "version"])
def test_what_another_server_answers_is_no_result(answer: httpx.Response, said: str, ask: str) -> None:
    handler, _ = scripted(answer)
    with Client("http://user:secret@x", transport=httpx.MockTransport(handler)) as client:
        with pytest.raises(ServiceProblem, match=said) as refusal:
            getattr(client, ask)(*[b"image"] * (ask == "segment"))
        assert "secret" not in str(refusal.value)


def test_what_is_no_address_is_said_so() -> None:
    with pytest.raises(ServiceUnreachable, match=r"'http://\[::1' is no address.* such as http://127.0.0.1:8000"):
        Client("http://[::1")


@pytest.mark.parametrize("password", ["KEY#1", "se/cret", "se?cret"])
def test_a_password_that_makes_no_address_is_not_shown(password: str) -> None:
    with pytest.raises(ServiceUnreachable, match="is no address: in a password # is written as %23") as error:
        Client(f"https://any:{password}@host:8000")
    assert not any(part in str(error.value) for part in ("KEY", "se/", "se?", "cret"))
