"""From stored pixel values to the float32 that a net was trained on: the package's rule, the same call everywhere.

A rule is a list of bioimage.io 0.5 pre-processing steps. :func:`fit` takes the statistics of one *whole* image (never
of a tile: the same cell must look the same wherever the cut falls) and returns a :class:`FittedNormalization`, which
works pixel by pixel and so can be applied to any region at any time with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from model.errors import ExtremePixels, NonFiniteOutput, UnsupportedPackage
from model.image_statistics import Values, fits_float32, mean_and_std, percentile_range
from model.pixels import Pixels


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


_ROUNDING = 1e-6  # of float32, generously: a spread below this share of the values is none
_MOST_NORMALISED = 1e4  # images have values of some tens; half precision ends at 65,504, which sums soon reach


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
    """Whether float32 does not hold the pixels, or differences of them."""
    notes: tuple[str, ...] = ()
    """What the caller should know of this image."""

    def apply(self, region_yxc: NDArray[Any]) -> NDArray[np.float32]:
        """Normalise a region (y, x, c) of any real dtype; returns float32 (c, y, x), C-contiguous."""
        # what float32 does not hold exactly is shifted in float64 first
        working = np.float64 if self.wide else np.float32
        values: NDArray[Any] = np.array(np.moveaxis(region_yxc, -1, 0), dtype=working, order="C")
        with np.errstate(over="ignore", invalid="ignore"):  # said by explained(), where it matters
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


def fit(steps: Sequence[Step], image_yxc: Pixels) -> FittedNormalization:
    """Take what the rule needs to know from one whole image, band by band: its memory does not grow with the image.

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
    wide = not fits_float32(Values(image_yxc, None))
    channels = image_yxc.shape[-1]
    operations: list[_Affine | Clip] = []
    notes: list[str] = []
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
                if np.issubdtype(image_yxc.dtype, np.floating) and _is_lost(low, width, width * gain_before, step.eps):
                    order = round(np.log10(width.max()))  # alike for the planes of a stack, which is noted once
                    notes.append(
                        f"pixel values are spread over about 1e{order}, to which the package's normalisation adds "
                        f"{step.eps:g}: hardly anything stands out; multiply them, by 1e{-order} say"
                    )
                # statistics of (x - s) * g are those of x, moved along
                operations.append(_Affine((low - shift_before) * gain_before, 1.0 / (width * gain_before + step.eps)))
    return FittedNormalization(tuple(operations), channels, wide, tuple(notes))


def _is_lost(low: NDArray[np.float64], width: NDArray[np.float64], spread: NDArray[np.float64], eps: float) -> bool:
    """Whether what is to be seen drowns in a rule's eps in every channel, and is no rounding of an even image."""
    return bool((spread < eps).all() and (width > _ROUNDING * np.abs(low)).any())


def explained(error: Exception, tile_cyx: NDArray[np.float32]) -> Exception:
    """What befell a normalised tile: the image's fault, where its pixels are far beyond what nets compute with."""
    largest = float(np.abs(tile_cyx).max())
    if not isinstance(error, NonFiniteOutput) or largest <= _MOST_NORMALISED:
        return error
    return ExtremePixels(
        f"the net returns NaN or infinity for pixels that reach {largest:.3g} when normalised; up to "
        f"{_MOST_NORMALISED:g} it can compute: replace those that are far brighter or darker than all others"
    )


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


def _statistics(
    step: ZeroMeanUnitVariance | ScaleRange, image_yxc: Pixels
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Origin and width for each channel: mean and standard deviation, or low percentile and range."""
    channels = image_yxc.shape[-1]
    chosen: list[int | None] = [*range(channels)] if step.per_channel else [None]
    if isinstance(step, ZeroMeanUnitVariance):
        pairs = [mean_and_std(Values(image_yxc, channel)) for channel in chosen]
    else:
        limits = (step.min_percentile, step.max_percentile)
        pairs = [percentile_range(Values(image_yxc, channel), limits) for channel in chosen]
    low, width = np.asarray(pairs, dtype=np.float64).T
    return np.broadcast_to(low, (channels,)).copy(), np.broadcast_to(width, (channels,)).copy()
