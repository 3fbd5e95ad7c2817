"""The proxy's image between a client and replicas that misbehave on purpose."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.docker.containers import PROJECT, Container, docker, started
from tests.live import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

PUBLISHED = "--publish=127.0.0.1:0:8000"
SMALL = b"x" * 100_000
LARGE = b"x" * 5_000_000
"""More than the proxy keeps for a second try."""


@pytest.fixture(scope="module")
def proxy_image(engine: None) -> str:
    """Tag of the proxy's image, built from this tree."""
    docker("build", "--file=docker/haproxy.Dockerfile", "--tag=unet-proxy:test", ".")
    return "unet-proxy:test"


@contextmanager
def proxied(image: str, *behaviours: str) -> Iterator[Container]:
    """Start replicas of these behaviours and the proxy before them; gives it once it uses all of them."""
    network = f"unet-proxy-{os.getpid()}-{time.monotonic_ns()}"
    docker("network", "create", network)
    with ExitStack() as stack:
        stack.callback(docker, "network", "rm", network)
        for behaviour in behaviours:
            options = (f"--network={network}", "--network-alias=service", f"--volume={PROJECT}/tests/docker:/code:ro")
            command = ("python", "/code/replica.py", behaviour)
            stack.enter_context(started("python:3.11-slim-bookworm", *options, command=command))
        hardened = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=1g")
        proxy = stack.enter_context(started(image, *hardened, f"--network={network}", PUBLISHED))
        until = time.monotonic() + 60
        while _used(proxy) < len(behaviours) or not _listens(proxy):
            assert time.monotonic() < until, proxy.logs()
            time.sleep(0.1)
        if behaviours:
            proxy.wait_for("healthy")
        yield proxy


@pytest.fixture(scope="module")
def proxy(proxy_image: str) -> Iterator[Container]:
    """The proxy before one replica that is good."""
    with proxied(proxy_image, "good") as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def waiting(proxy: Container) -> Iterator[socket.socket]:
    """A client that has sent the head and half of the body, while the other tests run: the proxy's patience is long."""
    with _connected(proxy) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: proxy\r\nContent-Length: 2\r\n\r\nx")
        yield client


def _used(proxy: Container) -> int:
    """How many replicas the proxy has found ready so far."""
    return len(set(re.findall(r"Server (replicas/replica\d+) (?:\('service'\) )?is UP", proxy.logs())))


def _listens(proxy: Container) -> bool:
    """Whether the proxy answers, whatever it says: a published port takes connections before the process inside does.

    Asked on the port whose requests no log shows.
    """
    probe = "exec 3<>/dev/tcp/127.0.0.1/8404"
    done = subprocess.run(["docker", "exec", proxy.name, "bash", "-c", probe], capture_output=True, check=False)
    return done.returncode == 0


def post(url: str, body: bytes) -> httpx.Response:
    return httpx.post(f"{url}/segment", content=body, timeout=60)


def test_a_refusal_goes_to_another_replica_as_long_as_the_upload_is_at_hand(proxy_image: str) -> None:
    with proxied(proxy_image, "good", "busy") as proxy:
        assert {post(proxy.url, SMALL).status_code for _ in range(12)} == {200}
        large = [post(proxy.url, LARGE) for _ in range(12)]
    refused = [answer for answer in large if answer.status_code != 200]
    assert 0 < len(refused) < len(large)
    assert {(answer.status_code, answer.headers["Retry-After"]) for answer in refused} == {(503, "7")}


def test_a_refusal_by_all_comes_to_the_client_with_its_time_to_come_back(proxy_image: str) -> None:
    with proxied(proxy_image, "busy", "busy") as proxy:
        for body in (SMALL, LARGE):
            answer = post(proxy.url, body)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
            assert answer.json() == {"type": "/problems/overloaded"}


def test_an_answer_that_is_lost_is_asked_of_another_replica_or_is_a_502_that_says_so(proxy_image: str) -> None:
    with proxied(proxy_image, "good", "breaking") as proxy:
        assert {post(proxy.url, SMALL).status_code for _ in range(12)} == {200}
        lost = [answer for answer in (post(proxy.url, LARGE) for _ in range(12)) if answer.status_code != 200]
    assert lost
    for answer in lost:
        assert (answer.status_code, answer.headers["Retry-After"]) == (502, "1")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == 502


