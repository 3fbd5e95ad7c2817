"""What a request would take, before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.images import ImageHeader
from model.images.tiff_bands import BAND_PX
from model.views import ViewPlan
from service.engine.packages.loading import LoadedModel

_USUAL_ROWS = 512  # of a file's tiles, or strips, at most


@dataclass(frozen=True, slots=True)
class Forecast:
    """For an image of one size, as things are now."""

    model: LoadedModel
    plan: ViewPlan
    """Of one plane, at the scale that the net sees."""
    size_yx: tuple[int, int]
    planes: int
    scale: float
    """That the plan is for; where a request has to look for it in the image itself, what was found lately."""
    compute_s: float
    """Seconds in the net with nobody else there, at the measured speed, the search of a scale included."""
    search_s: float | None
    """Those of the search; None where there is none."""
    finishing_s: float
    """Seconds beside the net, as such requests took lately, or usually take where there have been none."""
    expected_s: float
    """Seconds until it would be ready, beside what is in work."""
    memory_bytes: int
    """Of images and results; activations of tiles come on top."""
    disk_bytes: int
    """In the spool folder; 0 where all stands in memory."""
    refusal: Exception | None
    """Why it would not be accepted now; None where it would."""


def imagined(size_yx: tuple[int, int], planes: int, channels: int) -> ImageHeader:
    """Header of a 16 bit image of this size, of which nothing else is known."""
    return ImageHeader(
        format="",
        dtype=np.dtype(np.uint16),
        size_yx=size_yx,
        channels=channels,
        planes=planes,
        stack_axes="I" if planes > 1 else "",
        stack_shape=(planes,) if planes > 1 else (),
        bits=16,
        pixel_size_um=None,
        compression="",
        notes=(),
    )


def usual_part_bytes(header: ImageHeader) -> int:
    """Most bytes that are decoded at a time of a TIFF in tiles or strips of 512 rows at most; others may take more."""
    height, width = header.size_yx
    rows = min(height, max(_USUAL_ROWS, BAND_PX // width))
    return rows * width * header.channels * header.dtype.itemsize
