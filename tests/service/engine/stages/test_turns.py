"""Turns of requests that nobody waits for: users share them by seconds of the net, and are told what comes of that."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from service.engine.admission.admission import Admission
from service.engine.admission.ticket import Throughput, Ticket
from service.engine.errors import Overloaded
from service.engine.stages.forecast import imagined
from service.engine.stages.progress import Progress
from service.engine.stages.turns import Turns

MB = 1_000_000
SPEED = Throughput(MB)


class Service:
    """Admission and turns; jobs begin and end as they are told."""

    def __init__(self, turns: int = 2, max_backlog_s: float = 10_000) -> None:
        self.admission = Admission(1000 * MB, max_backlog_s, turns=turns)
        self.turns = Turns(self.admission.order)
        self.begun: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.tickets: dict[str, Ticket] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def send(self, *names: str, seconds: int = 8) -> None:
        """Jobs ``a1``, ``a2``, ... are those of user ``a``."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._job(name, seconds))
            await asyncio.sleep(0)

    async def end(self, *names: str) -> None:
        for name in names:
            self.tickets[name].done(self.tickets[name].pixels_left)
            self._ends[name].set()
            await self.tasks[name]
            await asyncio.sleep(0)

    async def delete(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.gather(self.tasks[name], return_exceptions=True)

    async def _job(self, name: str, seconds: int) -> None:
        with self.admission.admit(SPEED, seconds * MB, MB, 10_000, background=True, user=name[0]) as ticket:
            self.tickets[name] = ticket
            progress = Progress()
            progress.accept(imagined((10, 10), 1, 1), ticket, self.admission)
            async with self.turns.turn(progress):
                self.begun.append(name)
                await self._ends[name].wait()

    async def end_all(self) -> None:
        while left := [name for name in self.begun if not self.tasks[name].done()]:
            await self.end(*left)
        assert self.admission.in_flight == 0


def test_who_comes_with_one_job_gets_the_next_turn_before_all_that_another_user_has_waiting() -> None:
    async def scenario() -> None:
        service = Service()
        await service.send(*(f"a{number}" for number in range(9)))
        assert service.begun == ["a0", "a1"]
        left_s = service.admission.seconds_until_done(SPEED, MB, background=True, user="b")
        assert left_s == 16 + 2, "both in work are through at once; then there is one more of the other user beside it"
        assert service.admission.seconds_until_done(SPEED, MB, background=True, user="a") == 8 * 8 + 2
        await service.send("b0", "b1", "b2")
        await service.end("a0", "a1")
        assert service.begun[2:] == ["b0", "a2"], "equal in seconds after that: the one that came first"
        await service.end("b0", "a2")
        assert service.begun[4:] == ["b1", "a3"]
        await service.end_all()

    asyncio.run(scenario())


def test_shares_are_of_seconds_and_not_of_jobs() -> None:
    async def scenario() -> None:
        service = Service(turns=1)
        await service.send("c0", seconds=1)
        await service.send("a0", "a1", seconds=40)
        await service.send(*(f"b{number}" for number in range(5)), seconds=10)
        assert service.admission.seconds_until_done(SPEED, MB, background=True, user="b") == 1 + 40 + 50 + 40 + 1
        await service.end_all()
        assert service.begun == ["c0", "a0", "b0", "b1", "b2", "b3", "a1", "b4"]

    asyncio.run(scenario())


def test_one_user_or_none_is_served_first_come_first_served_however_long_they_take() -> None:
    async def scenario() -> None:
        service = Service(turns=1)
        for number, seconds in enumerate((5, 100, 1, 50)):
            await service.send(f"a{number}", seconds=seconds)
        await service.end_all()
        assert service.begun == ["a0", "a1", "a2", "a3"]

    asyncio.run(scenario())


def test_who_had_no_jobs_for_long_has_saved_nothing_up() -> None:
    async def scenario() -> None:
        service = Service(turns=1)
        await service.send(*(f"a{number}" for number in range(20)))
        await service.end(*(f"a{number}" for number in range(10)))
        await service.send(*(f"b{number}" for number in range(3)))
        await service.end_all()
        assert service.begun[10:16] == ["a10", "b0", "a11", "b1", "a12", "b2"]

    asyncio.run(scenario())


def test_who_deletes_a_job_gets_back_the_seconds_that_nobody_worked() -> None:
    async def scenario() -> None:
        service = Service(turns=1)
        await service.send("a0", seconds=100)
        await service.send("a1", "b0", "b1", "b2")
        service.tickets["a0"].done(10 * MB)
        await service.delete("a0")
        await service.end("b0", "b1")
        assert service.begun == ["a0", "b0", "b1", "a1"], "10 s were worked for user a then, and 16 s for user b"
        await service.end_all()

    asyncio.run(scenario())


def test_a_turn_goes_on_to_the_next_when_who_waits_or_is_let_in_goes_away() -> None:
    async def scenario() -> None:
        service = Service(turns=1)
        await service.send("a0", "a1", "a2", "a3")
        service.tasks["a1"].cancel()
        service._ends["a0"].set()
        asyncio.get_running_loop().call_soon(service.tasks["a2"].cancel)  # it has its turn then, and does not know yet
        for _ in range(3):
            await asyncio.sleep(0)
        assert service.begun == ["a0", "a3"]
        await service.end_all()
        assert service.turns._free == 1

    asyncio.run(scenario())


def test_a_user_within_an_equal_share_is_accepted_where_another_has_filled_the_time_that_there_is() -> None:
    admission = Admission(1000 * MB, 10)

    def check(user: str, seconds: int) -> None:
        admission.check(SPEED, seconds * MB, MB, 100, background=True, user=user)

    with ExitStack() as held:
        for _ in range(10):
            held.enter_context(admission.admit(SPEED, 10 * MB, MB, 100, background=True, user="a"))
        with pytest.raises(
            Overloaded, match=r"^100 s of work wait and this request adds 1 s, the limit is 100 s; try "
        ):
            check("a", 1)
        check("b", 50)
        with pytest.raises(
            Overloaded, match="0 s of that are jobs of the user who asks, of 2 users each may have 50 s"
        ):
            check("b", 51)
        held.enter_context(admission.admit(SPEED, 30 * MB, MB, 100, background=True, user="b"))
        check("b", 20)
        with pytest.raises(Overloaded, match="30 s of that are jobs of the user who asks") as refusal:
            check("b", 25)
        assert refusal.value.retry_after_s == 10, "then half of 10 s are done of his own"
        with pytest.raises(Overloaded, match="100 s of that are jobs of the user who asks"):
            check("a", 1)
