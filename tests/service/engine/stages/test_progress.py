"""How long a request will still take."""

from __future__ import annotations

from datetime import timedelta

from service.engine.admission.admission import Admission
from service.engine.admission.ticket import Throughput
from service.engine.stages.forecast import imagined
from service.engine.stages.progress import Progress

MB = 1_000_000


def test_what_comes_beside_the_net_counts_until_it_is_done() -> None:
    admission, progress, taken_s = Admission(100 * MB, 1000), Progress(), 0.0

    def left() -> float | None:
        return progress.seconds_left

    with admission.admit(Throughput(MB), 8 * MB, MB, 600) as ticket:
        ticket.beside = lambda: taken_s
        progress.accept(imagined((1000, 1000), 1, 1), ticket, admission, 3.0, preparing=True)
        assert left() is None
        progress.accept(imagined((1000, 1000), 1, 1), ticket, admission, 3.0)
        assert left() == 8 + 3
        taken_s = 0.5
        ticket.done(6 * MB)
        assert left() == 2 + 2.5
        ticket.done(2 * MB)
        assert left() == 2.5
        taken_s = 2.0
        assert left() == 1
        taken_s = 3.5
        assert left() is None, "it takes longer than was expected"
        taken_s = 2.0
        progress.end()
        assert left() is None


def test_a_clock_that_is_set_is_no_wait() -> None:
    admission, progress = Admission(100 * MB, 1000), Progress()
    with admission.admit(Throughput(MB), MB, MB, 600, background=True) as ticket:
        progress.accept(imagined((1000, 1000), 1, 1), ticket, admission)
        progress.made_at -= timedelta(hours=1)
        assert not progress.waiting
        progress.begin()
        assert not progress.waiting
