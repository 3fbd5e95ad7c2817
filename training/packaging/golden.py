"""The picture of a package's golden pair: synthetic, so that no package carries anyone's image.

A net that sees nothing in it would answer "background" with other weights too, or in a precision too low for it. So a
few kinds of picture are tried, as the field's microscopes take them, and one is kept whose answer tells most.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.scene import NucleiScene
from training.synthetic import render_nuclei

SIZE_YX = (320, 352)
_SIZES = (1.0, 2.0, 3.0)  # of the cells, times those of nuclei
_COVERAGES = (0.25, 0.15)
_HALO_PX = 4.0
_ENOUGH = 0.05  # of the pixels another class than the rest
_UNDECIDED = 0.02  # two classes so nearly equally likely may change places in a lower precision
_MOST_UNDECIDED = 0.0016  # of the pixels; a third of them do in bf16, and 0.1 % may

Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Probabilities (c, y, x) of a picture (y, x, c)."""


def golden_image(channels: int, answer: Answer) -> NDArray[np.uint8]:
    """Picture (y, x, c) in which a net finds objects and background, and of few pixels is in doubt.

    Parameters
    ----------
    channels
        Of the picture; all are alike.
    answer
        The net.

    """
    best, most = np.zeros((*SIZE_YX, channels), dtype=np.uint8), -np.inf
    for picture_yx in candidates():
        picture_yxc = np.repeat(picture_yx[..., None], channels, axis=-1)
        tells = telling(answer(picture_yxc))
        if tells > most:
            best, most = picture_yxc, tells
        if most >= _ENOUGH:
            break
    return best


def candidates() -> Iterator[NDArray[np.uint8]]:
    """Pictures (y, x) of :func:`_field` for cells of several sizes, few and many."""
    for size, coverage in itertools.product(_SIZES, _COVERAGES):
        yield from _field(size, coverage)


@cache
def _field(size: float, coverage: float) -> tuple[NDArray[np.uint8], ...]:
    """One field of cells: as nuclei in fluorescence, dark on bright ground, in relief, and with halos."""
    low, high = NucleiScene().radius_px
    scene = NucleiScene(SIZE_YX, radius_px=(low * size, high * size), coverage=coverage, bit_depth=8)
    picture_yx, _ = render_nuclei(scene, seed=0)
    light_yx = picture_yx.astype(np.float64)
    relief_yx = sum(ndimage.gaussian_filter(light_yx, size, order=order) for order in ((0, 1), (1, 0)))
    halo_yx = ndimage.gaussian_filter(light_yx, _HALO_PX) - light_yx
    return _grey(light_yx), _grey(-light_yx), _grey(relief_yx), _grey(halo_yx)


def telling(probabilities_cyx: NDArray[np.float32]) -> float:
    """How much an answer tells, the more the better: at most one half, below zero where too many pixels are undecided.

    The share of the likeliest class is to be far from all, and the two likeliest classes of a pixel are not to be
    equally likely.
    """
    if not np.isfinite(probabilities_cyx).all():
        return -np.inf
    second, first = np.sort(probabilities_cyx, axis=0)[-2:]
    undecided = float(np.mean(first - second < _UNDECIDED))
    if undecided > _MOST_UNDECIDED:
        return -undecided
    shares = np.bincount(probabilities_cyx.argmax(axis=0).ravel()) / first.size
    return min(0.5, 1 - float(shares.max()))


def _grey(values_yx: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Stretch to all of 8 bits."""
    low, high = values_yx.min(), values_yx.max()
    grey: NDArray[np.uint8] = np.rint((values_yx - low) * (255 / (high - low))).astype(np.uint8)
    return grey
