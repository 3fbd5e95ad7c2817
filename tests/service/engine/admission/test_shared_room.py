"""Equal shares of memory while users wait for it: who fills it keeps nobody out, and nothing is kept in vain."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress

import pytest

from service.engine.admission.admission import Admission
from service.engine.admission.series import SINGLE, Series
from service.engine.admission.ticket import Throughput
from service.engine.errors import Overloaded, ShareExceeded

MB = 1_000_000
SPEED = Throughput(MB)


class Bench:
    """Users before one ledger of 100 MB of memory and 100 MB of disk."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ledger = Admission(100 * MB, 1000, 100 * MB, clock=lambda: self.now)
        self.held: dict[str, list[ExitStack]] = {}
        self.waiting: dict[str, asyncio.Task[None]] = {}

    def stands(self, user: str | None, megabytes: int, most_s: float = 300) -> bool:
        return self.ledger.seconds_in_line(megabytes * MB, 0, SINGLE, user, most_s) > 0

    def take(self, user: str, megabytes: int, *, disk: bool = False) -> None:
        """Have a request in work that holds so much; refused or told to wait, it fails."""
        memory, spool = (0, megabytes * MB) if disk else (megabytes * MB, 0)
        assert self.ledger.seconds_in_line(memory, spool, SINGLE, user, 300) == 0
        work = ExitStack()
        work.enter_context(self.ledger.admit(SPEED, 1, memory, 300, spool, user=user))
        self.held.setdefault(user, []).append(work)

    def end(self, user: str) -> None:
        self.held[user].pop(0).close()

    async def join(self, user: str, megabytes: int, most_s: float = 300) -> None:
        """Stand in line with a request, whose work begins once there is room."""
        assert self.stands(user, megabytes, most_s)
        since = self.now

        async def wait() -> None:
            await self.ledger.let_others_pass(megabytes * MB, 0, SINGLE, user, most_s)
            work, series = ExitStack(), Series(seconds=self.now - since)
            work.enter_context(self.ledger.admit(SPEED, 1, megabytes * MB, 300, user=user, series=series))
            self.held.setdefault(user, []).append(work)

        self.waiting[user] = asyncio.create_task(wait())
        await asyncio.sleep(0)
        self.now += 1

    async def look(self) -> None:
        """Give all who stand in line the time to look whether they have room."""
        await asyncio.sleep(0.25)


