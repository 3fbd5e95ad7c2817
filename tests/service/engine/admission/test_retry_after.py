"""When who is refused for want of memory may come back: once requests that share the net have left enough of it."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.admission.admission import Admission
from service.engine.admission.ticket import Throughput
from service.engine.errors import Overloaded


@dataclass(frozen=True)
class Held:
    """A request in work. Speeds are powers of two, so that no sum of seconds is rounded."""

    pixels: int
    pixels_per_second: float
    memory_bytes: int
    background: bool
    finishing_s: float = 0.0


HELD = st.builds(
    Held,
    st.integers(0, 200),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from([0.0, 0.0, 0.5, 100.0]),
)


def told_s(work: list[Held], needed: int, budget: int, answers: int = 0) -> int:
    """Seconds after which to come back; 0 where there is room."""
    admission = Admission(budget, math.inf, turns=len(work), clock=lambda: 0.0)
    with ExitStack() as stack:
        for held in work:
            speed = Throughput(held.pixels_per_second)
            admitted = partial(admission.admit, speed, held.pixels, held.memory_bytes, math.inf)
            ticket = stack.enter_context(admitted(background=held.background, finishing_s=held.finishing_s))
            assert not held.background or admission.claim(ticket)
        admission.keep(answers, 0)
        try:
            admission.check(Throughput(1.0), 1, needed, math.inf)
        except Overloaded as refusal:
            return refusal.retry_after_s if refusal.reason == "memory" else -1
    return 0


def seconds_of_equal_shares(work: list[Held], missing: int) -> Fraction:
    """All at once, step by step: each has an equal share of the net, those in the background one together.

    What comes beside the net it does after that, whatever the others do.
    """
    left = [(Fraction(held.pixels) / Fraction(held.pixels_per_second), held) for held in work]
    now, ends = Fraction(0), []
    while True:
        ends += [(now + Fraction(held.finishing_s), held.memory_bytes) for seconds, held in left if not seconds]
        left = [(seconds, held) for seconds, held in left if seconds]
        if not left:
            freed = accumulate(memory_bytes for _, memory_bytes in sorted(ends))
            return next(end for (end, _), size in zip(sorted(ends), freed, strict=True) if size >= missing)
        behind = sum(held.background for _, held in left)
        shares = len(left) - behind + min(1, behind)
        paces = [Fraction(1, shares * (behind if held.background else 1)) for _, held in left]
        step = min(seconds / pace for (seconds, _), pace in zip(left, paces, strict=True))
        now += step
        left = [(seconds - step * pace, held) for (seconds, held), pace in zip(left, paces, strict=True)]


@pytest.mark.parametrize("count", [1, 4, 8])
def test_equal_requests_end_together(count: int) -> None:
    assert told_s([Held(10, 1.0, 8 // count, background=False)] * count, 1, 8) == 10 * count


def test_only_those_are_waited_for_whose_memory_is_missing() -> None:
    work = [Held(100, 1.0, 4, background=False), Held(10, 1.0, 4, background=False)]
    assert told_s(work, 4, 8) == 20
    assert told_s(work, 5, 8) == 110


def test_who_is_past_the_net_holds_its_memory_until_it_has_finished() -> None:
    admission, taken_s = Admission(10, 1000, clock=lambda: 0.0), 0.0

    def told() -> int:
        with pytest.raises(Overloaded) as refusal:
            admission.check(Throughput(1.0), 1, 5, math.inf)
        return refusal.value.retry_after_s

    with admission.admit(Throughput(1.0), 20, 8, math.inf, finishing_s=30) as ticket:
        ticket.beside = lambda: taken_s
        assert told() == 50
        taken_s = 4.0  # it has been read
        assert told() == 46
        taken_s = 31.0
        assert told() == 20, "it is late, and how much is beside the net is not known"
        ticket.done(20)
        taken_s = 4.0
        assert told() == 26
        taken_s = 29.5
        assert told() == 1
        taken_s = 33.0
        assert told() == 33, "it may take as long again as it has taken"
        taken_s = 100.0
        assert told() == 60
        ticket.abandoned = True
        assert told() == 1, "a thread looks up now and then whether anybody still wants it"


@given(st.lists(HELD, min_size=1, max_size=8), st.data())
def test_the_time_told_is_the_one_at_which_equal_shares_leave_enough(work: list[Held], data: st.DataObject) -> None:
    total = sum(held.memory_bytes for held in work)
    missing = data.draw(st.integers(1, total))
    # half of the memory is left to requests that somebody waits for, and answers on their way hold it
    assert told_s(work, missing, 2 * total, answers=total) == max(1, math.ceil(seconds_of_equal_shares(work, missing)))


@given(st.lists(HELD, min_size=2, max_size=8), st.data())
def test_nobody_is_told_more_with_fewer_requests_in_work(work: list[Held], data: st.DataObject) -> None:
    total = sum(held.memory_bytes for held in work)
    needed = data.draw(st.integers(total + 1, 2 * total))
    assert told_s(work[1:], needed, 2 * total) <= told_s(work, needed, 2 * total)
