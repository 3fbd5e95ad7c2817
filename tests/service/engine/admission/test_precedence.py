"""What waits for memory or disk goes before what comes later, where that helps, and keeps nobody out for long."""

from __future__ import annotations

import asyncio

import pytest

from service.engine.admission.admission import Admission
from service.engine.admission.ticket import Throughput
from service.engine.errors import Overloaded, TooLargeForMemory

MB = 1_000_000
SPEED = Throughput(MB)


class Ledger(Admission):
    """10 MB of memory and of disk, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(10 * MB, 100, 10 * MB, clock=lambda: self.now)

    def refusal(self, memory: int, disk: int = 0) -> Overloaded | None:
        try:
            self.check(SPEED, MB, memory, 60, disk)
        except Overloaded as error:
            return error
        return None


def test_a_job_whose_turn_it_is_goes_before_what_comes_later_but_not_before_what_grows() -> None:
    ledger = Ledger()
    with ledger.admit(SPEED, MB, 8 * MB, 60, background=True) as job:
        with ledger.admit(SPEED, MB, 3 * MB, 60) as before:
            assert not ledger.claim(job)
            ledger.now += 4.9
            assert ledger.refusal(7 * MB) is None, "who was refused before may come in first"
            ledger.now += 0.1
            refusal = ledger.refusal(MB)
            assert refusal is not None
            assert (
                "1 requests hold 3 MB, 8 MB are kept for what has waited longer and this one needs 1 MB, "
                "the memory budget for images is 10 MB; try again in 2 s"
            ) in str(refusal)
            assert refusal.reason == "memory"
            asyncio.run(ledger.grow(before, 6 * MB))
            with pytest.raises(TooLargeForMemory, match=r"11 MB.*10 MB"):
                asyncio.run(ledger.grow(before, 2 * MB))
            assert not ledger.claim(job)
        assert ledger.claim(job)
        assert ledger.memory_in_use == 8 * MB
        asyncio.run(ledger.grow(job, 2 * MB))


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_job_keeps_nobody_out_while_answers_on_their_way_hold_what_it_needs(kind: str) -> None:
    ledger = Ledger()
    size = (3 * MB, 0) if kind == "memory" else (0, 3 * MB)
    sent, smaller = ledger.keep(*size), ledger.keep(*(part // 3 for part in size))
    with ledger.admit(SPEED, MB, 8 * MB, 3600, 8 * MB, background=True) as job:
        with ledger.admit(SPEED, MB, 3 * MB, 60, 3 * MB):
            assert not ledger.claim(job)
            ledger.now += 30
            assert ledger.refusal(3 * MB, 3 * MB) is None
            sent()
            assert not ledger.claim(job)
            refusal = ledger.refusal(MB, MB)
            assert refusal is not None, "of what is held only the request is in its way"
            assert "8 MB are kept for what has waited longer" in str(refusal)
        smaller()
        assert ledger.claim(job)


def test_no_request_is_kept_out_for_longer_than_a_minute_in_two_whoever_waits() -> None:
    ledger = Ledger()
    with (
        ledger.admit(SPEED, MB, 8 * MB, 3600, background=True) as job,
        ledger.admit(SPEED, MB, 8 * MB, 3600, background=True) as other,
        ledger.admit(SPEED, 50 * MB, 3 * MB, 3600) as before,
    ):
        assert not ledger.claim(job)
        refused = []
        for second in range(300):
            ledger.now += 1
            if second == 80:
                assert not ledger.claim(other)
            refusal = ledger.refusal(MB)
            if refusal is not None:
                refused.append(second)
                assert refusal.retry_after_s <= 64 - second % 120
        assert refused == [*range(4, 64), *range(124, 184), *range(244, 300)]
        before.memory_bytes = 2 * MB
        assert ledger.claim(job)


def test_a_package_that_waits_goes_before_what_comes_later_unless_jobs_or_answers_are_in_its_way() -> None:
    ledger = Ledger()
    with ledger.admit(SPEED, MB, 4 * MB, 60) as request:
        assert ledger.reserve(7 * MB) is None
        ledger.expect(7 * MB, 0, 4)
        assert ledger.refusal(6 * MB) is None
        ledger.expect(7 * MB, 0, 5)
        assert "hold 4 MB, 7 MB are kept for" in str(ledger.refusal(MB))
        asyncio.run(ledger.grow(request, 5 * MB))
        with ledger.admit(SPEED, MB, 3 * MB, 60, background=True) as job:
            request.memory_bytes = 3 * MB
            assert not ledger.claim(job), "both wait for the request, and the package goes first"
            ledger.expect(0)
            load = ledger.reserve(7 * MB)
            assert load is not None
            assert not ledger.claim(job)
            load()
            assert ledger.claim(job)
            for needed, nets, kept in ((8, 0, 0), (7, 1, 0), (7, 0, 7), (6, 1, 6)):
                ledger.expect(needed * MB, nets * MB, 5)
                assert (ledger.refusal(4 * MB) is None) is not bool(kept)
                sent = ledger.keep(MB, 0)
                assert (ledger.refusal(3 * MB) is None) is (needed + nets == 7 or not kept)
                sent()


def test_when_to_come_back_counts_nothing_that_a_waiting_job_does_not_hold() -> None:
    ledger = Ledger()
    ledger.keep(4 * MB, 0)
    ledger.now += 50
    with ledger.admit(SPEED, 13 * MB, 8 * MB, 3600, background=True) as job:
        assert not ledger.claim(job)
        refusal = ledger.refusal(7 * MB)
        assert refusal is not None
        assert (refusal.retry_after_s, str(refusal)[:25]) == (50, "1 requests hold 4 MB and ")