@pytest.fixture
def run() -> Callable[[Callable[[Bench], Awaitable[None]]], None]:
    def on_a_bench(scenario: Callable[[Bench], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with bench() as made, asyncio.timeout(30):
                await scenario(made)

        asyncio.run(whole())

    return on_a_bench


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    for task in made.waiting.values():
        task.cancel()
        with suppress(asyncio.CancelledError, Overloaded):
            await task
    for stacks in made.held.values():
        for work in stacks:
            work.close()
    assert (made.ledger.memory_in_use, made.ledger.disk_in_use, made.ledger.in_flight) == (0, 0, 0)


Run = Callable[[Callable[[Bench], Awaitable[None]]], None]


def test_who_holds_nothing_waits_in_line_and_gets_what_others_leave(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.take("alice", 40)
        bench.take("alice", 40)
        await bench.join("bob", 30)
        bench.end("alice")
        with pytest.raises(ShareExceeded) as refusal:
            bench.stands("alice", 40)
        assert str(refusal.value) == (
            "requests of the user who asks hold 40 MB and this one needs 40 MB, 30 MB are kept for users with less "
            "than an equal share, who wait for it; the memory budget for images is 100 MB, of 2 users each may have "
            "50 MB in any case; try again in 1 s"
        )
        assert (refusal.value.reason, refusal.value.retry_after_s) == ("memory", 1)
        await bench.look()
        assert bench.waiting["bob"].done()
        assert bench.ledger.memory_in_use == 70 * MB
        bench.take("alice", 30)

    run(scenario)


def test_what_those_in_line_leave_is_for_everybody(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.take("alice", 65)
        await bench.join("bob", 50)
        bench.take("carol", 30)
        bench.end("alice")
        bench.take("alice", 10)

    run(scenario)


def test_who_holds_more_than_a_share_or_is_alone_is_refused_at_once(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.take("alice", 80)
        assert not bench.stands("alice", 30)
        with pytest.raises(Overloaded, match="1 requests hold 80 MB and this one needs 30 MB, the memory budget"):
            bench.ledger.check(SPEED, 1, 30 * MB, 300, user="alice")
        assert bench.stands("bob", 30)
        bench.take("bob", 20)
        assert bench.stands("bob", 30), "with what he holds he keeps within a share"
        assert not bench.stands("bob", 31)

    run(scenario)


def test_each_user_stands_in_line_with_one_request(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.take("alice", 90)
        await bench.join("bob", 20)
        assert not bench.stands("bob", 20)
        assert bench.stands("carol", 20)

    run(scenario)


def test_nothing_is_kept_for_who_hangs_up_or_has_been_refused(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.take("alice", 60)
        for _ in range(20):
            with pytest.raises(Overloaded):
                bench.ledger.check(SPEED, 1, 50 * MB, 300, user="bob")
        await bench.join("bob", 50)
        bench.waiting["bob"].cancel()
        await bench.look()
        bench.take("alice", 40)

    run(scenario)


def test_who_needs_more_than_a_share_waits_in_the_order_of_arrival_and_not_for_good(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.take("alice", 30)
        bench.take("dave", 30)
        await bench.join("bob", 80)
        await bench.join("carol", 70)
        bench.take("erin", 20)
        bench.now += 5
        with pytest.raises(Overloaded, match="150 MB are kept for what has waited longer"):
            bench.ledger.check_room(10 * MB, 0, SINGLE)
        assert bench.stands("frank", 10), "and is not refused"
        for user in ("alice", "dave", "erin"):
            bench.end(user)
        await bench.look()
        assert bench.waiting["bob"].done()
        assert not bench.waiting["carol"].done()
        bench.end("bob")
        await bench.look()
        assert bench.waiting["carol"].done()

    run(scenario)


def test_a_job_does_not_pass_who_came_before_it(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.take("alice", 80)
        await bench.join("bob", 40)
        bench.now += 1
        with bench.ledger.admit(SPEED, 1, 70 * MB, 3600, background=True, user="alice") as job:
            assert not bench.ledger.claim(job)
            bench.end("alice")
            assert not bench.ledger.claim(job)
            await bench.look()
            assert bench.waiting["bob"].done()
            bench.end("bob")
            assert bench.ledger.claim(job)

    run(scenario)


def test_who_would_wait_for_too_long_or_for_slow_clients_is_refused_at_once(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.take("alice", 80)
        assert not bench.stands("bob", 30, most_s=0.5)
        assert not bench.stands("bob", 30, most_s=-math.inf)
        sent = bench.ledger.keep(75 * MB, 0)
        assert not bench.stands("bob", 30)
        sent()
        assert bench.stands("bob", 30)

    run(scenario)


def test_the_wait_ends_when_its_time_is_over(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.take("alice", 80)
        await bench.join("bob", 30)
        bench.now += 300
        with pytest.raises(Overloaded, match="hold 80 MB and this one needs 30 MB"):
            await bench.waiting["bob"]
        bench.end("alice")
        bench.take("alice", 100)

    run(scenario)


def test_who_holds_answers_of_the_same_request_does_not_wait(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.take("alice", 60)
        series = Series(memory_bytes=10 * MB, owner=object())
        assert bench.ledger.seconds_in_line(50 * MB, 0, series, "bob", 300) > 0, "it has none yet"
        sent = bench.ledger.keep(10 * MB, 0, series.owner)
        assert bench.ledger.seconds_in_line(50 * MB, 0, series, "bob", 300) == 0
        sent()

    run(scenario)


def test_disk_is_shared_likewise(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.take("alice", 80, disk=True)
        assert bench.ledger.seconds_in_line(0, 30 * MB, SINGLE, "bob", 300) > 0
        assert bench.ledger.seconds_in_line(0, 20 * MB, SINGLE, "bob", 300) == 0
        bench.take("bob", 100)

    run(scenario)


def test_users_that_cannot_be_told_apart_are_one() -> None:
    ledger = Admission(100 * MB, 100)
    with ledger.admit(Throughput(MB), 1, 80 * MB, 60):
        assert ledger.seconds_in_line(30 * MB, 0, SINGLE, None, 300) == 0
