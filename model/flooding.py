"""Seeds that grow over the foreground (a watershed), window by window, with the result of the whole image.

The flood takes the pixel of highest probability next, and of equal ones that which it reached first; seeds of equal
probability come in reading order. So each pixel's label follows from its surroundings, and mostly from near ones. A
window of the image is flooded together with a margin; where it is cut off, the foreground that is no seed could be
reached from outside at any moment, and is given to the label "unknown" from the beginning. The unknown flood arrives
wherever the world outside could have any influence, and no later than it could. What it does not reach has the label
that flooding the whole image gives. If it reaches the window itself, the window is flooded again with a wider margin
(test: ``test_flooding_by_windows_is_flooding_the_whole``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import scipy
import skimage
from numpy.typing import NDArray

from model.pixels import Pixels
from model.tiling import Span

WINDOWS = (1536, 768, 384)
"""Largest side of a window in pixels: a compromise of memory and time lost on margins, and two for less memory."""
MARGINS = (64, 128, 256, 512)
"""Pixels around a window: tried one after the other. Beyond the last, pixels are flooded without what is outside."""
_BYTES_PER_PIXEL = 60  # of the arrays below, of skimage's padded copies and of its heap
_UNKNOWN = np.iinfo(np.int32).max
_TIE_BITS = 29  # a float32 leaves so many bits of the float64 that holds it at zero


def flood(
    evidence: Pixels,
    seeds: Pixels,
    threshold: float,
    connectivity: Literal[1, 2],
    into: Pixels,
    *,
    window: int = WINDOWS[0],
    margins: tuple[int, ...] = MARGINS,
) -> int:
    """Grow seeds over the foreground.

    Parameters
    ----------
    evidence
        See :func:`model.labels.evidence_of`: (y, x) float32; its magnitude is the foreground's probability.
    seeds
        (y, x) int32, 0 where there is none; all of them foreground.
    threshold
        Foreground where its probability is above this.
    connectivity
        1: floods go on over edges of pixels; 2: over corners, too.
    into
        Takes the labels: (y, x) int32, 0 outside the foreground and where no seed is connected.
    window, margins
        In pixels.

    Returns
    -------
    int
        Pixels whose label might be another one if the whole image had been flooded at once: those which the unknown
        flood reaches with the widest margin.

    """
    height, width = evidence.shape
    uncertain = 0
    for rows in _pieces(height, window):
        for columns in _pieces(width, window):
            labels, doubtful = _settled(evidence, seeds, (rows, columns), margins, (threshold, connectivity))
            into[rows.slice, columns.slice] = labels
            uncertain += doubtful
    return uncertain


def flood_bytes(size_yx: tuple[int, int], window: int) -> int:
    """Working memory of :func:`flood` for an image of that size, at most."""
    return _BYTES_PER_PIXEL * math.prod(min(length, window + 2 * MARGINS[-1]) for length in size_yx)


def _pieces(length: int, window: int) -> Iterator[Span]:
    """Equal pieces of at most ``window`` pixels."""
    count = math.ceil(length / window)
    for i in range(count):
        yield Span(length * i // count, length * (i + 1) // count)


def _settled(
    evidence: Pixels,
    seeds: Pixels,
    window: tuple[Span, Span],
    margins: tuple[int, ...],
    rule: tuple[float, Literal[1, 2]],
) -> tuple[NDArray[np.int32], int]:
    """Labels of a window, and how many of them are not certain."""
    doubtful = 0
    for margin in margins:
        wide = [
            Span(max(0, span.start - margin), min(length, span.stop + margin))
            for span, length in zip(window, evidence.shape, strict=True)
        ]
        part = tuple(span.slice for span in wide)
        inner = tuple(
            slice(span.start - around.start, span.stop - around.start)
            for span, around in zip(window, wide, strict=True)
        )
        cut = [(around.start > 0, around.stop < length) for around, length in zip(wide, evidence.shape, strict=True)]
        labels = _flood_part(evidence[part], seeds[part], cut, *rule)
        doubtful = int(np.count_nonzero(labels[inner] == _UNKNOWN))
        if not doubtful:
            return labels[inner], 0
    without = _flood_part(evidence[part], seeds[part], [(False, False), (False, False)], *rule)
    return np.where(labels[inner] == _UNKNOWN, without[inner], labels[inner]), doubtful


def _flood_part(
    evidence: NDArray[np.float32],
    seeds: NDArray[np.int32],
    cut: list[tuple[bool, bool]],
    threshold: float,
    connectivity: Literal[1, 2],
) -> NDArray[np.int32]:
    """Flood one part; what could be reached from beyond a side that is cut off becomes ``_UNKNOWN``."""
    probability = np.abs(evidence)
    gap = (probability > np.float32(threshold)) & (seeds == 0)
    if not gap.any():
        return seeds
    # seeds without a free neighbour change nothing
    rim = (seeds > 0) & scipy.ndimage.binary_dilation(gap, scipy.ndimage.generate_binary_structure(2, connectivity))
    markers = np.where(rim, seeds, 0)
    height = -probability.astype(np.float64)
    bits = height.view(np.uint64)
    at = np.flatnonzero(rim)
    bits.reshape(-1)[at] |= np.uint64((1 << _TIE_BITS) - 2) - at.astype(np.uint64)
    for axis, sides in enumerate(cut):
        for side, is_cut in zip((0, -1), sides, strict=True):
            if is_cut:
                line = (slice(None),) * axis + (side,)
                open_to = gap[line]
                markers[line][open_to] = _UNKNOWN
                bits[line][open_to] |= np.uint64((1 << _TIE_BITS) - 1)
    flooded: NDArray[np.int32] = skimage.segmentation.watershed(
        height, markers, mask=gap | rim, connectivity=connectivity
    )
    return np.where(seeds > 0, seeds, flooded).astype(np.int32, copy=False)
