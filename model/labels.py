"""From probabilities to a class mask, and from there to instance labels, by the rule that the package carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.components import label_components, present_objects
from model.flooding import WINDOWS, flood
from model.holes import number_background
from model.label_rule import LabelRule
from model.pixels import BAND_PX, Pixels, row_bands
from model.seeds import Components, drop_small_seeds

LABEL_BAND_PX = 1 << 21  # components are found in larger bands than statistics: every seam costs a little


def class_mask(
    probabilities_cyx: NDArray[np.float32], rule: LabelRule, threshold: float | None = None
) -> NDArray[np.uint8]:
    """Class of each pixel, as an index into :meth:`LabelRule.mask_classes`.

    Object or not by the foreground's probability, for nets of one or two classes, where classes only serve to part
    objects, and where channel 0 is an object; else the likeliest class.

    Parameters
    ----------
    probabilities_cyx
        (c, y, x), 0 to 1; channel 0 is background, unless the rule counts it as an object.
    rule
        The package's rule.
    threshold
        In place of the rule's own, 0 to 1. With several real classes it asks how sure "not background" must be.

    Returns
    -------
    NDArray[np.uint8]
        (y, x).

    """
    if rule.tells_object_or_not(len(probabilities_cyx)):
        return evidence_mask(foreground_probability(probabilities_cyx, rule), rule, threshold)
    if threshold is None:
        mask: NDArray[Any] = np.argmax(probabilities_cyx, axis=0)
    else:
        sure = 1 - probabilities_cyx[0] > np.float32(threshold)
        mask = np.where(sure, 1 + np.argmax(probabilities_cyx[1:], axis=0), 0)
    return mask.astype(np.uint8)


def evidence_mask(
    evidence_yx: NDArray[np.float32], rule: LabelRule, threshold: float | None = None
) -> NDArray[np.uint8]:
    """Mask (y, x) of 0 and 1, from what :func:`evidence_of` returns; for :meth:`LabelRule.tells_object_or_not`."""
    limit = np.float32(rule.threshold if threshold is None else threshold)
    return (np.abs(evidence_yx) > limit).view(np.uint8)


def foreground_probability(probabilities_cyx: NDArray[np.float32], rule: LabelRule) -> NDArray[np.float32]:
    """Probability of "object" for each pixel (y, x)."""
    return _sum_channels(probabilities_cyx, rule.foreground)


def _sum_channels(probabilities_cyx: NDArray[np.float32], channels: tuple[int, ...]) -> NDArray[np.float32]:
    first, *others = channels
    total: NDArray[np.float32] = probabilities_cyx[first]
    for channel in others:
        total = total + probabilities_cyx[channel]
    return total


def evidence_of(probabilities_cyx: NDArray[np.float32], rule: LabelRule) -> NDArray[np.float32]:
    """Reduce a net's output to what :func:`label_evidence` needs: pixel by pixel, so that tiles can be reduced alone.

    Returns
    -------
    NDArray[np.float32]
        (y, x): probability of "object", with a negative sign where the pixel can be a seed.

    """
    foreground = foreground_probability(probabilities_cyx, rule)
    if rule.method == "components":
        return foreground
    inside = _sum_channels(probabilities_cyx, rule.seeds)
    if rule.boundary:
        inside = inside - _sum_channels(probabilities_cyx, rule.boundary)
    return np.where(inside > np.float32(rule.seed_threshold), -foreground, foreground)


Allocate: TypeAlias = Callable[[tuple[int, ...], np.dtype[Any]], Pixels]
"""Makes an array of a shape and type, in memory or in a file; its values do not matter."""


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of one plane."""

    labels: Pixels
    """(y, x): 0 background, objects 1 to n in reading order of their first (seed) pixel, without gaps; uint16, or
    uint32 beyond 65,535 objects, so that no label ever overflows."""
    scores: NDArray[np.float32]
    """(n,): mean foreground probability of each."""
    uncertain: int
    """Pixels, far from every seed, whose label depends on how the image was cut; see :mod:`model.flooding`."""
    areas_px: NDArray[np.int64]
    """(n,): pixels of each."""
    cut: NDArray[np.bool_]
    """(n,): whether the plane's edge touches it, so that some of it may lie outside."""
    covered: float
    """Share of the plane's pixels that are objects, 0 to 1."""


BYTES_PER_OBJECT = 64
"""Of the tables of number, owner, area and probability that :func:`label_evidence` keeps in memory, at their peak."""


def _unheard(objects: int) -> None:
    """Take no notice."""


