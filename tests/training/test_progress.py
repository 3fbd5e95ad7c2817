"""Progress of a run: a bar on a terminal, lines in a log, and the time left by whatever ends the run first."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from training.learning.progress import Progress, share_done
from training.options import Schedule


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """Both ends of a pseudo-terminal: what is written to the second is read from the first."""
    reader, writer = os.openpty()
    termios.tcsetwinsize(writer, (24, 120))
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        yield reader, stream
    os.close(reader)


def everything_from(reader: int) -> str:
    os.set_blocking(reader, False)
    read = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            read += os.read(reader, 4096)  # a pseudo-terminal gives no more at once
    return read.decode()


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_steps_set_the_time_left_by_the_pace_of_this_sitting() -> None:
    progress = Progress(Schedule(steps=100), "run", step=20, elapsed_s=1000, stream=io.StringIO())
    # 20 steps took 40 s since the run was resumed: 60 more take 120 s
    assert progress.seconds_left(40, 1040) == pytest.approx(120)


@pytest.mark.parametrize(
    ("max_minutes", "left_s"),
    [(None, 990.0), (10.0, 590.0), (60.0, 990.0)],  # 1 s a step, 990 steps to go after 10 s
)
def test_the_clock_sets_the_time_left_where_it_ends_the_run_first(max_minutes: float | None, left_s: float) -> None:
    progress = Progress(Schedule(steps=1000, max_minutes=max_minutes), "run", stream=io.StringIO())
    assert progress.seconds_left(10, 10.0) == pytest.approx(left_s)


def test_no_time_is_left_after_the_end() -> None:
    progress = Progress(Schedule(steps=1000, max_minutes=1), "run", stream=io.StringIO())
    assert progress.seconds_left(10, 65.0) == 0


def test_a_log_receives_a_line_every_five_percent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "training")
    stream = io.StringIO()
    progress = Progress(Schedule(steps=200), "run", stream=stream)
    for step in range(1, 201):
        progress.advance(step, step * 0.3, loss=0.5, rate=0.1)
    progress.close()
    lines = messages(caplog)
    assert len(lines) == 20
    assert lines[0] == "step 10 of at most 200 (5 %): loss 0.5000, 0.1 minutes done, 0.9 left"
    assert lines[-1] == "step 200 of at most 200 (100 %): loss 0.5000, 1.0 minutes done, 0.0 left"
    assert stream.getvalue() == ""  # neither a bar nor a carriage return


def test_the_first_line_of_a_long_run_comes_after_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "training")
    progress = Progress(Schedule(steps=100_000), "run", elapsed_s=500, stream=io.StringIO())
    for step in range(1, 101):
        progress.advance(step, 500 + step, loss=0.5, rate=0.1)
    assert [line.split(":")[0] for line in messages(caplog)] == ["step 60 of at most 100000 (0 %)"]


def test_a_resumed_run_repeats_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "training")
    progress = Progress(Schedule(steps=100), "run", step=50, elapsed_s=50, stream=io.StringIO())
    progress.advance(51, 51, loss=0.5, rate=0.1)
    assert messages(caplog) == []
    progress.advance(55, 55, loss=0.5, rate=0.1)
    assert len(messages(caplog)) == 1


def test_a_log_receives_the_figures_of_a_validation(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "training")
    Progress(Schedule(), "run", stream=io.StringIO()).validated(30, {"iou": 0.91234, "ap@0.5": 0.5})
    assert messages(caplog) == ["step 30: validation iou 0.9123  ap@0.5 0.5000"]


def test_a_terminal_shows_the_step_and_the_time_at_which_the_clock_will_end_the_run(
    terminal: tuple[int, TextIO],
) -> None:
    reader, stream = terminal
    progress = Progress(Schedule(steps=30_000, max_minutes=60), "nuclei", stream=stream)
    progress.advance(150, 60.0, loss=0.25, rate=1e-3)
    progress.validated(150, {"iou": 0.5})
    progress.close()
    stream.flush()
    shown = everything_from(reader)
    assert "step 150: validation iou 0.5000" in shown
    # 2.5 steps a second for 59 more minutes
    assert re.search(r"nuclei: +2%\|.*\| 150/9000 \[01:00<59:00, .*loss=0\.2500, lr=1\.0e-03", shown)


@pytest.mark.parametrize(("step", "elapsed_s", "share"), [(50, 0.0, 0.5), (10, 30.0, 0.5), (200, 0.0, 1.0)])
def test_the_share_done_is_that_of_what_runs_out_first(step: int, elapsed_s: float, share: float) -> None:
    assert share_done(Schedule(steps=100, max_minutes=1), step, elapsed_s) == pytest.approx(share)
