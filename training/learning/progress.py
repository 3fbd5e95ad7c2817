"""How far a run has come: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from tqdm import tqdm

from training.options import Schedule

if TYPE_CHECKING:
    _Tqdm = tqdm[NoReturn]
else:
    _Tqdm = tqdm  # generic in its stubs alone

_log = logging.getLogger(__name__)
_LINES = 20  # of a whole run in a log: one every 5 %
_FIRST_LINE_S = 60.0  # nobody waits longer to learn how long it takes
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{spent}<{left}, {rate_fmt}{postfix}]"


class Progress:
    """What is shown of a run.

    The time left follows from the pace of this sitting, validations included, or from ``max_minutes`` where the clock
    ends the run before its steps do; the bar's total is then the step that it will end with.

    Parameters
    ----------
    schedule
        The run's schedule.
    name
        Shown before the bar.
    step, elapsed_s
        Steps done before this sitting, and seconds spent on them.
    stream
        Where to; standard error where None. A bar where it is a terminal, else lines of the log.

    """

    def __init__(
        self,
        schedule: Schedule,
        name: str,
        *,
        step: int = 0,
        elapsed_s: float = 0.0,
        stream: TextIO | None = None,
    ) -> None:
        self._schedule = schedule
        self._start = (step, elapsed_s)
        self._stream = sys.stderr if stream is None else stream
        self._lines = int(_LINES * share_done(schedule, step, elapsed_s))
        self._spoken = False
        self._bar: _Bar | None = None
        if self._stream.isatty():
            self._bar = _Bar(
                total=schedule.steps,
                initial=step,
                desc=name,
                unit="step",
                mininterval=1,
                smoothing=0.05,
                bar_format=_BAR,
                dynamic_ncols=True,
                file=self._stream,
            )

    def advance(self, step: int, elapsed_s: float, loss: float, rate: float) -> None:
        """Tell that ``step`` steps are done after ``elapsed_s`` seconds over all sittings."""
        left_s = self.seconds_left(step, elapsed_s)
        if self._bar is not None:
            if self._schedule.max_minutes is not None and elapsed_s > self._start[1]:
                pace = (step - self._start[0]) / (elapsed_s - self._start[1])
                self._bar.total = min(self._schedule.steps, max(step, round(step + left_s * pace)))
            self._bar.spent_s, self._bar.left_s = elapsed_s, left_s
            self._bar.set_postfix(loss=f"{loss:.4f}", lr=f"{rate:.1e}", refresh=False)
            self._bar.update(step - self._bar.n)
            return
        share = share_done(self._schedule, step, elapsed_s)
        lines, waited_s = int(_LINES * share), elapsed_s - self._start[1]
        if lines > self._lines or (not self._spoken and waited_s >= _FIRST_LINE_S):
            self._lines, self._spoken = lines, True
            _log.info(
                "step %d of at most %d (%.0f %%): loss %.4f, %.1f minutes done, %.1f left",
                step,
                self._schedule.steps,
                100 * share,
                loss,
                elapsed_s / 60,
                left_s / 60,
            )

    def validated(self, step: int, figures: Mapping[str, float]) -> None:
        """Tell the figures of a validation."""
        line = f"step {step}: validation " + "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            _log.info("%s", line)

    def seconds_left(self, step: int, elapsed_s: float) -> float:
        """Seconds until the run ends, by its steps or by the clock, whichever comes first."""
        limits = []
        steps = step - self._start[0]
        if steps > 0:
            limits.append((self._schedule.steps - step) * (elapsed_s - self._start[1]) / steps)
        if self._schedule.max_minutes is not None:
            limits.append(self._schedule.max_minutes * 60 - elapsed_s)
        return max(0.0, min(limits, default=0.0))

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def share_done(schedule: Schedule, step: int, elapsed_s: float) -> float:
    """Elapsed fraction of a run, 0 to 1: of its steps, or of its minutes where they run out sooner."""
    fractions = [step / schedule.steps]
    if schedule.max_minutes is not None:
        fractions.append(elapsed_s / 60 / schedule.max_minutes)
    return min(1.0, max(fractions))


class _Bar(_Tqdm):
    """A bar that takes times from outside: tqdm knows neither earlier sittings nor ``max_minutes``."""

    spent_s: float = 0.0
    left_s: float | None = None

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the format may name."""
        left = "?" if self.left_s is None else self.format_interval(self.left_s)
        return {**super().format_dict, "spent": self.format_interval(self.spent_s), "left": left}
