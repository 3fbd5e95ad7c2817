"""How large the objects of masks are: their equivalent diameters, which a package tells of what its net has learnt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.datasets import IGNORE, AnnotatedImage
from training.data.weight_map import close_numbers
from training.recipe import Recipe

Percentiles = tuple[float, float, float]
"""5th, 50th and 95th percentile of diameters of the circle of equal area, px."""

_FEWEST_OBJECTS = 10
SPECK_PX = 10
"""A piece of a class smaller than this is the annotator's hand, not an object."""


def learnt_diameters(images: Sequence[AnnotatedImage], recipe: Recipe) -> Percentiles | None:
    """Measure the objects that a net learns, as it will be asked for them, in px of its input.

    Parameters
    ----------
    images
        The training images.
    recipe
        How their labels are read, and the label rule.

    Returns
    -------
    Percentiles | None
        To a tenth of a pixel, as :func:`percentiles_px`; None where there are fewer than ten objects, and where
        :func:`masks_tell_objects` says that the masks tell none.

    """
    if not masks_tell_objects(recipe):
        return None
    areas, inner = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=bool)]
    for image in images:
        labels = image.labels_yx
        if recipe.data.kind == "instances":
            cells = close_numbers(np.maximum(labels, 0))
        else:
            cells = components(np.isin(labels, recipe.labels.foreground))
        _, area, whole = areas_of(cells, labels == IGNORE)
        areas.append(area)
        inner.append(whole)
    sizes = np.concatenate(areas)
    if sizes.size < _FEWEST_OBJECTS:
        return None
    low, middle, high = percentiles_px(sizes, np.concatenate(inner))
    return round(low, 1), round(middle, 1), round(high, 1)


def masks_tell_objects(recipe: Recipe) -> bool:
    """Whether objects are numbered in the masks, or are connected components of classes by the label rule.

    A watershed parts what semantic masks join in ways that these do not tell.
    """
    return recipe.data.kind == "instances" or recipe.labels.method == "components"


def components(object_yx: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number the pieces of a class (y, x) that share edges, 0 elsewhere, without specks; numbers may be missing."""
    cells, _ = ndimage.label(object_yx)
    areas = np.bincount(cells.ravel())
    return np.where(areas[cells] >= SPECK_PX, cells, 0).astype(np.int32)


def areas_of(
    cells_yx: NDArray[np.int32], unknown_yx: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Measure the objects of one image.

    Parameters
    ----------
    cells_yx
        Their numbers, int32, 0 elsewhere.
    unknown_yx
        Pixels that nobody has annotated, which cut objects as the image's edge does.

    Returns
    -------
    tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]
        The numbers that there are, areas in px, and whether an object is whole: nothing cuts it.

    """
    areas = np.bincount(cells_yx.ravel())
    numbers = np.flatnonzero(areas[1:]) + 1
    ends = [cells_yx[0], cells_yx[-1], cells_yx[:, 0], cells_yx[:, -1]]
    if unknown_yx is not None and unknown_yx.any():
        ends.append(cells_yx[ndimage.binary_dilation(unknown_yx, np.ones((3, 3), dtype=bool))])
    return numbers, areas[numbers], ~np.isin(numbers, np.concatenate(ends))


def percentiles_px(areas: NDArray[np.int64], whole: NDArray[np.bool_]) -> Percentiles:
    """Percentiles of diameters, of the objects that are whole; of all, where there are fewer than ten of these."""
    measured = areas[whole] if np.count_nonzero(whole) >= _FEWEST_OBJECTS else areas
    low, middle, high = np.percentile(2 * np.sqrt(measured / np.pi), (5, 50, 95)).tolist()
    return low, middle, high
