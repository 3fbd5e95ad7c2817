"""Seconds beside the net: reading, resampling, finding objects and writing, told by what images took lately."""

from __future__ import annotations

from typing import TypeAlias

from service.engine.request import SegmentRequest
from service.engine.ticket import Throughput

_LEAST_PIXELS = 512 * 512  # an image of less says little of large ones, and takes next to nothing itself
_Kind: TypeAlias = tuple[str, str, bool]


class Finishing:
    """Measured speeds of one model's requests beside its net, image pixels per second, by what was asked for."""

    def __init__(self) -> None:
        self._speeds: dict[_Kind, Throughput] = {}

    def add(self, request: SegmentRequest, pixels: int, seconds: float) -> None:
        """Take in one request, of so many image pixels in all planes, that took so long beside the net."""
        if pixels < _LEAST_PIXELS or seconds <= 0:
            return
        if speed := self._speeds.get(_kind(request)):
            speed.add(pixels, seconds)
        else:
            self._speeds[_kind(request)] = Throughput(pixels / seconds)

    def seconds(self, request: SegmentRequest, pixels: int) -> float | None:
        """Say what so many pixels will take; None where nothing like it has been through yet."""
        speed = self._speeds.get(_kind(request))
        return None if speed is None else pixels / speed.pixels_per_second


def _kind(request: SegmentRequest) -> _Kind:
    return request.output, request.format, request.scale is not None
