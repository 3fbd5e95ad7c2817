"""Equal shares of users in what may wait: who sends most keeps nobody out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from service.engine.admission.admission import Admission
from service.engine.admission.ticket import Throughput
from service.engine.errors import DeadlineExceeded, Overloaded, ShareExceeded

MB = 1_000_000


class Bench:
    """Users before one ledger; a request of so many seconds."""

    def __init__(self) -> None:
        self.speed = Throughput(MB)
        self.ledger = Admission(1000 * MB, 120)
        self._held = ExitStack()

    @contextmanager
    def closing(self) -> Iterator[Bench]:
        with self._held:
            yield self

    def ask(self, user: str | None, seconds: float = 1, timeout_s: float = 300) -> None:
        """Send a request that stays in work."""
        self._held.enter_context(self.ledger.admit(self.speed, round(seconds * MB), MB, timeout_s, user=user))

    def fill(self, user: str | None) -> int:
        """Send requests until one is refused."""
        count = 0
        while True:
            try:
                self.ask(user)
            except Overloaded:
                return count
            count += 1


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench().closing() as made:
        yield made


def test_who_fills_what_may_wait_keeps_nobody_out_and_is_told_why(bench: Bench) -> None:
    assert bench.fill("alice") == 120
    bench.ask("bob", 10)
    with pytest.raises(ShareExceeded) as refusal:
        bench.ask("alice", 2)
    assert str(refusal.value) == (
        "130 s of work wait and this request adds 2 s, the limit is 120 s; 120 s of that are requests of the user who "
        "asks, of 2 users each may have 60 s in any case; try again in 12 s"
    )
    assert (refusal.value.reason, refusal.value.retry_after_s) == ("backlog", 12)
    bench.ask("carol", 50)
    assert bench.ledger.backlog_seconds == 180


def test_alone_a_user_has_all_that_may_wait_and_no_more(bench: Bench) -> None:
    assert bench.fill("alice") == 120
    with pytest.raises(Overloaded) as refusal:
        bench.ask("alice")
    assert not isinstance(refusal.value, ShareExceeded)
    assert str(refusal.value).endswith("adds 1 s, the limit is 120 s; try again in 1 s")


def test_users_within_their_share_are_let_in_until_twice_the_limit_waits(bench: Bench) -> None:
    bench.fill("alice")
    bench.ask("bob", 59)
    bench.ask("bob", 1)
    with pytest.raises(ShareExceeded, match="60 s of that are requests of the user who asks, of 2 users each may have"):
        bench.ask("bob", 1)
    bench.ask("carol", 50)
    with pytest.raises(Overloaded, match="and 240 s for users with less than an equal share of it; try again"):
        bench.ask("dave", 11)
    bench.ask("dave", 10)


def test_what_comes_beyond_the_limit_is_promised_its_time(bench: Bench) -> None:
    bench.fill("alice")
    bench.ask("bob", 0.5, timeout_s=62)
    with pytest.raises(DeadlineExceeded):
        bench.ask("bob", 0.5, timeout_s=60)


def test_jobs_take_nothing_of_what_requests_may_have_waiting(bench: Bench) -> None:
    job = bench.ledger.admit(bench.speed, 500 * MB, MB, 3600, background=True, user="bob")
    with job:
        assert bench.fill("alice") == 120
        with pytest.raises(Overloaded) as refusal:
            bench.ask("alice")
        assert not isinstance(refusal.value, ShareExceeded), "nobody else has a request"
        bench.ask("bob")
