"""How far a batch is and how long it will take: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

from tqdm import tqdm

from model.wording import counted

_FIRST_LINE_S = 10.0
_LINE_S = 60.0
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


class Progress:
    """What is shown of a batch; the time left follows from the bytes of the images that are done and still to do.

    Of an image in work as large a share of its bytes counts as of its pixels are through the net, where that is known:
    one may be nearly all of the work. From one gain to the next the time left runs down; once it is over none is known.

    Parameters
    ----------
    images, size_bytes
        What this process has to do.
    stream
        Where to; standard error where None.
    clock
        Seconds, from any start.

    """

    def __init__(
        self,
        images: int,
        size_bytes: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._images = images
        self._bytes = size_bytes
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._started = clock()
        self._next_line = self._started + _FIRST_LINE_S
        self._done = self._done_bytes = self._failed = 0
        self._begun_bytes = 0.0
        self._gained_at = self._started
        self._bar = None
        if self._stream.isatty() and images > 1:
            self._bar = tqdm(
                total=size_bytes, unit="B", unit_scale=True, dynamic_ncols=True, bar_format=_BAR, file=self._stream
            )
            self._bar.set_postfix_str(self.counts())

    def advance(self, size_bytes: int, *, failed: bool) -> None:
        """Tell that one more image is done, well or not."""
        self._done += 1
        self._done_bytes += size_bytes
        self._failed += failed
        self._gained_at = self._clock()
        self._begun_bytes = max(0.0, self._begun_bytes - size_bytes)
        if self._bar is not None:
            self._show(self._bar)
        elif self._done < self._images:
            self.look((), self._begun_bytes)

    def look(self, waits_for: Sequence[str], begun_bytes: float) -> None:
        """Show how far it is where that is due, though no image is done.

        Parameters
        ----------
        waits_for
            Why images in work wait, a sentence for each.
        begun_bytes
            Of the images in work, what is done of them.

        """
        if begun_bytes != self._begun_bytes:
            self._begun_bytes, self._gained_at = begun_bytes, self._clock()
        waits = f"{len(waits_for)} wait: {waits_for[0]}" if waits_for else ""
        if self._bar is not None:
            self._show(self._bar, f"{waits and ', '}{waits}")
            self._bar.refresh()
        elif self._clock() >= self._next_line:
            self._next_line = self._clock() + _LINE_S
            share = f"{100 * self._share():.0f} % of the bytes"
            self._stream.write(f"{self.counts()}, {share}{self._left()}{waits and '; '}{waits}\n")
            self._stream.flush()

    def seconds_left(self) -> float:
        """Seconds until all is done, at the pace until the last gain; infinite without one, and where they are over."""
        share = self._share()
        if not 0 < share < 1:
            return 0.0 if share else math.inf
        left_s = (self._gained_at - self._started) * (1 / share - 1) - (self._clock() - self._gained_at)
        return left_s if left_s > 0 else math.inf

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _share(self) -> float:
        # images that cannot be found have no size
        if not self._bytes:
            return self._done / max(1, self._images)
        return min(1.0, (self._done_bytes + self._begun_bytes) / self._bytes)

    def _left(self) -> str:
        seconds = self.seconds_left()
        return f", {tqdm.format_interval(round(seconds))} left" if 0 < seconds < math.inf else ""

    def _show(self, bar: tqdm[NoReturn], more: str = "") -> None:
        bar.set_postfix_str(f"{self.counts()}{self._left()}{more}", refresh=False)
        bar.update(round(self._share() * self._bytes) - bar.n)

    def counts(self) -> str:
        """How many images are done, and how many of them failed."""
        failed = f" ({self._failed} failed)" if self._failed else ""
        return f"{self._done} of {counted(self._images, 'image')}{failed}"
