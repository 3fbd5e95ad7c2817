"""Seconds beside the net: reading, resampling, finding objects and writing, told by what images took lately.

Until there is one, a rule of thumb stands for it: where the net is fast, all else is most of what a request takes.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from service.engine.admission.ticket import Throughput
from service.engine.request import SegmentRequest
from service.formats import OutputKind

_LEAST_PIXELS = 512 * 512  # an image of less says little of large ones, and takes next to nothing itself
_LATELY = 8  # images
_LATELY_S = 300.0  # who is refused corrects nothing: after so long it is tried again
_AT_LEAST = 2  # images; one may have been an exception
_MOST_LARGER = 4  # times as large as one that was measured; of small images a part is the same for all sizes
_USUAL_NS: Mapping[OutputKind, float] = {"mask": 15, "labels": 200, "probabilities": 200}
"""For each pixel, of one core: a 16 bit image of cells, on an AMD EPYC (family 23)."""
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

    def seconds(self, request: SegmentRequest, pixels: int) -> float:
        """Say what so many pixels will take: as images that were asked for alike, else as any of the same output.

        Of several kinds of these the slowest stands for it; where there were none, the rule of thumb.
        """
        own = self._speeds.get(_kind(request))
        alike = [own] if own else [speed for (output, *_), speed in self._speeds.items() if output == request.output]
        if not alike:
            return pixels * _USUAL_NS[request.output] * 1e-9
        return pixels / min(speed.pixels_per_second for speed in alike)

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
