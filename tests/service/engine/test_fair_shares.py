"""Equal shares of users in what may wait, and in memory and disk: who sends most keeps nobody out."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from service.engine.admission import Admission
from service.engine.errors import DeadlineExceeded, Overloaded, ShareExceeded
from service.engine.request import SegmentRequest
from service.engine.ticket import Throughput, Ticket
from tests.engines import running
from tests.images import npy
from tests.packages import write_tiny_package
from tests.service.engine.test_on_disk import blobs

MB = 1_000_000


class Bench:
    """Users before one ledger; a request of so many seconds."""

    def __init__(self, memory_mb: int = 1000, disk_mb: int = 0, max_backlog_s: float = 120) -> None:
        self.now = 1000.0
        self.speed = Throughput(MB)
        self.ledger = Admission(memory_mb * MB, max_backlog_s, disk_mb * MB, clock=lambda: self.now)
        self._held = ExitStack()

    @contextmanager
    def closing(self) -> Iterator[Bench]:
        with self._held:
            yield self

    def ask(
        self, user: str | None, seconds: float = 1, memory_mb: int = 1, disk_mb: int = 0, timeout_s: float = 300
    ) -> None:
        """Send a request that stays in work; who is refused for want of room will come again."""
        size = round(seconds * MB), memory_mb * MB
        try:
            self._held.enter_context(self.ledger.admit(self.speed, *size, timeout_s, disk_mb * MB, user=user))
        except Overloaded as refusal:
            self.ledger.expect_back(user, memory_mb * MB, disk_mb * MB, refusal)
            raise

    def fill(self, user: str | None, memory_mb: int = 1) -> int:
        """Send requests until one is refused."""
        count = 0
        while True:
            try:
                self.ask(user, memory_mb=memory_mb)
            except Overloaded:
                return count
            count += 1

    def end_all(self) -> None:
        """End all requests in work."""
        self._held.close()


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


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_room_that_is_freed_waits_for_who_was_refused_with_less_than_a_share(kind: str) -> None:
    size = {f"{kind}_mb": 10}
    with Bench(100, 100).closing() as bench:
        for _ in range(10):
            bench.ask("alice", **size)
        with pytest.raises(Overloaded, match="10 requests hold 100 MB") as refusal:
            bench.ask("bob", **size)
        bench.end_all()
        for _ in range(9):
            bench.ask("alice", **size)
        with pytest.raises(ShareExceeded) as kept:
            bench.ask("alice", **size)
        assert (kept.value.reason, refusal.value.reason) == (kind, kind)
        assert "who asks hold 90 MB" in str(kept.value)
        assert "10 MB are kept for users with less than an equal share" in str(kept.value)
        assert "is 100 MB, of 2 users each may have 50 MB; try again in " in str(kept.value)
        bench.now += refusal.value.retry_after_s
        bench.ask("bob", **size)
        with pytest.raises(Overloaded, match="10 requests hold 100 MB"):
            bench.ask("alice", **size)
        held = bench.ledger.memory_in_use if kind == "memory" else bench.ledger.disk_in_use
        assert held == 100 * MB


def test_room_is_kept_no_longer_than_somebody_may_come_for_it() -> None:
    with Bench(100).closing() as bench:
        bench.fill("alice", 10)
        with pytest.raises(Overloaded) as refusal:
            bench.ask("bob", memory_mb=60)
        bench.end_all()
        bench.ask("alice", memory_mb=50)
        with pytest.raises(ShareExceeded) as kept:
            bench.ask("alice")
        assert kept.value.retry_after_s == 1, "then the one in work is done, and there is room for both"
        bench.now += refusal.value.retry_after_s + 10
        bench.ask("alice", memory_mb=50)


def test_who_was_refused_first_comes_first_and_holds_up_nobody_before_him() -> None:
    with Bench(100).closing() as bench:
        bench.fill("alice", 10)
        for user in ("bob", "carol"):
            with pytest.raises(Overloaded):
                bench.ask(user, memory_mb=70)
        bench.end_all()
        with pytest.raises(ShareExceeded, match="70 MB are kept"):
            bench.ask("carol", memory_mb=70)
        with pytest.raises(ShareExceeded, match="140 MB are kept"):
            bench.ask("alice", memory_mb=40)
        bench.ask("alice", memory_mb=30)
        bench.ask("bob", memory_mb=70)


def test_who_holds_a_share_already_has_nothing_kept() -> None:
    with Bench(100).closing() as bench:
        bench.ask("alice", memory_mb=60)
        bench.ask("bob", memory_mb=40)
        with pytest.raises(Overloaded):
            bench.ask("alice", memory_mb=10)
        bench.end_all()
        bench.ask("bob", memory_mb=100)


def test_answers_that_are_being_sent_count_as_their_users() -> None:
    with Bench(100).closing() as bench:
        bench.ledger.keep(60 * MB, 0, user="alice")
        bench.ask("alice", memory_mb=40)
        with pytest.raises(Overloaded):
            bench.ask("bob", memory_mb=20)
        bench.end_all()
        bench.ask("carol", memory_mb=20)
        with pytest.raises(ShareExceeded, match="hold 60 MB and this one needs 10 MB"):
            bench.ask("alice", memory_mb=10)


def test_the_engine_keeps_room_for_who_asked_and_not_for_who_asked_for_a_plan(tmp_path: Path) -> None:
    write_tiny_package(tmp_path / "packages")
    image = npy(blobs())

    async def scenario() -> None:
        async with running(tmp_path / "packages") as engine:
            ledger, wanted = engine._admission, SegmentRequest(format="npy", user="bob")

            def all_of_it(user: str) -> AbstractContextManager[Ticket]:
                return ledger.admit(Throughput(MB), MB, ledger.memory_limit, 60, user=user)

            with all_of_it("alice"):
                assert isinstance((await engine.forecast((300, 320), 1, wanted)).refusal, Overloaded)
            with all_of_it("alice"), pytest.raises(Overloaded):
                await engine.segment(io.BytesIO(image), wanted)
            with pytest.raises(ShareExceeded), all_of_it("alice"):
                pytest.fail("room is kept for bob")
            answer = await engine.segment(io.BytesIO(image), wanted)
            answer.body.close()
            with all_of_it("alice"):
                assert ledger.memory_in_use == ledger.memory_limit

    asyncio.run(scenario())
