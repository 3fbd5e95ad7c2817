"""An image at another scale than it was taken at, so that its objects have the size that a package knows.

The normalised image is resampled, the net runs on that, and its probabilities are resampled back: masks, labels and
areas are in the image's own pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.images import ImageHeader
from model.normalization import FittedNormalization
from model.pixels import Pixels, row_bands
from model.stitching import Reduce
from service.engine.errors import BadParameter

SCALE_LIMITS = (1 / 16, 16.0)
_BAND_PX = 1 << 16
_BYTES_PER_BAND_PX = 64  # measured: as read, normalised in float64, as Pillow has it and returns it, what is kept of it


AUTO: Final = "auto"
"""In place of a scale: the one that :mod:`service.engine.stages.auto_scale` chooses."""


def other_scale(scale: float | Literal["auto"] | None) -> float | None:
    """Return the scale where it is known, and another than the image's own."""
    return None if scale == 1 or isinstance(scale, str) else scale


def four_digits(scale: float) -> float:
    """Return a scale as it is told, so that it can be asked for as a number."""
    return float(f"{scale:.4g}")


def pixel_ratio(size_um: tuple[float, float], trained_um: tuple[float, float]) -> float:
    """Return the scale at which pixels (height, width) become as large as those that a package was trained on."""
    return math.sqrt(math.prod(size_um) / math.prod(trained_um))


def scaled_size(size_yx: tuple[int, int], scale: float | None) -> tuple[int, int]:
    """Height and width in px of an image of ``size_yx`` at another scale; None for its own."""
    height, width = (length if scale is None else max(1, round(length * scale)) for length in size_yx)
    return height, width


def check_scale(size_yx: tuple[int, int], scale: float | None, most_pixels: int) -> None:
    """Refuse to enlarge an image beyond what is taken at its own scale.

    Raises
    ------
    BadParameter

    """
    height, width = scaled_size(size_yx, scale)
    if scale is not None and height * width > most_pixels:
        raise BadParameter(
            f"scale {scale:g} makes {height} x {width} = {height * width} pixels of the image, the limit is "
            f"{most_pixels}; ask for less, or raise UNET_MAX_PIXELS"
        )


NormalisedPixels: TypeAlias = tuple[Pixels, FittedNormalization]
"""An image (y, x, c), and how its pixels become what a net is given."""


def scaled_image(
    image_yxc: Pixels,
    normalization: FittedNormalization,
    scaled_yxc: Pixels,
    part: tuple[slice, slice] = (slice(None), slice(None)),
) -> NormalisedPixels:
    """Fill ``scaled_yxc`` (y, x, c), float32, with an image, normalised by what is known of it at its own scale.

    With a ``part``, rows and columns of it, with that alone; no more is read at a time than a band.
    """
    rows, columns = (range(length)[piece] for length, piece in zip(image_yxc.shape, part, strict=False))

    def read(band: slice) -> NDArray[np.float32]:
        own = rows[band]
        return normalization.apply(image_yxc[own.start : own.stop, columns.start : columns.stop])

    for rows_scaled, band_cyx in _bands((len(rows), len(columns)), scaled_yxc.shape[:2], read):
        scaled_yxc[rows_scaled] = np.moveaxis(band_cyx, 0, -1)
    return scaled_yxc, FittedNormalization((), scaled_yxc.shape[-1])


def scaled_back(probabilities_cyx: Pixels, reduce: Reduce, plane: Pixels) -> Pixels:
    """Fill ``plane`` (..., y, x) with what is kept of probabilities (c, y, x) that have the size of the image again."""
    for rows, band_cyx in _bands(
        probabilities_cyx.shape[1:], plane.shape[-2:], lambda part: probabilities_cyx[:, part]
    ):
        plane[..., rows, :] = reduce(band_cyx)
    return plane


def scaling_bytes(header: ImageHeader, scale: float, classes: int) -> int:
    """Bytes of what is there beside an image and its result: pixels and probabilities as the net sees them."""
    return math.prod(scaled_size(header.size_yx, scale)) * (header.channels + classes) * 4


def scaling_work_bytes(header: ImageHeader, scale: float, classes: int) -> int:
    """Memory of a band that is resampled, channels on the way to the net and classes back: rows of both, and copies.

    A row of the smaller size is made of as many of the larger as their ratio, and of as many on each side: it takes
    the more, the further the scale is from 1.
    """
    width, scaled = header.size_yx[1], scaled_size(header.size_yx, scale)[1]
    there, back = ((_BAND_PX + math.ceil(step + 2 * _reach(step)) * max(width, scaled)) for step in (1 / scale, scale))
    return max(there * header.channels, back * classes) * _BYTES_PER_BAND_PX


def _reach(step: float) -> int:
    """Rows on each side of a band that a row of it may look at."""
    return math.ceil(max(1.0, step)) + 1


def _bands(
    size_yx: tuple[int, ...], target_yx: tuple[int, ...], read: Callable[[slice], NDArray[Any]]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Rows of another size and what stands there (c, y, x): linear between pixels, their mean where many become one.

    Band by band as if it were the whole (test: ``test_bands_are_those_of_the_whole``).

    Parameters
    ----------
    size_yx, target_yx
        What there is, and what is wanted.
    read
        Gives some rows (c, y, x) of what there is.

    """
    (height, width), (rows_wanted, columns_wanted) = size_yx, target_yx
    step = height / rows_wanted  # rows of what there is, for one that is wanted
    reach = _reach(step)
    for rows in row_bands(rows_wanted, max(columns_wanted, math.ceil(step * width)), _BAND_PX):
        top, bottom = rows.start * step, rows.stop * step
        first, last = max(0, math.floor(top) - reach), min(height, math.ceil(bottom) + reach)
        band_cyx = read(slice(first, last))
        box = (0.0, top - first, float(width), min(bottom - first, last - first))
        scaled = np.empty((len(band_cyx), rows.stop - rows.start, columns_wanted), dtype=np.float32)
        for plane_yx, scaled_yx in zip(band_cyx, scaled, strict=True):
            picture = Image.fromarray(np.ascontiguousarray(plane_yx, dtype=np.float32))
            scaled_yx[:] = np.asarray(picture.resize(scaled_yx.shape[::-1], Image.Resampling.BILINEAR, box))
        yield rows, scaled