def label_evidence(
    evidence: Pixels,
    rule: LabelRule,
    *,
    allocate: Allocate = np.empty,
    tell: Callable[[int], None] = _unheard,
    band_px: int = LABEL_BAND_PX,
    flood_window: int = WINDOWS[0],
) -> Objects:
    """Number the objects of one plane, band by band: memory does not grow with the image, but with its objects.

    Parameters
    ----------
    evidence
        What :func:`evidence_of` makes of the net's output, (y, x).
    rule
        The package's, or its :meth:`LabelRule.with_values`.
    allocate
        Makes the arrays (y, x) that are needed: int32, another one for a watershed, and the labels.
    tell
        Told, band after band, how many objects there may be, each of which takes :data:`BYTES_PER_OBJECT`; what it
        raises ends the work.
    band_px
        Pixels looked at together; the result does not depend on it.
    flood_window
        See :func:`model.flooding.flood`.

    """
    height, width = evidence.shape
    limit = np.float32(rule.threshold)
    int32 = np.dtype(np.int32)

    def bands(pixels: int = band_px) -> Iterator[slice]:
        return row_bands(height, width, pixels)

    def seeds_of(rows: slice) -> NDArray[np.bool_]:
        band = evidence[rows]
        sure: NDArray[np.bool_] = (-band if rule.method == "watershed" else band) > limit
        return sure

    numbers = allocate(evidence.shape, int32)
    object_of = label_components(seeds_of, bands(), numbers, rule.connectivity, tell)
    uncertain = 0
    if rule.method == "watershed":
        seeds, numbers = numbers, allocate(evidence.shape, int32)
        regions = None
        if rule.min_seed_share:
            found = len(object_of)
            joined = label_components(
                lambda rows: np.abs(evidence[rows]) > limit,
                bands(),
                numbers,  # the flood's, for the time being
                rule.connectivity,
                lambda count: tell(found + count),
            )
            regions = Components(numbers, joined)
        if rule.min_seed_px > 1 or regions:
            small_bands = partial(bands, min(band_px, BAND_PX))
            drop_small_seeds(Components(seeds, object_of), rule.min_seed_px, small_bands, rule.min_seed_share, regions)
        uncertain = flood(evidence, seeds, float(limit), rule.connectivity, numbers, window=flood_window)
        del seeds
    hole_of = np.zeros(1, dtype=np.int32)
    if rule.fill_holes:
        hole_of = number_background(numbers, bands(), object_of)
    # negative numbers are regions of background, so the table begins with the last of them
    whose = np.concatenate((hole_of[:0:-1], object_of))
    areas, sums = np.zeros(len(object_of), dtype=np.int64), np.zeros(len(object_of))
    for rows in bands(BAND_PX):
        present, owner = present_objects(whose[numbers[rows] + (len(hole_of) - 1)].ravel(), len(areas))
        length = len(areas[present])
        areas[present] += np.bincount(owner, minlength=length)
        sums[present] += np.bincount(owner, weights=np.abs(evidence[rows]).ravel(), minlength=length)
    scores = (sums / np.maximum(areas, 1)).astype(np.float32)
    kept = (areas >= max(1, rule.min_area_px)) & (scores >= rule.min_score)
    kept[0] = False
    dtype = np.dtype(np.uint16 if np.count_nonzero(kept) <= np.iinfo(np.uint16).max else np.uint32)
    renumbered = np.where(kept, np.cumsum(kept), 0).astype(dtype)[whose]
    labels = allocate(evidence.shape, dtype)
    areas = areas[kept]
    cut = np.zeros(len(areas) + 1, dtype=bool)
    for rows in bands(BAND_PX):
        band = renumbered[numbers[rows] + (len(hole_of) - 1)]
        labels[rows] = band
        cut[band[:, 0]] = cut[band[:, -1]] = True
        if rows.start == 0:
            cut[band[0]] = True
        if rows.stop == height:
            cut[band[-1]] = True
    return Objects(labels, scores[kept], uncertain, areas, cut[1:], covered=int(areas.sum()) / (height * width))


def instance_labels(probabilities_cyx: NDArray[np.float32], rule: LabelRule) -> NDArray[np.uint16] | NDArray[np.uint32]:
    """Number the objects of one plane.

    Parameters
    ----------
    probabilities_cyx
        (c, y, x), 0 to 1.
    rule
        The package's, or its :meth:`LabelRule.with_values`.

    Returns
    -------
    NDArray[np.uint16] | NDArray[np.uint32]
        (y, x); see :attr:`Objects.labels`.

    """
    labels: NDArray[Any] = label_evidence(evidence_of(probabilities_cyx, rule), rule).labels[:, :]
    return labels
