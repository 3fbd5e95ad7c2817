"""What normalisation has to know of a whole image, taken band by band: memory does not grow with the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import NonFiniteImage
from model.order_statistics import lowest_to_highest
from model.pixels import Pixels, row_bands

_MOST_IN_FLOAT32 = 1 << 16  # of 16 bits: beyond it float32 would take origins of an image's values too coarsely


@dataclass(frozen=True, slots=True)
class Values:
    """One channel of an image, or all of them together."""

    image_yxc: Pixels
    channel: int | None

    @property
    def size(self) -> int:
        """Number of values."""
        height, width, channels = self.image_yxc.shape
        return height * width * (channels if self.channel is None else 1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self.image_yxc.dtype

    def bands(self) -> Iterator[NDArray[Any]]:
        """All values, in bands of rows."""
        height, width, channels = self.image_yxc.shape
        for rows in row_bands(height, width * (channels if self.channel is None else 1)):
            band_yxc = self.image_yxc[rows]
            yield band_yxc if self.channel is None else band_yxc[..., self.channel]


def fits_float32(values: Values) -> bool:
    """Whether float32 holds all values as they are, and none is larger than those of 16 bits.

    So the same values give the same answers, whatever type they are stored in.

    Raises
    ------
    NonFiniteImage
        Where floating values are NaN or infinite.

    """
    if np.issubdtype(values.dtype, np.floating):
        return _floats_fit(values)
    if values.dtype.itemsize <= 2:
        return True
    limit = _MOST_IN_FLOAT32
    return all(-limit <= int(band.min()) and int(band.max()) <= limit for band in values.bands())


def _floats_fit(values: Values) -> bool:
    bad, fits = 0, True
    for band in values.bands():
        found = int(band.size - np.count_nonzero(np.isfinite(band)))
        bad += found
        if fits and not found:
            fits = float(np.abs(band).max()) <= _MOST_IN_FLOAT32
            fits = fits and bool((band.astype(np.float32) == band).all())
    if bad:
        raise NonFiniteImage(
            f"{bad} of {values.size} pixel values are NaN or infinite, 0 are allowed; replace them before sending"
        )
    return fits


def _histogram(values: Values) -> NDArray[np.int64] | None:
    """Count of each value of an 8- or 16-bit unsigned image: every statistic follows from it, in one pass."""
    if values.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        return None
    bins = 1 << (8 * values.dtype.itemsize)
    counts = np.zeros(bins, dtype=np.int64)
    for band in values.bands():
        counts += np.bincount(band.ravel(), minlength=bins)
    return counts


def mean_and_std(values: Values) -> tuple[float, float]:
    """Mean, and standard deviation of the population."""
    histogram = _histogram(values)
    if histogram is not None:
        levels = np.arange(histogram.size, dtype=np.float64)
        mean = float(histogram @ levels / values.size)
        return mean, float(np.sqrt(histogram @ (levels - mean) ** 2 / values.size))
    mean = sum(float(band.sum(dtype=np.float64)) for band in values.bands()) / values.size
    square = sum(float(np.sum((band.astype(np.float64) - mean) ** 2)) for band in values.bands())
    return mean, float(np.sqrt(square / values.size))


def percentile_range(values: Values, limits: tuple[float, float]) -> tuple[float, float]:
    """Low percentile, and distance to the high one, as ``numpy.percentile`` (linear) has them."""
    ranks = [percentile / 100 * (values.size - 1) for percentile in limits]
    below = [int(np.floor(rank)) for rank in ranks]
    wanted = [position for at in below for position in (at, min(at + 1, values.size - 1))]
    histogram = _histogram(values)
    if histogram is None:
        found = lowest_to_highest(values.bands, values.dtype, wanted)
    else:
        found = np.searchsorted(np.cumsum(histogram), wanted, side="right").astype(np.float64)
    low, high = (
        float(found[2 * i] + (rank - below[i]) * (found[2 * i + 1] - found[2 * i])) for i, rank in enumerate(ranks)
    )
    return low, high - low
