"""The images that a net does worst on, with what it found drawn over what it should have found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.labels import class_mask, instance_labels
from training.data.datasets import IGNORE, AnnotatedImage
from training.data.weight_map import close_numbers
from training.evaluation.evaluate import Evaluation, ImageFigures, row_as_json
from training.evaluation.prediction import Predictor
from training.measures.overlaps import annotated_overlaps
from training.report.page import flatten
from training.report.pictures import (
    BOTH,
    FOUND,
    REFERENCE,
    Picture,
    display_size,
    draw_cross,
    draw_ring,
    grey_picture,
    grey_range,
    outlines,
    paint,
    resize_image,
    resize_labels,
)

SIDE_PX = 768
"""Longest side of a picture."""

MATCHED_IOU = 0.5
"""Objects that overlap less are not the same."""

_MARK_PX = 7.0
_TINT = 0.4
_DARK, _DARK_GAMMA = 0.25, 0.6


@dataclass(frozen=True, slots=True)
class Case:
    """One image.

    Parameters
    ----------
    stem
        Its name.
    figures
        All its figures.
    image, overlay
        As it is, and dimmed under outlines and marks.
    missed, false
        Number of objects that were not found, and of those found that are none; None for semantic masks.

    """

    stem: str
    figures: dict[str, Any]
    image: Picture
    overlay: Picture
    missed: int | None
    false: int | None


def worst_rows(evaluation: Evaluation, count: int) -> list[ImageFigures]:
    """Rows with the lowest scores (:meth:`training.evaluation.evaluate.Evaluation.score`), the worst first."""
    scored = [(Evaluation((row,), evaluation.scoring).score(), row) for row in evaluation.rows]
    return [row for _, row in sorted(scored, key=lambda pair: pair[0])[:count]]


def show_case(image: AnnotatedImage, row: ImageFigures, predictor: Predictor, *, instances: bool) -> Case:
    """Predict an image again, and draw it."""
    probabilities, rule = predictor.probabilities(image.image_yxc), predictor.label_rule
    missed: list[int] | None = None
    false: list[int] | None = None
    if instances:
        image = replace(image, labels_yx=close_numbers(image.labels_yx))
        labels: NDArray[Any] = instance_labels(probabilities, rule)
        missed, false = unmatched(labels, image.labels_yx)
    else:
        labels = class_mask(probabilities, rule).astype(np.int32)
        if rule.tells_object_or_not(len(probabilities)):  # the reference may tell more
            image = replace(image, labels_yx=np.where(image.labels_yx == IGNORE, IGNORE, image.labels_yx != 0))
    return Case(
        stem=image.stem,
        figures=flatten(row_as_json(row)),
        image=_shown(image),
        overlay=overlay(image, labels, missed, false),
        missed=None if missed is None else len(missed),
        false=None if false is None else len(false),
    )


def unmatched(labels_yx: NDArray[Any], reference_yx: NDArray[Any]) -> tuple[list[int], list[int]]:
    """Numbers of the reference objects without a partner, and of the found ones.

    Partners are matched one to one, as in the figures (:func:`training.measures.objects.match_objects`), with an IoU of
    :data:`MATCHED_IOU` or more; what nobody has annotated counts on neither side.
    """
    pairs = annotated_overlaps(labels_yx, reference_yx)
    sides = zip((pairs.wanted_px, pairs.found_px), pairs.matched(MATCHED_IOU), strict=True)
    missed, false = (np.setdiff1d(np.flatnonzero(areas), matched).tolist() for areas, matched in sides)
    return missed, false


def overlay(
    image: AnnotatedImage, labels_yx: NDArray[Any], missed: Sequence[int] | None, false: Sequence[int] | None
) -> Picture:
    """Draw outlines of what should be found and of what was, and mark the differences.

    Parameters
    ----------
    image
        The image and its reference.
    labels_yx
        What was found: object numbers, or classes.
    missed, false
        Numbers of reference objects to tint and ring, and of found ones to tint and cross; None for semantic masks,
        where differing pixels are tinted.

    """
    picture = (_shown(image).astype(np.float32) * 0.75).astype(np.uint8)
    size = (picture.shape[0], picture.shape[1])
    reference = np.where(image.labels_yx == IGNORE, 0, image.labels_yx)
    found = np.where(image.labels_yx == IGNORE, 0, labels_yx)
    wanted_shown, found_shown = resize_labels(reference, size), resize_labels(found, size)
    if missed is None or false is None:
        tints = ((wanted_shown > 0) & (found_shown != wanted_shown), (found_shown > 0) & (wanted_shown == 0))
    else:
        tints = (np.isin(wanted_shown, missed), np.isin(found_shown, false))
    for where, colour in zip(tints, (REFERENCE, FOUND), strict=True):
        picture = paint(picture, where, colour, _TINT)
    lines = [outlines(plane.astype(np.int32), 1) for plane in (wanted_shown, found_shown)]
    for where, colour in ((lines[0], REFERENCE), (lines[1], FOUND), (lines[0] & lines[1], BOTH)):
        picture = paint(picture, where, colour)
    scale = size[0] / image.labels_yx.shape[0]
    for centre in _centres(reference, missed or ()):
        picture = draw_ring(picture, (centre[0] * scale, centre[1] * scale), _MARK_PX, REFERENCE)
    for centre in _centres(found, false or ()):
        picture = draw_cross(picture, (centre[0] * scale, centre[1] * scale), _MARK_PX, FOUND)
    return picture


def _shown(image: AnnotatedImage) -> Picture:
    size = display_size((image.labels_yx.shape[0], image.labels_yx.shape[1]), SIDE_PX)
    low, high = grey_range(image.image_yxc)
    # dim objects on a dark ground would not be seen, and it is they that are missed
    dark = float(image.image_yxc.mean()) - low < _DARK * (high - low)
    return grey_picture(resize_image(image.image_yxc, size), low, high, _DARK_GAMMA if dark else 1.0)


def _centres(labels_yx: NDArray[Any], numbers: Sequence[int]) -> list[tuple[float, float]]:
    """Of each object the pixel nearest to its centre of mass: a place on the object itself."""
    windows = ndimage.find_objects(labels_yx.astype(np.int32))
    centres = []
    for number in numbers:
        rows, columns = windows[number - 1]
        pixels = np.argwhere(labels_yx[rows, columns] == number)
        nearest = pixels[np.argmin(((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1))]
        centres.append((float(nearest[0] + rows.start) + 0.5, float(nearest[1] + columns.start) + 0.5))
    return centres
