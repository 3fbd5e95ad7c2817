"""An image at another scale than it was taken at, so that its objects have the size that a package knows.

The normalised image is resampled, the net runs on that, and its probabilities are resampled back: masks, labels and
areas are in the image's own pixels. All of it stands in memory.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.images import ImageHeader
from model.normalization import FittedNormalization
from model.pixels import Pixels
from model.stitching import Reduce
from service.engine.errors import BadParameter

SCALE_LIMITS = (1 / 16, 16.0)


def other_scale(scale: float | None) -> float | None:
    """Return the scale where it is another than the image's own."""
    return None if scale == 1 else scale


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


def scaled_image(image_yxc: Pixels, normalization: FittedNormalization, size_yx: tuple[int, int]) -> NormalisedPixels:
    """Return an image at another size; it is normalised already, by what is known of it at its own."""
    scaled_cyx = resampled(normalization.apply(image_yxc[:, :]), size_yx)
    return np.moveaxis(scaled_cyx, 0, -1), FittedNormalization((), len(scaled_cyx))


def scaled_back(probabilities_cyx: Pixels, size_yx: tuple[int, int], reduce: Reduce) -> NDArray[Any]:
    """Return what is kept (..., y, x) of probabilities (c, y, x) once they have the size of the image again."""
    return reduce(resampled(probabilities_cyx[:, :, :], size_yx))


def scaling_bytes(header: ImageHeader, scale: float, classes: int) -> int:
    """Memory of what is there beside an image and its result: normalised pixels and probabilities, at both sizes."""
    pixels = math.prod(header.size_yx) + math.prod(scaled_size(header.size_yx, scale))
    return pixels * (header.channels + classes) * 4


def resampled(planes_cyx: NDArray[Any], size_yx: tuple[int, int]) -> NDArray[np.float32]:
    """Return planes (c, y, x) at another size: linear between pixels, their mean where many become one."""
    height, width = size_yx
    result = np.empty((len(planes_cyx), height, width), dtype=np.float32)
    for plane_yx, scaled_yx in zip(planes_cyx, result, strict=True):
        picture = Image.fromarray(np.ascontiguousarray(plane_yx, dtype=np.float32))
        scaled_yx[:] = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    return result
