"""Seconds beside the net: reading, resampling, finding objects and writing, told by what images took lately."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from service.engine.request import SegmentRequest
from service.engine.ticket import Throughput

_LEAST_PIXELS = 512 * 512  # an image of less says little of large ones, and takes next to nothing itself
_LATELY = 8  # images
_LATELY_S = 300.0  # who is refused corrects nothing: after so long it is tried again
_AT_LEAST = 2  # images; one may have been an exception
_MOST_LARGER = 4  # times as large as one that was measured; of small images a part is the same for all sizes
_Kind: TypeAlias = tuple[str, str, bool]


class _Finished(NamedTuple):
    at_s: float
    pixels: int
    scale: float
    seconds: float


class Finishing:
    """Measured speeds of one model's requests beside its net, image pixels per second, by what was asked for.

    Parameters
    ----------
    clock
        Seconds, from any start.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._speeds: dict[_Kind, Throughput] = {}
        self._lately: dict[_Kind, deque[_Finished]] = defaultdict(lambda: deque(maxlen=_LATELY))

    def add(self, request: SegmentRequest, pixels: int, seconds: float) -> None:
        """Take in one request, of so many image pixels in all planes, that took so long beside the net."""
        if pixels < _LEAST_PIXELS or seconds <= 0:
            return
        kind = _kind(request)
        self._lately[kind].append(_Finished(self._clock(), pixels, request.scale or 1.0, seconds))
        if speed := self._speeds.get(kind):
            speed.add(pixels, seconds)
        else:
            self._speeds[kind] = Throughput(pixels / seconds)

    def seconds(self, request: SegmentRequest, pixels: int) -> float | None:
        """Say what so many pixels will take; None where nothing like it has been through yet."""
        speed = self._speeds.get(_kind(request))
        return None if speed is None else pixels / speed.pixels_per_second

    def least_seconds(self, request: SegmentRequest, pixels: int) -> float:
        """Say what so many pixels will take at least, to refuse a request for; 0 where too little is known for that.

        It is what the fastest of the last images took, which have to be two, not much smaller, and at no larger scale.
        """
        since_s, scale = self._clock() - _LATELY_S, request.scale or 1.0
        found = [
            pixels / one.pixels * one.seconds
            for one in self._lately.get(_kind(request), ())
            if one.at_s >= since_s and pixels <= _MOST_LARGER * one.pixels and one.scale <= scale
        ]
        return min(found) if len(found) >= _AT_LEAST else 0.0


def _kind(request: SegmentRequest) -> _Kind:
    return request.output, request.format, request.scale is not None
