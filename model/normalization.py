"""From stored pixel values to the float32 that a net was trained on: the package's rule, the same call everywhere.

A rule is a list of bioimage.io 0.5 pre-processing steps. :func:`fit` takes the statistics of one *whole* image (never
of a tile: the same cell must look the same wherever the cut falls) and returns a :class:`FittedNormalization`, which
works pixel by pixel and so can be applied to any region at any time with the same result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from model.errors import NonFiniteImage, UnsupportedPackage

_ROWS_AT_ONCE_PX = 1 << 20  # statistics go through an image in bands of about this many values


class _Step(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ZeroMeanUnitVariance(_Step):
    """``(x - mean) / (std + eps)`` over each channel of the image, or over all channels together."""

    id: Literal["zero_mean_unit_variance"] = "zero_mean_unit_variance"
    per_channel: bool = True
    eps: float = 1e-6


class FixedZeroMeanUnitVariance(_Step):
    """``(x - mean) / std`` with constants of the package: one value, or one for each channel."""

    id: Literal["fixed_zero_mean_unit_variance"] = "fixed_zero_mean_unit_variance"
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]


class ScaleRange(_Step):
    """``(x - low) / (high - low + eps)`` with percentiles (0-100) of the image, linearly interpolated."""

    id: Literal["scale_range"] = "scale_range"
    per_channel: bool = True
    min_percentile: Annotated[float, Field(ge=0, lt=100)] = 0.0
    max_percentile: Annotated[float, Field(gt=0, le=100)] = 100.0
    eps: float = 1e-6


class ScaleLinear(_Step):
    """``x * gain + offset``: one value, or one for each channel."""

    id: Literal["scale_linear"] = "scale_linear"
    gain: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)


class Clip(_Step):
    """Limit values to ``[min, max]``."""

    id: Literal["clip"] = "clip"
    min: float = -np.inf
    max: float = np.inf


Step = Annotated[
    ZeroMeanUnitVariance | FixedZeroMeanUnitVariance | ScaleRange | ScaleLinear | Clip, Field(discriminator="id")
]


@dataclass(frozen=True, slots=True)
class _Affine:
    """``(x - shift) * scale`` for each channel."""

    shift: NDArray[np.float64]
    scale: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FittedNormalization:
    """The rule with this image's constants in place; works on each pixel alone."""

    operations: tuple[_Affine | Clip, ...]
    channels: int
    wide: bool = False
    """Whether differences of pixels leave the range of float32."""

    def apply(self, region_yxc: NDArray[Any]) -> NDArray[np.float32]:
        """Normalise a region (y, x, c) of any real dtype; returns float32 (c, y, x), C-contiguous."""
        # float32 holds every value of 8- and 16-bit images exactly; wider types are shifted in float64 first
        exact = region_yxc.dtype.itemsize <= 2 or (region_yxc.dtype == np.float32 and not self.wide)
        working = np.float32 if exact else np.float64
        values: NDArray[Any] = np.array(np.moveaxis(region_yxc, -1, 0), dtype=working, order="C")
        for operation in self.operations:
            if isinstance(operation, Clip):
                np.clip(values, operation.min, operation.max, out=values)
            else:
                values -= operation.shift.astype(working)[:, None, None]
                values *= operation.scale.astype(working)[:, None, None]
        return values.astype(np.float32, copy=False)

    def constants(self) -> list[dict[str, Any]]:
        """Return the constants for a receipt: one entry an operation, in order."""
        return [
            {"clip": [limit if np.isfinite(limit) else None for limit in (operation.min, operation.max)]}
            if isinstance(operation, Clip)
            else {"subtract": operation.shift.tolist(), "multiply": operation.scale.tolist()}
            for operation in self.operations
        ]


def fit(steps: Sequence[Step], image_yxc: NDArray[Any]) -> FittedNormalization:
    """Take what the rule needs to know from one whole image.

    Parameters
    ----------
    steps
        The package's rule, in order.
    image_yxc
        The whole image (y, x, c), any integer or floating dtype.

    Raises
    ------
    NonFiniteImage
        Where a floating image holds NaN or infinity.
    UnsupportedPackage
        Where a statistic is asked for after a clip, or constants do not match the number of channels.

    """
    wide = _largest_finite(image_yxc) > float(np.finfo(np.float32).max) / 4
    channels = image_yxc.shape[-1]
    operations: list[_Affine | Clip] = []
    for step in steps:
        match step:
            case Clip():
                operations.append(step)
            case ScaleLinear(gain=gain, offset=offset):
                gains, offsets = _per_channel(gain, channels), _per_channel(offset, channels)
                if not np.all(gains):
                    raise UnsupportedPackage("scale_linear with a gain of 0 erases the image; give a gain other than 0")
                operations.append(_Affine(-offsets / gains, gains))
            case FixedZeroMeanUnitVariance(mean=mean, std=std):
                operations.append(_Affine(_per_channel(mean, channels), 1.0 / _per_channel(std, channels)))
            case ZeroMeanUnitVariance() | ScaleRange():
                low, width = _statistics(step, image_yxc)
                gain_before, shift_before = _so_far(operations, channels)
                # statistics of (x - s) * g are those of x, moved along
                operations.append(_Affine((low - shift_before) * gain_before, 1.0 / (width * gain_before + step.eps)))
    return FittedNormalization(tuple(operations), channels, wide)


