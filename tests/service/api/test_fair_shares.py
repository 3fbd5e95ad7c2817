"""One user whose requests fill the service keeps no other out: over real sockets, with a net that stands still."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.api.access import Access
from service.app import create_app
from service.engine.scheduling import scheduler
from service.settings import Settings
from tests.images import disc, png
from tests.live import live_server, wait_until
from tests.problems import assert_problem
from tests.served import served
from tests.service.api.test_jobs import ALICE, BOB

IMAGE = png(disc(300, 300, 50))
KEYS = [ALICE, BOB]
ADDRESSES = [{"X-Forwarded-For": "2001:db8::1"}, {"X-Forwarded-For": "2001:db8:0:1::1"}]
LARGE = png(disc(3200, 3200, 50))
BACKLOG_S = 10


@dataclass
class Gate:
    """Before every batch of the net."""

    opened: threading.Event = field(default_factory=threading.Event)

    def held(self, *arguments: Any) -> Any:
        self.opened.wait(60)
        return _RUN_BATCH(*arguments)


_RUN_BATCH = scheduler.run_batch


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(scheduler, "run_batch", gate.held)
    yield gate
    gate.opened.set()


class Service:
    """An application on a port of the loopback, and those who ask it."""

    def __init__(self, app: Any, url: str, senders: ThreadPoolExecutor) -> None:
        self.engine = app.state.engine
        self._url = url
        self._senders = senders

    def get(self, path: str, headers: Mapping[str, str], **params: str) -> httpx.Response:
        return httpx.get(f"{self._url}{path}", headers=headers, params=params, timeout=60)

    def segment(self, headers: Mapping[str, str]) -> Future[httpx.Response]:
        """Send an image; returns once it is accepted, or has its answer."""
        return self._send("/segment", headers, content=IMAGE)

    def segment_large(self, headers: Mapping[str, str]) -> Future[httpx.Response]:
        """Send an image that takes almost half of the memory likewise."""
        return self._send("/segment", headers, content=LARGE)

    def stands_in_line(self, headers: Mapping[str, str]) -> Future[httpx.Response]:
        """Send one, and return once it waits for memory."""
        url = f"{self._url}/segment"
        sent = self._senders.submit(httpx.post, url, headers=dict(headers), timeout=60, content=LARGE)
        wait_until(lambda: sent.done() or bool(self.engine._admission._line.places))
        return sent

    def infer(self, headers: Mapping[str, str]) -> Future[httpx.Response]:
        """Send a small tensor likewise."""
        tensor = {"name": "image", "shape": [2, 3], "datatype": "UINT8", "data": [0, 9, 0, 0, 9, 9]}
        return self._send("/v2/models/tiny/infer", headers, json={"inputs": [tensor]})

    def _send(self, path: str, headers: Mapping[str, str], **body: Any) -> Future[httpx.Response]:
        accepted = self.engine._admission.in_flight + 1
        sent = self._senders.submit(httpx.post, f"{self._url}{path}", headers=dict(headers), timeout=60, **body)
        wait_until(lambda: sent.done() or self.engine._admission.in_flight == accepted)
        return sent

    def fill(self, headers: Mapping[str, str]) -> tuple[list[Future[httpx.Response]], httpx.Response]:
        """Send images until one is refused; returns those that are accepted, and the refusal."""
        accepted: list[Future[httpx.Response]] = []
        while not (sent := self.segment(headers)).done():
            accepted.append(sent)
        return accepted, sent.result()

    def takes_a_second(self, headers: Mapping[str, str], seconds: float = 1) -> None:
        """Have the image take so many seconds by the speed that is believed."""
        plan = self.get("/plan", headers, size="300x300").json()
        model = self.engine.default_model
        work = plan["tiles"] * model.tile_work(tuple(plan["input_yx"]))
        model.throughput.add(round(1000 * work / seconds), 1000)


@contextmanager
def running(settings: Settings, gate: Gate) -> Iterator[Service]:
    app = create_app(settings)
    with ThreadPoolExecutor(64) as senders, served(app, lifespan="on") as port:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        try:
            yield Service(app, url, senders)
        finally:
            gate.opened.set()


@pytest.fixture(params=["keys", "addresses"])
def users(request: pytest.FixtureRequest) -> list[dict[str, str]]:
    return KEYS if request.param == "keys" else ADDRESSES


@pytest.fixture
def serve(settings: Settings, users: list[dict[str, str]], gate: Gate, tmp_path: Path) -> Callable[..., Any]:
    """Start a service for the two users."""
    (tmp_path / "keys").write_text("alice:alice-key-0123456789\nbob:bob-key-0123456789\n")
    keys = tmp_path / "keys" if users is KEYS else None
    return lambda **more: running(settings.model_copy(update={"api_keys_file": keys, **more}), gate)


def test_who_fills_what_may_wait_keeps_nobody_else_out(
    serve: Callable[..., Any], users: list[dict[str, str]], gate: Gate
) -> None:
    alice, bob = users
    with serve(max_backlog_s=BACKLOG_S) as service:
        service.takes_a_second(alice)
        accepted, refusal = service.fill(alice)
        assert len(accepted) == BACKLOG_S
        assert_problem(refusal, 503, "overloaded")
        assert service.get("/plan", bob, size="300x300").json()["refusal"] is None
        others = service.segment(bob)
        assert not others.done(), "it is accepted"
        told = assert_problem(service.segment(alice).result(), 503, "share-exceeded")
        assert told["detail"] == (
            "11 s of work wait and this request adds 1 s, the limit is 10 s; 10 s of that are requests of the user who "
            "asks, of 2 users each may have 5 s in any case; try again in 2 s"
        )
        assert (told["reason"], told["retry_after_s"]) == ("backlog", 2)
        assert_problem(service.infer(alice).result(), 503, "share-exceeded")
        plan = service.get("/plan", alice, size="300x300").json()
        assert plan["refusal"]["detail"] == told["detail"]
        assert refused(service, alice) == [({"reason": "share-exceeded"}, 2)]
        gate.opened.set()
        assert [sent.result().status_code for sent in (*accepted, others)] == [200] * (BACKLOG_S + 1)


def test_who_fills_memory_keeps_nobody_else_out(
    serve: Callable[..., Any], users: list[dict[str, str]], gate: Gate
) -> None:
    alice, bob = users
    with serve(memory_budget_mb=128, max_pixels=11_000_000) as service:
        accepted = [service.segment_large(alice), service.segment_large(alice)]
        assert_problem(service.segment_large(alice).result(), 503, "overloaded")
        plan = service.get("/plan", bob, size="3200x3200").json()
        assert plan["refusal"] is None
        assert plan["expected_seconds"] >= 1 + plan["compute_seconds"]
        waiting = service.stands_in_line(bob)
        assert not waiting.done(), "it is not refused"
        assert service.get("/plan", bob, size="3200x3200").json()["refusal"]["type"] == "/problems/overloaded"
        gate.opened.set()
        assert [sent.result().status_code for sent in (*accepted, waiting)] == [200] * 3
        assert "wait;dur=" in waiting.result().headers["server-timing"]
        wait_until(lambda: service.engine._admission.memory_in_use == 0)


def refused(service: Service, headers: Mapping[str, str]) -> list[tuple[dict[str, str], float]]:
    """Labels and values of what was refused to who had an equal share."""
    families = text_string_to_metric_families(service.get("/metrics", headers).text)
    samples = [sample for family in families for sample in family.samples if sample.name == "unet_rejected_total"]
    return [(sample.labels, sample.value) for sample in samples if sample.labels["reason"] == "share-exceeded"]


@pytest.mark.parametrize(
    ("trusted", "header", "expected"),
    [
        ("127.0.0.0/8", "x-forwarded-for", "203.0.113.7"),
        ("10.0.0.0/8", "x-forwarded-for", "127.0.0.1"),
        ("127.0.0.0/8,203.0.113.0/24", "x-forwarded-for", "198.51.100.1"),
        ("127.0.0.0/8", "forwarded", "203.0.113.9"),
    ],
)
def test_proxies_that_are_trusted_tell_who_the_client_is(
    packages: Path, tmp_path: Path, trusted: str, header: str, expected: str
) -> None:
    with live_server(tmp_path, packages, default_model="tiny", trusted_proxies=trusted, client_header=header) as server:
        told = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7", "Forwarded": "for=203.0.113.9"}
        sent_on = {**told, "X-Request-ID": "from-afar"}
        assert httpx.post(f"{server.url}/segment", content=IMAGE, headers=sent_on, timeout=60).status_code == 200

        def clients() -> list[str]:
            return [event["client"] for event in server.events() if event.get("request_id") == "from-afar"]

        wait_until(lambda: bool(clients()))
        assert clients() == [expected]


@pytest.mark.parametrize(
    ("user", "address", "party"),
    [
        ("alice", "203.0.113.7", "alice"),
        (None, "203.0.113.7", "203.0.113.7"),
        (None, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        (None, "somewhere", "somewhere"),
        (None, None, None),
    ],
)
def test_users_are_told_apart_by_their_keys_and_else_by_their_addresses(
    user: str | None, address: str | None, party: str | None
) -> None:
    assert Access(user=user, address=address).party == party
