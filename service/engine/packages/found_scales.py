"""Scales that searches of ``scale=auto`` found lately: what the next image is likely to take, before it is searched."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from statistics import median

from service.engine.admission.ticket import Later
from service.engine.errors import BadParameter
from service.engine.images.scaling import check_scale, four_digits, other_scale
from service.engine.request import SegmentRequest

_LATELY = 8  # images


class FoundScales:
    """Of one package. Lives on one event loop."""

    def __init__(self) -> None:
        self._lately: deque[float] = deque(maxlen=_LATELY)

    def add(self, scale: float) -> None:
        """Take in what was found for one image."""
        self._lately.append(scale)

    @property
    def likely(self) -> float:
        """The median, to four digits; 1 where nothing has been found yet."""
        return four_digits(median(self._lately)) if self._lately else 1.0

    def request(self, asked: SegmentRequest, size_yx: tuple[int, int], most_pixels: int) -> SegmentRequest:
        """Return a request for an image at the likely scale; as it is where that would be refused."""
        scale = other_scale(self.likely)
        try:
            check_scale(size_yx, scale, most_pixels)
        except BadParameter:
            return asked
        return replace(asked, scale=scale, auto_scale=False)

    def work(self, pixels: int) -> Later:
        """Return what tells the work on an image, at any time, whose work at its own scale is so many pixels."""
        return lambda: pixels * self.likely**2
