"""How far a batch is and how long it will take: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from tqdm import tqdm

_FIRST_LINE_S = 10.0
_LINE_S = 60.0


class Progress:
    """What is shown of a batch; the time left follows from the bytes of the images that are done and still to do.

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
        self._bar = None
        if self._stream.isatty() and images > 1:
            self._bar = tqdm(
                total=size_bytes, unit="B", unit_scale=True, smoothing=0.05, dynamic_ncols=True, file=self._stream
            )
            self._bar.set_postfix_str(self.counts())

    def advance(self, size_bytes: int, *, failed: bool) -> None:
        """Tell that one more image is done, well or not."""
        self._done += 1
        self._done_bytes += size_bytes
        self._failed += failed
        if self._bar is not None:
            self._bar.set_postfix_str(self.counts(), refresh=False)
            self._bar.update(size_bytes)
        elif self._done < self._images:
            self.look(())

    def look(self, waits_for: Sequence[str]) -> None:
        """Show how far it is where that is due, though no image is done.

        Parameters
        ----------
        waits_for
            Why images in work wait, a sentence for each.

        """
        waits = f"{len(waits_for)} wait: {waits_for[0]}" if waits_for else ""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.counts()}{waits and ', '}{waits}")
        elif self._clock() >= self._next_line:
            self._next_line = self._clock() + _LINE_S
            left = f", {tqdm.format_interval(round(self.seconds_left()))} left" if self._share() else ""
            share = f"{100 * self._share():.0f} % of the bytes{left}"
            self._stream.write(f"{self.counts()}, {share}{waits and '; '}{waits}\n")
            self._stream.flush()

    def seconds_left(self) -> float:
        """Seconds until all is done, at the pace so far; infinite while nothing is."""
        share = self._share()
        return (self._clock() - self._started) * (1 / share - 1) if share else float("inf")

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _share(self) -> float:
        # images that cannot be found have no size
        return self._done_bytes / self._bytes if self._bytes else self._done / max(1, self._images)

    def counts(self) -> str:
        """How many images are done, and how many of them failed."""
        failed = f" ({self._failed} failed)" if self._failed else ""
        return f"{self._done} of {self._images} images{failed}"