def _so_far(operations: Sequence[_Affine | Clip], channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gain g and shift s of the operations before a statistic, as ``(x - s) * g``."""
    gain, shift = np.ones(channels), np.zeros(channels)
    for operation in operations:
        if isinstance(operation, Clip):
            raise UnsupportedPackage("statistics after a clip are not supported; clip after the last statistic")
        shift = shift + operation.shift / gain
        gain = gain * operation.scale
    if np.any(gain <= 0):
        raise UnsupportedPackage("statistics after a negative gain are not supported; use a positive gain")
    return gain, shift


def _per_channel(values: Sequence[float], channels: int) -> NDArray[np.float64]:
    if len(values) not in {1, channels}:
        raise UnsupportedPackage(
            f"the package has {len(values)} normalisation constants, the image {channels} channels"
        )
    return np.broadcast_to(np.asarray(values, dtype=np.float64), (channels,)).copy()


def _bands(plane_yx: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Bands of rows: numpy holds the interpreter lock in some of these calls, so none may be long."""
    rows = max(1, _ROWS_AT_ONCE_PX // max(1, plane_yx[:1].size))
    for start in range(0, plane_yx.shape[0], rows):
        yield plane_yx[start : start + rows]


def _largest_finite(image_yxc: NDArray[Any]) -> float:
    """Largest magnitude of a floating image, 0 for integers; raises where a value is not finite."""
    if not np.issubdtype(image_yxc.dtype, np.floating):
        return 0.0
    bad = sum(int(band.size - np.count_nonzero(np.isfinite(band))) for band in _bands(image_yxc))
    if bad:
        raise NonFiniteImage(
            f"{bad} of {image_yxc.size} pixel values are NaN or infinite, 0 are allowed; replace them before sending"
        )
    return max(float(np.abs(band).max()) for band in _bands(image_yxc))


def _statistics(
    step: ZeroMeanUnitVariance | ScaleRange, image_yxc: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Origin and width for each channel: mean and standard deviation, or low percentile and range."""
    channels = image_yxc.shape[-1]
    planes = (
        [image_yxc[..., c] for c in range(channels)] if step.per_channel else [image_yxc.reshape(len(image_yxc), -1)]
    )
    if isinstance(step, ZeroMeanUnitVariance):
        pairs = [_mean_and_std(plane) for plane in planes]
    else:
        pairs = [_percentile_range(plane, step.min_percentile, step.max_percentile) for plane in planes]
    low, width = np.asarray(pairs, dtype=np.float64).T
    return np.broadcast_to(low, (channels,)).copy(), np.broadcast_to(width, (channels,)).copy()


def _histogram(plane_yx: NDArray[Any]) -> NDArray[np.int64] | None:
    """Count of each value of an 8- or 16-bit unsigned image: every statistic follows from it, in one pass."""
    if plane_yx.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        return None
    bins = 1 << (8 * plane_yx.dtype.itemsize)
    counts = np.zeros(bins, dtype=np.int64)
    for band in _bands(plane_yx):
        counts += np.bincount(band.ravel(), minlength=bins)
    return counts


def _mean_and_std(plane_yx: NDArray[Any]) -> tuple[float, float]:
    histogram = _histogram(plane_yx)
    if histogram is not None:
        values = np.arange(histogram.size, dtype=np.float64)
        mean = float(histogram @ values / plane_yx.size)
        return mean, float(np.sqrt(histogram @ (values - mean) ** 2 / plane_yx.size))
    mean = sum(float(band.sum(dtype=np.float64)) for band in _bands(plane_yx)) / plane_yx.size
    square = sum(float(np.sum((band.astype(np.float64) - mean) ** 2)) for band in _bands(plane_yx))
    return mean, float(np.sqrt(square / plane_yx.size))


def _percentile_range(plane_yx: NDArray[Any], min_percentile: float, max_percentile: float) -> tuple[float, float]:
    histogram = _histogram(plane_yx)
    if histogram is None:
        low, high = (float(value) for value in np.percentile(plane_yx, (min_percentile, max_percentile)))
    else:
        low, high = (_percentile_of_counts(histogram, p) for p in (min_percentile, max_percentile))
    return low, high - low


def _percentile_of_counts(counts: NDArray[np.int64], percentile: float) -> float:
    """As ``numpy.percentile`` (linear) of the values that ``counts`` counts."""
    up_to = np.cumsum(counts)
    rank = percentile / 100 * (up_to[-1] - 1)
    below = int(np.floor(rank))
    low = int(np.searchsorted(up_to, below, side="right"))
    high = int(np.searchsorted(up_to, min(below + 1, int(up_to[-1]) - 1), side="right"))
    return float(low + (rank - below) * (high - low))
