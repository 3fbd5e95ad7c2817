"""Admission: pixels over measured speed, bytes over the budget, and when to come back."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack

import pytest

from service.engine.admission.admission import Admission
from service.engine.admission.series import Series
from service.engine.admission.ticket import Throughput
from service.engine.errors import DeadlineExceeded, Overloaded, TooLargeForMemory
from service.engine.stages.forecast import imagined
from service.engine.stages.progress import Progress
from service.engine.stages.turns import Turns

MB = 1_000_000


def test_work_is_accepted_until_the_backlog_is_full_and_the_refusal_says_when() -> None:
    admission = Admission(memory_bytes=100 * MB, max_backlog_s=10)
    speed = Throughput(1 * MB)
    with admission.admit(speed, 8 * MB, MB, 60):
        assert admission.backlog_seconds == 8
        with pytest.raises(Overloaded) as refusal, admission.admit(speed, 5 * MB, MB, 60):
            pytest.fail("13 s of work are more than 10")
    assert refusal.value.reason == "backlog"
    assert refusal.value.retry_after_s == 3
    assert "8 s of work wait" in str(refusal.value)


def test_a_request_waits_for_as_much_of_each_other_as_it_takes_itself() -> None:
    """Shares are equal: of a slide before a thumbnail no more is done than of the thumbnail, until that is done."""
    admission = Admission(100 * MB, 100)
    speed, slow = Throughput(1 * MB), Throughput(MB / 2)
    assert admission.seconds_until_done(speed, 2 * MB) == 2
    with admission.admit(speed, 50 * MB, MB, 600), admission.admit(slow, MB // 2, MB, 600):
        assert admission.seconds_until_done(speed, 2 * MB) == 2 + 2 + 1
        assert admission.backlog_seconds == 51


def test_a_request_waits_first_for_the_batch_in_work_which_nothing_interrupts() -> None:
    admission, speed, batch = Admission(100 * MB, 100), Throughput(MB), Future[None]()
    with admission.admit(speed, 50 * MB, MB, 600), admission.admit(speed, 9 * MB, MB, 600) as work:
        admission.busy_s = lambda: 6.0
        work.runs(batch, 8 * MB)
        assert admission.seconds_until_done(speed, 2 * MB) == 6 + 2 + 2 + 1, "of that in work one more waits"
        admission.check(speed, 2 * MB, MB, 11)
        with pytest.raises(DeadlineExceeded, match="ready in about 11 s"):
            admission.check(speed, 2 * MB, MB, 10.5)
        batch.set_result(None)
        work.done(8 * MB)
        admission.busy_s = lambda: 0.0
        assert admission.seconds_until_done(speed, 2 * MB) == 2 + 2 + 1


def test_those_in_the_background_count_as_one_to_others_and_each_to_one_another() -> None:
    speed, slow = Throughput(MB), Throughput(MB / 2)
    admission = Admission(100 * MB, 10, turns=3)
    with (
        admission.admit(speed, 50 * MB, MB, 600, background=True) as job,
        admission.admit(slow, MB, MB, 600, background=True) as other,
    ):
        assert admission.claim(job)
        assert admission.claim(other)
        assert admission.seconds_until_done(speed, 8 * MB) == 8 + 8
        assert admission.seconds_until_done(speed, 8 * MB, background=True) == 8 + 8 + 2
        assert admission.seconds_left(job) == 50 + 2
        with admission.admit(speed, 8 * MB, MB, 60):
            assert admission.backlog_seconds == 50 + 2 + 8
            assert admission.backlog_seconds_of(background=True) == 50 + 2
            assert admission.backlog_seconds_of(background=False) == 8
            assert admission.seconds_left(job) == 50 + 2 + 8
            with pytest.raises(Overloaded, match="8 s of work wait and this request adds 3 s, the limit is 10 s"):
                admission.check(speed, 3 * MB, MB, 60)


def test_one_in_the_background_without_a_turn_waits_for_all_before_it_and_takes_nothing_from_those() -> None:
    async def scenario() -> None:
        speed, admission = Throughput(MB), Admission(100 * MB, 1000, turns=2)
        turns = Turns(admission.order)
        header = imagined((10, 10), 1, 1)
        tasks, held, tickets = [], [AsyncExitStack() for _ in range(12)], []

        async def work(stack: AsyncExitStack) -> None:
            ticket = stack.enter_context(admission.admit(speed, 8 * MB, MB, 600, background=True))
            tickets.append(ticket)
            progress = Progress()
            progress.accept(header, ticket, admission)
            await stack.enter_async_context(turns.turn(progress))

        assert admission.seconds_until_done(speed, MB, background=True) == 1
        for stack in held:
            tasks.append(asyncio.create_task(work(stack)))
            await asyncio.sleep(0)
            if len(tasks) == 1:
                assert admission.seconds_until_done(speed, MB, background=True) == 2, "there is a turn for it"
        assert [ticket.queued for ticket in tickets] == [False] * 2 + [True] * 10
        assert admission.seconds_left(tickets[0]) == 16
        assert admission.seconds_until_done(speed, MB, background=True) == 12 * 8 + 1
        assert admission.seconds_until_done(speed, MB) == 2
        with admission.admit(speed, 20 * MB, MB, 600):
            assert admission.seconds_left(tickets[0]) == 16 + 16
            assert admission.seconds_until_done(speed, MB, background=True) == 12 * 8 + 1 + 20
        await held[0].aclose()
        await tasks[2]
        assert [ticket.queued for ticket in tickets] == [False] * 3 + [True] * 9
        for stack, task in zip(held, tasks, strict=True):
            await task
            await stack.aclose()
        assert admission.in_flight == 0

    asyncio.run(scenario())


def test_one_in_the_background_may_wait_as_long_as_it_may_take() -> None:
    admission = Admission(100 * MB, 10)
    speed = Throughput(MB)
    with admission.admit(speed, 50 * MB, MB, 100, background=True):
        admission.check(speed, 50 * MB, MB, 100, background=True)
        with pytest.raises(Overloaded, match="the limit is 99 s"):
            admission.check(speed, 50 * MB, MB, 99, background=True)


def test_jobs_leave_half_of_memory_and_disk_to_others_but_one_alone_may_have_it_all() -> None:
    admission = Admission(10 * MB, 100, 10 * MB)
    speed = Throughput(MB)
    for memory, disk in ((9 * MB, 2 * MB), (2 * MB, 9 * MB)):
        with admission.admit(speed, MB, MB, 60, MB, background=True) as first:
            assert admission.claim(first)
            with admission.admit(speed, MB, memory, 60, disk, background=True) as large:
                assert not admission.claim(large)
                assert (admission.memory_in_use, admission.disk_in_use) == (MB, MB)
                admission.check(speed, MB, 9 * MB, 60, 9 * MB)
                with admission.admit(speed, MB, 4 * MB, 60, 4 * MB, background=True) as small:
                    assert admission.claim(small)
        with admission.admit(speed, MB, memory, 60, disk, background=True) as alone:
            assert admission.claim(alone)
            assert (admission.memory_in_use, admission.disk_in_use) == (memory, disk)
    assert (admission.memory_in_use, admission.disk_in_use) == (0, 0)


def test_one_in_the_queue_keeps_nobody_out() -> None:
    admission = Admission(10 * MB, 100, 10 * MB)
    speed = Throughput(MB)
    with admission.admit(speed, MB, 10 * MB, 60, 10 * MB, background=True) as queued:
        admission.check(speed, MB, 9 * MB, 60, 9 * MB, background=True)
        with admission.admit(speed, MB, 10 * MB, 60, 10 * MB):
            admission.check(speed, MB, 10 * MB, 60, 10 * MB, background=True)
            with pytest.raises(Overloaded, match="1 requests hold 10 MB"):
                admission.check(speed, MB, MB, 60)
        with pytest.raises(TooLargeForMemory):
            admission.check(speed, MB, 11 * MB, 60, background=True)
        assert admission.claim(queued)
        with pytest.raises(Overloaded, match="1 requests hold 10 MB"):
            admission.check(speed, MB, MB, 60)


def test_those_in_the_background_get_their_room_in_their_order() -> None:
    async def scenario() -> None:
        speed, admission = Throughput(MB), Admission(10 * MB, 1000, turns=3)
        turns = Turns(admission.order)
        header, begun = imagined((10, 10), 1, 1), []
        ends = {name: asyncio.Event() for name in "abc"}

        async def work(name: str, memory: int) -> None:
            with admission.admit(speed, MB, memory, 600, background=True) as ticket:
                progress = Progress()
                progress.accept(header, ticket, admission)
                async with turns.turn(progress):
                    begun.append(name)
                    await ends[name].wait()

        async def until_begun(names: str) -> None:
            async with asyncio.timeout(20):
                while begun != list(names):  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)

        sent = admission.keep(6 * MB, 0)
        tasks = [asyncio.create_task(work(name, size * MB)) for name, size in zip("abc", (5, 8, 1), strict=True)]
        await asyncio.sleep(0.01)
        assert (begun, admission.memory_in_use) == ([], 6 * MB)
        sent()
        await until_begun("a")
        await asyncio.sleep(0.3)
        assert (begun, admission.memory_in_use) == (["a"], 5 * MB), "b is too large beside it, and c is behind b"
        ends["a"].set()
        await until_begun("ab")
        tasks[2].cancel()
        ends["b"].set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (begun, admission.memory_in_use, admission.in_flight) == (["a", "b"], 0, 0)

    asyncio.run(scenario())


def test_a_check_refuses_what_would_be_refused_and_accepts_nothing() -> None:
    admission = Admission(100 * MB, 10)
    admission.check(Throughput(MB), 8 * MB, MB, 60)
    assert admission.in_flight == 0
    with admission.admit(Throughput(MB), 8 * MB, MB, 60):
        with pytest.raises(Overloaded):
            admission.check(Throughput(MB), 8 * MB, MB, 60)
        assert admission.in_flight == 1


def test_finished_pixels_make_room() -> None:
    admission = Admission(100 * MB, 10)
    speed = Throughput(1 * MB)
    with admission.admit(speed, 8 * MB, MB, 60) as ticket:
        ticket.done(7 * MB)
        with admission.admit(speed, 5 * MB, MB, 60):
            assert admission.backlog_pixels == 6 * MB
    assert admission.in_flight == 0


def test_an_idle_service_takes_one_request_beyond_the_backlog() -> None:
    admission = Admission(100 * MB, 10)
    with admission.admit(Throughput(MB), 50 * MB, MB, 60):
        assert admission.in_flight == 1


def test_what_cannot_be_finished_in_time_is_refused_at_once() -> None:
    admission = Admission(100 * MB, 10)
    with pytest.raises(DeadlineExceeded, match="about 50 s"), admission.admit(Throughput(MB), 50 * MB, MB, 20):
        pytest.fail("50 s of work do not fit into 20")


def test_a_small_request_with_little_time_is_let_in_beside_a_large_one() -> None:
    """They take turns by pixels: it waits for no more of the other than it takes itself."""
    admission = Admission(100 * MB, 100)
    with admission.admit(Throughput(MB), 50 * MB, MB, 60):
        with admission.admit(Throughput(MB), MB, MB, 2):
            assert admission.in_flight == 2
        with pytest.raises(DeadlineExceeded, match=r"about 20 s .* allowed is 19 s"):
            admission.check(Throughput(MB), 10 * MB, MB, 19)


def test_an_image_beyond_the_whole_budget_names_the_setting() -> None:
    admission = Admission(10 * MB, 10)
    with (
        pytest.raises(TooLargeForMemory, match=r"11 MB.*10 MB.*UNET_MEMORY_BUDGET_MB"),
        admission.admit(Throughput(MB), 1, 11 * MB, 20),
    ):
        pytest.fail("more than the budget")


def test_a_full_budget_is_a_reason_to_wait() -> None:
    admission = Admission(10 * MB, 10)
    with admission.admit(Throughput(MB), 4 * MB, 8 * MB, 20), pytest.raises(Overloaded) as refusal:
        admission.admit(Throughput(MB), 1, 3 * MB, 20).__enter__()
    assert refusal.value.reason == "memory"
    assert refusal.value.retry_after_s == 4


def test_a_failed_request_gives_back_its_place() -> None:
    admission = Admission(10 * MB, 10)
    with pytest.raises(ZeroDivisionError), admission.admit(Throughput(MB), MB, MB, 20):
        raise ZeroDivisionError
    assert admission.in_flight == admission.backlog_pixels == admission.memory_in_use == 0


def test_throughput_follows_what_is_measured() -> None:
    speed = Throughput(1 * MB)
    for _ in range(30):
        speed.add(4 * MB, 2.0)
    assert speed.pixels_per_second == pytest.approx(2 * MB, rel=0.01)
    speed.add(0, 0.0)
    assert speed.pixels_per_second == pytest.approx(2 * MB, rel=0.01)


def test_many_small_batches_do_not_drown_the_measured_speed() -> None:
    speed = Throughput(MB)
    speed.add(20 * MB, 20.0)
    for _ in range(1000):
        speed.add(10, 0.001)
    assert speed.pixels_per_second > 0.8 * MB


def test_what_comes_beside_the_net_counts_against_the_time_allowed() -> None:
    speed, admission = Throughput(MB), Admission(100 * MB, 100)
    admission.check(speed, 4 * MB, MB, 8, finishing_s=12)  # an idle service tries
    late = r"would be ready in about 17 s at the measured speed, 13\.0 s of it beside the net, the time allowed is 8 s"
    with pytest.raises(DeadlineExceeded, match=late):
        admission.check(speed, 4 * MB, MB, 8, finishing_s=13)
    with admission.admit(speed, 2 * MB, MB, 8, finishing_s=3) as other:
        admission.check(speed, 4 * MB, MB, 9, finishing_s=3)  # the other one's is its own affair
        with pytest.raises(DeadlineExceeded, match=r"about 10 s .* 4\.0 s of it beside the net"):
            admission.check(speed, 4 * MB, MB, 9, finishing_s=4)
        with pytest.raises(DeadlineExceeded):
            asyncio.run(admission.go_on(other, 2 * MB, MB, 8, finishing_s=15, patient=True))
        asyncio.run(admission.go_on(other, 2 * MB, MB, 8, finishing_s=5, patient=True))
        assert other.finishing_s == 5


def test_an_idle_service_doubts_its_estimate_a_little() -> None:
    admission = Admission(100 * MB, 10)
    with admission.admit(Throughput(MB), 15 * MB, MB, 10):
        assert admission.in_flight == 1


def test_a_thread_that_goes_on_keeps_its_memory_until_it_ends() -> None:
    async def scenario() -> tuple[int, int, int]:
        admission = Admission(10 * MB, 10)
        gate = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            with admission.admit(Throughput(MB), MB, 8 * MB, 20) as ticket:
                thread = pool.submit(gate.wait, 10)
                ticket.runs(thread)
            held, backlog = admission.memory_in_use, admission.backlog_pixels
            gate.set()
            await asyncio.wrap_future(thread)
            await asyncio.sleep(0.05)
        return held, backlog, admission.memory_in_use

    assert asyncio.run(scenario()) == (8 * MB, 0, 0)


def test_a_request_may_grow_within_the_budget_only() -> None:
    admission = Admission(10 * MB, 10)
    with admission.admit(Throughput(MB), 1, 4 * MB, 20) as ticket:
        asyncio.run(admission.grow(ticket, 5 * MB))
        assert admission.memory_in_use == 9 * MB
        with pytest.raises(TooLargeForMemory, match=r"11 MB.*10 MB"):
            asyncio.run(admission.grow(ticket, 2 * MB))


def test_answers_of_the_same_caller_are_room_that_is_taken_and_nobody_elses() -> None:
    now = 0.0
    admission, speed, owner = Admission(10 * MB, 10, 10 * MB, clock=lambda: now), Throughput(MB), object()
    admission.keep(2 * MB, 3 * MB)
    now = 30.0
    admission.keep(4 * MB, 5 * MB, owner)
    series = Series(memory_bytes=4 * MB, disk_bytes=5 * MB, owner=owner)
    admission.check(speed, 1, 4 * MB, 20, 2 * MB, series=series)
    for memory, disk, words in (
        (5 * MB, 0, "1 requests hold 2 MB and this one needs 5 MB beside 4 MB of its other results, .* again in 30 s"),
        (1, 3 * MB, "1 requests hold 3 MB of the spool and this one needs 3 MB beside 5 MB of its .* again in 30 s"),
    ):
        with pytest.raises(Overloaded, match=words):
            admission.check(speed, 1, memory, 20, disk, series=series)
        with pytest.raises(Overloaded, match=words):
            admission.check_room(memory, disk, series)
    for memory, disk in ((7 * MB, 0), (1, 6 * MB)):
        with pytest.raises(TooLargeForMemory, match=r"beside \d MB of the request's other results"):
            admission.check(speed, 1, memory, 20, disk, series=series)
    with (
        admission.admit(speed, 1, 3 * MB, 20, series=series) as ticket,
        pytest.raises(TooLargeForMemory, match="7 MB beside 4 MB of the request's other results"),
    ):
        asyncio.run(admission.grow(ticket, 4 * MB))


def test_answers_that_are_yet_to_come_are_room_that_is_taken() -> None:
    admission, yet_to_come = Admission(10 * MB, 10), Series(memory_bytes=4 * MB, owner=object())
    with admission.admit(Throughput(MB), 1, 2 * MB, 20):
        admission.check_room(4 * MB, 0, yet_to_come)
        with pytest.raises(Overloaded, match="1 requests hold 2 MB and this one needs 5 MB beside 4 MB of its other"):
            admission.check_room(5 * MB, 0, yet_to_come)


def test_runs_that_are_made_in_turn_need_time_for_all_of_what_is_left() -> None:
    admission, speed = Admission(10 * MB, 100), Throughput(MB)
    admission.check(speed, 10 * MB, 1, 15)  # an idle service tries
    admission.check(speed, 10 * MB, 1, 30, series=Series(runs=3))
    several = r"the work of 3 outputs, made one after the other, .* about 30 s .* allowed is 29 s; raise the"
    with pytest.raises(DeadlineExceeded, match=several):
        admission.check(speed, 10 * MB, 1, 29, series=Series(runs=3))
    admission.check(speed, 10 * MB, 1, 40, series=Series(seconds=9.9, runs=3))
    with pytest.raises(DeadlineExceeded, match=r"about 30 s .* allowed is 40 s, 29\.5 s of it are left; raise the"):
        admission.check(speed, 10 * MB, 1, 40, series=Series(seconds=10.5, runs=3))
    with admission.admit(speed, MB, 1, 20):
        admission.check(speed, 10 * MB, 1, 20, series=Series(seconds=9))
        with pytest.raises(DeadlineExceeded, match=r"about 11 s .* allowed is 20 s, 10\.0 s of it are left; raise the"):
            admission.check(speed, 10 * MB, 1, 20, series=Series(seconds=10))


def test_an_answer_keeps_its_memory_and_its_disk_until_it_is_sent() -> None:
    admission = Admission(10 * MB, 10, 10 * MB)
    with admission.admit(Throughput(MB), 1, 4 * MB, 20):
        sent, sent_from_disk = admission.keep(6 * MB, 0), admission.keep(0, 7 * MB)
    assert (admission.in_flight, admission.memory_in_use, admission.disk_in_use) == (0, 6 * MB, 7 * MB)
    for memory, disk in ((5 * MB, 0), (0, 4 * MB)):
        with pytest.raises(Overloaded, match="2 requests hold"):
            admission.check(Throughput(MB), 1, memory, 20, disk)
    sent()
    admission.check(Throughput(MB), 1, 5 * MB, 20)
    sent_from_disk()
    assert (admission.memory_in_use, admission.disk_in_use) == (0, 0)


def test_where_answers_hold_the_memory_it_takes_as_long_again_as_they_have_taken() -> None:
    now = 0.0
    admission = Admission(10 * MB, 10, 10 * MB, clock=lambda: now)
    speed = Throughput(MB)

    def refused_for(memory: int, disk: int = 0) -> int:
        with pytest.raises(Overloaded) as refusal:
            admission.check(speed, 1, memory, 20, disk)
        assert f"try again in {refusal.value.retry_after_s} s" in str(refusal.value)
        return refusal.value.retry_after_s

    admission.keep(4 * MB, 0)
    now = 100.0
    admission.keep(0, 9 * MB)
    now = 110.0
    sent = admission.keep(4 * MB, 0)
    now = 117.2
    assert refused_for(3 * MB) == 8, "the younger one is enough"
    assert refused_for(7 * MB) == 60, "both have to go, which takes a minute at most"
    assert refused_for(1, 3 * MB) == 18
    with admission.admit(speed, 9 * MB, 2 * MB, 20):
        assert refused_for(2 * MB) == 9, "that one is through by then"
        assert refused_for(9 * MB) == 60
    sent()
    assert refused_for(7 * MB) == 60
    admission.keep(6 * MB, 0)
    assert refused_for(2 * MB) == 1


def test_one_in_the_background_goes_on_before_those_in_the_queue() -> None:
    async def scenario() -> None:
        speed, admission = Throughput(MB), Admission(10 * MB, 10, 10 * MB, turns=1)
        with (
            admission.admit(speed, MB, MB, 100, background=True) as first,
            admission.admit(speed, 98 * MB, 5 * MB, 100, background=True) as queued,
        ):
            assert admission.claim(first)
            first.done(MB)
            await admission.go_on(first, 90 * MB, 9 * MB, 100, MB, patient=True)
            assert (first.pixels_left, admission.memory_in_use) == (90 * MB, 0), "it holds nothing before its claim"
            assert admission.claim(first)
            assert (admission.memory_in_use, admission.disk_in_use) == (9 * MB, MB)
            assert not admission.claim(queued)
            with pytest.raises(DeadlineExceeded, match="ready in about 101 s"):
                await admission.go_on(first, 101 * MB, MB, 100, patient=True)
            with pytest.raises(TooLargeForMemory):
                await admission.go_on(first, MB, 11 * MB, 100, patient=True)

    asyncio.run(scenario())


def test_one_that_somebody_waits_for_goes_on_with_what_it_holds() -> None:
    async def scenario() -> None:
        speed, admission = Throughput(MB), Admission(10 * MB, 10, 10 * MB)
        with admission.admit(speed, MB, 4 * MB, 60, MB) as asked, admission.admit(speed, MB, 3 * MB, 60, 3 * MB):
            with pytest.raises(Overloaded, match="1 requests hold 3 MB and this one needs 8 MB"):
                await admission.go_on(asked, MB, 8 * MB, 60, patient=False)
            with pytest.raises(Overloaded, match="hold 3 MB of the spool and this one needs 8 MB"):
                await admission.go_on(asked, MB, MB, 60, 8 * MB, patient=True)
            with pytest.raises(Overloaded, match="1 s of work wait and this request adds 10 s"):
                await admission.go_on(asked, 10 * MB, MB, 60, patient=True)
            assert (asked.pixels_left, admission.memory_in_use, admission.disk_in_use) == (MB, 7 * MB, 4 * MB)
            await admission.go_on(asked, 2 * MB, 7 * MB, 60, patient=False)
            assert (asked.pixels_left, admission.memory_in_use, admission.disk_in_use) == (2 * MB, 10 * MB, 3 * MB)
            await admission.go_on(asked, MB, MB, 60, patient=True)
            assert admission.memory_in_use == 4 * MB

    asyncio.run(scenario())
