"""What the images of a folder are beside their masks: their grey values, and whether neighbours resemble each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.transform import downscale_local_mean, resize

LOW_PERCENTILE = 1.0
HIGH_PERCENTILES = (99.0, 99.8, 99.98, 100.0)
"""Where the grey range of an image may end."""

_LIKENESS_SIDE = 32  # images are compared at this size
_FEWEST_FOR_LIKENESS = 5
_MOST_FOR_LIKENESS = 64


@dataclass(frozen=True, slots=True)
class Grey:
    """Grey values over all images.

    Parameters
    ----------
    dtype
        As stored; the widest where they differ.
    lowest, highest
        Over all pixels.
    at_highest
        Share of the pixels that have the highest value of all images of their dtype: saturated, where it is more than a
        few.
    hot
        Median over images: how far the brightest pixel lies above the 1st percentile, in units of the distance of the
        99.8th; 1 where both are the same.
    flat
        Number of images whose 1st percentile equals that of :data:`HIGH_PERCENTILES`, one number each.

    """

    dtype: str
    lowest: float
    highest: float
    at_highest: float
    hot: float
    flat: tuple[int, int, int, int]


def grey_values(images_yxc: Sequence[NDArray[Any]]) -> Grey:
    """Measure the grey values of images (y, x, c) of any dtypes, at least one."""
    dtypes = {image.dtype for image in images_yxc}
    highest = {dtype: max(float(image.max()) for image in images_yxc if image.dtype == dtype) for dtype in dtypes}
    percentiles = np.array([np.percentile(image, (LOW_PERCENTILE, *HIGH_PERCENTILES)) for image in images_yxc])
    ranges = percentiles[:, 1:] - percentiles[:, :1]
    wide = ranges[ranges[:, 1] > 0]
    flat = np.count_nonzero(ranges <= 0, axis=0)
    at_highest = sum(int(np.count_nonzero(image == highest[image.dtype])) for image in images_yxc)
    return Grey(
        dtype=str(np.result_type(*dtypes)),
        lowest=min(float(image.min()) for image in images_yxc),
        highest=max(highest.values()),
        at_highest=at_highest / sum(image.size for image in images_yxc),
        hot=float(np.median(wide[:, -1] / wide[:, 1])) if len(wide) else 1.0,
        flat=(int(flat[0]), int(flat[1]), int(flat[2]), int(flat[3])),
    )


def likeness(images_yxc: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """Mean correlation of neighbours, and of all others: slices and frames resemble their neighbours.

    Parameters
    ----------
    images_yxc
        In the order of their names, of any sizes; the first channel of the first 64 is looked at.

    Returns
    -------
    tuple[float, float]
        -1 to 1; both 0 where fewer than five images tell nothing.

    """
    first = images_yxc[:_MOST_FOR_LIKENESS]
    if len(first) < _FEWEST_FOR_LIKENESS:
        return 0.0, 0.0
    small = np.array([_small(image[..., 0]) for image in first])
    small -= small.mean(axis=0)  # what all share, such as uneven light, tells nothing
    small -= small.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(small, axis=1, keepdims=True)
    small /= np.where(norms > 0, norms, 1)
    correlation = small @ small.T
    apart = np.abs(np.subtract.outer(np.arange(len(first)), np.arange(len(first))))
    return float(correlation[apart == 1].mean()), float(correlation[apart > 1].mean())


def _small(plane_yx: NDArray[Any]) -> NDArray[np.float64]:
    """Plane at 32 x 32 px, flat, its values of one spread: those of other depths count no more."""
    height, width = (max(1, side // _LIKENESS_SIDE) for side in plane_yx.shape)
    whole = plane_yx[: len(plane_yx) // height * height, : plane_yx.shape[1] // width * width]
    rough = downscale_local_mean(whole.astype(np.float64), (height, width))  # a Gaussian over as many takes long
    small = resize(rough, (_LIKENESS_SIDE, _LIKENESS_SIDE), anti_aliasing=True).ravel()
    spread = float(small.std())
    shape: NDArray[np.float64] = (small - small.mean()) / (spread if spread > 0 else 1.0)
    return shape
