"""Pixels of the foreground, or of each class, on both sides: IoU and Dice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.datasets import IGNORE


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pixels of the foreground, or of one class, on both sides, and on either."""

    both: int
    either: int

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where neither side has any."""
        return self.both / self.either if self.either else 1.0

    @property
    def dice(self) -> float:
        """Twice the intersection over the sum of both areas; 1 where neither side has any."""
        return 2 * self.both / (self.both + self.either) if self.either else 1.0


def foreground_overlap(mask_yx: NDArray[Any], reference_yx: NDArray[Any]) -> Overlap:
    """Compare two masks (non-zero is foreground) where the reference is not :data:`training.data.datasets.IGNORE`."""
    known = reference_yx != IGNORE
    return _overlap((mask_yx != 0) & known, (reference_yx != 0) & known)


def class_overlaps(mask_yx: NDArray[Any], reference_yx: NDArray[Any], classes: Sequence[str]) -> dict[str, Overlap]:
    """Compare two masks class by class where the reference is not :data:`training.data.datasets.IGNORE`.

    Parameters
    ----------
    mask_yx, reference_yx
        Class of each pixel (y, x), an index into ``classes``.
    classes
        Names, the background first.

    Returns
    -------
    dict[str, Overlap]
        Of each class but the background, by its name; with its number behind it where several are called so.

    """
    known = reference_yx != IGNORE
    return {
        f"{name} {number}" if classes.count(name) > 1 else name: _overlap(
            (mask_yx == number) & known, reference_yx == number
        )
        for number, name in enumerate(classes)
        if number
    }


def overlap_figures(images: Sequence[Mapping[str, Overlap]]) -> dict[str, float]:
    """Figures of all images, 0 to 1.

    Parameters
    ----------
    images
        Of each image, one or more, its overlaps by name: of the foreground alone or of several classes.

    Returns
    -------
    dict[str, float]
        ``iou``, ``dice``: means over the images. ``pooled_iou``: of the pixels of all images together. Of several
        classes ``iou@CLASS``: mean over the images that show the class on either side, absent where none does; the
        others are then means over the classes of what is so measured. 1 where there is nothing on either side.

    """
    several = any(len(image) > 1 for image in images)
    of_class: dict[str, list[Overlap]] = {name: [] for image in images for name in image}
    for image in images:
        for name, overlap in image.items():
            if overlap.either or not several:
                of_class[name].append(overlap)
    there = {name: overlaps for name, overlaps in of_class.items() if overlaps}
    ious = {f"iou@{name}": _mean([one.iou for one in overlaps]) for name, overlaps in there.items()}
    dices = [_mean([one.dice for one in overlaps]) for overlaps in there.values()]
    pooled = [
        Overlap(sum(one.both for one in overlaps), sum(one.either for one in overlaps)).iou
        for overlaps in there.values()
    ]
    figures = {"iou": _mean(list(ious.values()))} | (ious if several else {})
    return figures | {"dice": _mean(dices), "pooled_iou": _mean(pooled)}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 1.0


def _overlap(found_yx: NDArray[np.bool_], wanted_yx: NDArray[np.bool_]) -> Overlap:
    return Overlap(int(np.count_nonzero(found_yx & wanted_yx)), int(np.count_nonzero(found_yx | wanted_yx)))
