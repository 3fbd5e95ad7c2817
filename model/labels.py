"""From probabilities to a class mask, and from there to instance labels, by the rule that the package carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from skimage.segmentation import watershed

_ROWS_AT_ONCE_PX = 1 << 20  # numpy holds the interpreter lock while it counts: bands keep each hold short

Probability = Annotated[float, Field(gt=0, lt=1)]


class LabelRule(BaseModel):
    """How instances are told apart.

    Parameters
    ----------
    method
        ``components``: connected components of the foreground. ``watershed``: components of the confident
        pixels are seeds, which grow over the foreground along falling probability.
    foreground
        Channels whose probabilities sum up to "object" (with background / interior / boundary: 1 and 2).
    seeds
        Channels whose probabilities sum up to "inside of one object" (with a boundary class: 1).
    threshold
        Foreground where its probability is above this.
    seed_threshold
        Seed where the seeds' probability is above this (watershed only).
    min_area_px
        Smaller objects are dropped.
    connectivity
        1: pixels that share an edge are connected; 2: a corner is enough.
    fill_holes
        Whether background enclosed by one object becomes part of it.
    object_name
        What an object is called, where classes such as interior and boundary only serve to part objects.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["components", "watershed"] = "components"
    foreground: tuple[Annotated[int, Field(ge=0)], ...] = (1,)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (1,)
    threshold: Probability = 0.5
    seed_threshold: Probability = 0.5
    min_area_px: Annotated[int, Field(ge=0)] = 0
    connectivity: Literal[1, 2] = 1
    fill_holes: bool = False
    object_name: str = "object"

    @property
    def has_helper_classes(self) -> bool:
        """Whether some foreground class is no seed: a boundary that parts objects and means nothing by itself."""
        return set(self.seeds) < set(self.foreground)

    def mask_classes(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Names of the values of :func:`class_mask`, for a net with these ``classes``."""
        if self.has_helper_classes or len(classes) == 1:
            return ("background", self.object_name if self.has_helper_classes else classes[0])
        return tuple(classes)


def class_mask(
    probabilities_cyx: NDArray[np.float32], rule: LabelRule, threshold: float | None = None
) -> NDArray[np.uint8]:
    """Class of each pixel, as an index into :meth:`LabelRule.mask_classes`.

    Object or not by the foreground's probability, for nets of one or two classes and where classes only serve to part
    objects; else the likeliest class.

    Parameters
    ----------
    probabilities_cyx
        (c, y, x), 0 to 1; channel 0 is background. With one channel it is the foreground itself.
    rule
        The package's rule.
    threshold
        In place of the rule's own, 0 to 1. With several real classes it asks how sure "not background" must be.

    Returns
    -------
    NDArray[np.uint8]
        (y, x).

    """
    if rule.has_helper_classes or len(probabilities_cyx) <= 2:
        limit = rule.threshold if threshold is None else threshold
        mask: NDArray[Any] = foreground_probability(probabilities_cyx, rule) > np.float32(limit)
    elif threshold is None:
        mask = np.argmax(probabilities_cyx, axis=0)
    else:
        sure = 1 - probabilities_cyx[0] > np.float32(threshold)
        mask = np.where(sure, 1 + np.argmax(probabilities_cyx[1:], axis=0), 0)
    return mask.astype(np.uint8)


def foreground_probability(probabilities_cyx: NDArray[np.float32], rule: LabelRule) -> NDArray[np.float32]:
    """Probability of "object" for each pixel (y, x)."""
    return _sum_channels(probabilities_cyx, rule.foreground)


def _sum_channels(probabilities_cyx: NDArray[np.float32], channels: tuple[int, ...]) -> NDArray[np.float32]:
    first, *others = channels
    total: NDArray[np.float32] = probabilities_cyx[first]
    for channel in others:
        total = total + probabilities_cyx[channel]
    return total


def instance_labels(
    probabilities_cyx: NDArray[np.float32], rule: LabelRule, threshold: float | None = None, min_area: int | None = None
) -> NDArray[np.uint16] | NDArray[np.uint32]:
    """Number the objects of one plane.

    Parameters
    ----------
    probabilities_cyx
        (c, y, x), 0 to 1.
    rule
        The package's rule.
    threshold, min_area
        In place of the rule's own.

    Returns
    -------
    NDArray[np.uint16] | NDArray[np.uint32]
        (y, x): 0 background, objects 1 to n in reading order of their first (seed) pixel, without gaps; uint32 beyond
        65,535 objects, so that no label ever overflows.

    """
    foreground = foreground_probability(probabilities_cyx, rule)
    mask = foreground > np.float32(rule.threshold if threshold is None else threshold)
    structure = ndimage.generate_binary_structure(2, rule.connectivity)
    if rule.method == "components":
        labels, count = ndimage.label(mask, structure)
    else:
        sure = mask & (_sum_channels(probabilities_cyx, rule.seeds) > np.float32(rule.seed_threshold))
        seeds, count = ndimage.label(sure, structure)
        labels = watershed(-foreground, seeds, mask=mask, connectivity=rule.connectivity)
    if rule.fill_holes:
        labels = _fill_holes(labels)
    return _renumber(labels, count, rule.min_area_px if min_area is None else min_area)


def _fill_holes(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give each enclosed background region to its neighbour, where it has only one."""
    background, count = ndimage.label(labels == 0)
    filled = labels.copy()
    for region, window in enumerate(ndimage.find_objects(background, count), start=1):
        rows, columns = window
        touches_border = (
            rows.start == 0 or columns.start == 0 or rows.stop == labels.shape[0] or columns.stop == labels.shape[1]
        )
        if touches_border:
            continue
        around = (slice(rows.start - 1, rows.stop + 1), slice(columns.start - 1, columns.stop + 1))
        hole = background[around] == region
        neighbours = np.unique(labels[around][ndimage.binary_dilation(hole) & ~hole])
        if neighbours.size == 1 and neighbours[0] > 0:
            filled[around][hole] = neighbours[0]
    return filled


def _renumber(labels: NDArray[Any], count: int, min_area: int) -> NDArray[np.uint16] | NDArray[np.uint32]:
    """Drop what is smaller than ``min_area`` px and close the gaps; 16 bits as long as the count allows it."""
    rows = max(1, _ROWS_AT_ONCE_PX // max(1, labels.shape[1]))
    bands = [slice(start, start + rows) for start in range(0, labels.shape[0], rows)]
    areas = np.zeros(count + 1, dtype=np.int64)
    for band in bands:
        areas += np.bincount(labels[band].ravel(), minlength=count + 1)
    kept = areas >= max(1, min_area)
    kept[0] = False
    dtype = np.uint16 if np.count_nonzero(kept) <= np.iinfo(np.uint16).max else np.uint32
    number = np.where(kept, np.cumsum(kept), 0).astype(dtype)
    renumbered = np.empty(labels.shape, dtype=dtype)
    for band in bands:
        np.take(number, labels[band], out=renumbered[band])
    return renumbered