def test_without_replicas_the_proxy_refuses_as_the_service_would(proxy_image: str) -> None:
    with proxied(proxy_image) as proxy:
        answer = post(proxy.url, SMALL)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 503


def test_who_hangs_up_ends_the_replicas_work(proxy_image: str) -> None:
    with proxied(proxy_image, "waiting") as proxy:
        with _connected(proxy) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: proxy\r\nContent-Length: 1\r\n\r\nx")
            wait_until(lambda: httpx.get(proxy.url).text == "1 wait, 0 hung up")
        wait_until(lambda: httpx.get(proxy.url).text == "0 wait, 1 hung up")


def test_half_a_head_from_everybody_leaves_room_for_the_health_check(proxy_image: str) -> None:
    with proxied(proxy_image, "good") as proxy, ExitStack() as stack:
        address = _address(proxy)
        for _ in range(600):
            client = stack.enter_context(socket.create_connection(address))
            client.sendall(b"GET / HTTP/1.1\r\nHost: ")
        asked = (
            "exec 3<>/dev/tcp/127.0.0.1/8404; printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3; read -r _ status _ <&3"
        )
        assert proxy.run("timeout", "5", "bash", "-c", f"{asked}; echo $status") == "200"


def test_a_head_has_less_time_than_the_body_after_it(proxy: Container) -> None:
    with _connected(proxy) as half, _connected(proxy) as slow:
        half.sendall(b"GET / HTTP/1.1\r\nHost: ")
        slow.sendall(b"POST / HTTP/1.1\r\nHost: proxy\r\nContent-Length: 2\r\n\r\nx")
        assert half.recv(12) == b"HTTP/1.1 408"
        slow.sendall(b"x")
        assert slow.recv(12) == b"HTTP/1.1 200"


def _address(proxy: Container) -> tuple[str, int]:
    host, port = proxy.url.removeprefix("http://").split(":")
    return host, int(port)


def _connected(proxy: Container) -> socket.socket:
    return socket.create_connection(_address(proxy), 90)


def test_what_becomes_of_a_replica_is_logged_once(proxy: Container) -> None:
    lines = [line for line in proxy.logs().splitlines() if " is UP" in line]
    assert len(lines) == 1, lines


def test_bodies_of_512_mb_pass_and_request_ids_too(proxy: Container) -> None:
    size = 512 << 20
    large = httpx.post(proxy.url, content=_zeros(size), headers={"Content-Length": str(size)}, timeout=300)
    own = httpx.post(proxy.url, content=b"x", headers={"X-Request-ID": "mine"})
    given = httpx.post(proxy.url, content=b"x")
    assert (large.status_code, int(large.content)) == (200, size)
    assert own.headers["X-Seen-Request-ID"] == "mine"
    assert given.headers["X-Seen-Request-ID"]


def test_the_log_has_every_request_whole_under_the_id_that_the_service_uses(proxy: Container) -> None:
    """The service takes over ids of letters, digits and ``._:-`` alone."""
    path = "/" + "long" * 500
    seen = [
        httpx.post(f"{proxy.url}{path}", content=b"x", headers={"X-Request-ID": offered}).headers["X-Seen-Request-ID"]
        for offered in ("mine", "two words", "a,b", "x" * 129)
    ]
    until = time.monotonic() + 10  # a line is written after its answer
    while len(lines := [line for line in proxy.logs().splitlines() if '"request_id"' in line and "/long" in line]) < 4:
        assert time.monotonic() < until, lines
        time.sleep(0.05)
    logged = [json.loads(line) for line in lines]
    assert [(entry["request_id"], entry["path"]) for entry in logged] == [(each, path) for each in seen]
    assert seen[0] == "mine"
    assert all(re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", each) for each in seen)


def _zeros(size: int) -> Iterator[bytes]:
    chunk = bytes(1 << 20)
    for _ in range(size >> 20):
        yield chunk


def test_the_configuration_is_valid(proxy_image: str) -> None:
    check = ("--rm", proxy_image, "-c")
    done = subprocess.run(["docker", "run", *check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_a_body_that_stays_away_is_a_problem_that_says_when_to_come_back(waiting: socket.socket) -> None:
    answer = http.client.HTTPResponse(waiting)
    answer.begin()
    assert (answer.status, answer.headers["Retry-After"]) == (408, "1")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert json.loads(answer.read())["status"] == 408
