"""Figures of a net over annotated images: one row an image, and the figures of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed
from tqdm import tqdm

from model.label_rule import LabelRule
from model.labels import class_mask, foreground_probability, instance_labels
from model.wording import counted
from training.data.datasets import AnnotatedImage
from training.data.weight_map import separating_ridge
from training.evaluation.prediction import Predictor
from training.measures.foreground import Overlap, class_overlaps, foreground_overlap, overlap_figures
from training.measures.isbi import ISBI_ERRORS, IsbiCounts, isbi_counts, isbi_errors
from training.measures.objects import AP_THRESHOLDS, match_objects
from training.measures.seg import seg_jaccards
from training.recipe import Recipe
from training.scoring import Scoring


@dataclass(frozen=True, slots=True)
class ImageFigures:
    """Figures of one image; None where they are not measured, the object figures of semantic masks above all.

    Parameters
    ----------
    stem
        Name of the image.
    overlaps
        Of the foreground alone, under that name; where the served mask tells several classes, of each of them but the
        background, by its name.
    objects, found
        Reference and found objects.
    ap
        Average precision, by IoU threshold.
    jaccards
        SEG's number for each reference object (:func:`training.measures.seg.seg_jaccards`).
    isbi
        Counts for the errors of the ISBI 2012 challenge.

    """

    stem: str
    overlaps: dict[str, Overlap]
    objects: int | None
    found: int | None
    ap: dict[str, float] | None
    jaccards: tuple[float, ...] | None = None
    isbi: IsbiCounts | None = None

    @property
    def iou(self) -> float:
        """Intersection over union, 0 to 1; of several classes the mean over those that are there on either side."""
        return overlap_figures([self.overlaps])["iou"]

    @property
    def dice(self) -> float:
        """Dice coefficient, 0 to 1; of several classes as for :attr:`iou`."""
        return overlap_figures([self.overlaps])["dice"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Rows of all images, how they are judged, and whether the net saw eight views of each."""

    rows: tuple[ImageFigures, ...]
    scoring: Scoring = field(default_factory=Scoring)
    mirrored: bool = False

    def means(self) -> dict[str, float]:
        """Figures of all images, as far as they are measured and defined.

        ``iou``, ``dice``, ``ap@0.5`` ...: unweighted means over images. ``pooled_iou``: intersection over union of the
        pixels of all images together. Where the served mask tells several classes, ``iou@CLASS`` is the mean over the
        images that show the class on either side, absent where none does, and ``iou``, ``dice`` and ``pooled_iou`` are
        means over the classes but the background. ``seg``: mean over the reference objects of all images; absent where
        there are none. ``warping_error``, ``warping_error_all``, ``rand_error``, ``pixel_error``: of all images as one
        stack, each at the best threshold for that stack.
        """
        figures: dict[str, float] = {}
        if not self.rows:
            return figures
        if self.scoring.measures is None or "foreground" in self.scoring.measures:
            figures |= overlap_figures([row.overlaps for row in self.rows])
        if all(row.ap is not None for row in self.rows):
            for threshold in AP_THRESHOLDS:
                key = str(threshold)
                figures[f"ap@{key}"] = float(np.mean([row.ap[key] for row in self.rows if row.ap is not None]))
        jaccards = [jaccard for row in self.rows for jaccard in row.jaccards or ()]
        if jaccards:
            figures["seg"] = float(np.mean(jaccards))
        return figures | {name: error for name, (error, _) in self._isbi().items()}

    def thresholds(self) -> dict[str, float]:
        """Best threshold of each of the ISBI 2012 challenge's errors; empty where they are not measured."""
        return {name: threshold for name, (_, threshold) in self._isbi().items()}

    def score(self) -> float:
        """Return one number, 0 to 1, to choose the best net by: see :attr:`training.scoring.Scoring.choose_by`.

        Of an error it is what is missing from 1. A figure that these images do not define is 0.
        """
        means, chosen = self.means(), self.scoring.choose_by
        if chosen is not None:
            return 1 - means[chosen] if chosen in ISBI_ERRORS else means.get(chosen, 0.0)
        parts = [means[name] for name in ("iou", "ap@0.5") if name in means]
        return float(np.mean(parts))

    def as_json(self) -> dict[str, Any]:
        """Return means and rows, ready for ``json.dumps``: no NaN, no infinity."""
        report: dict[str, Any] = {"images": len(self.rows), "mirrored": self.mirrored, "means": self.means()}
        if self.thresholds():
            report["thresholds"] = self.thresholds()
        return report | {"rows": [row_as_json(row) for row in self.rows]}

    def as_table(self) -> str:
        """Lines of text: one an image, then the figures of all."""
        width = max([len(row.stem) for row in self.rows] + [5])
        columns = [[f"{'image':<{width}}", *(f"{row.stem:<{width}}" for row in self.rows)]]
        cells = [_table_cells(row, self.scoring) for row in self.rows]
        for name in dict.fromkeys(name for row in cells for name in row):
            entries = [name, *(row.get(name, "-") for row in cells)]
            longest = max(len(entry) for entry in entries)
            columns.append([entry.rjust(longest) for entry in entries])
        lines = ["  ".join(line) for line in zip(*columns, strict=True)]
        means = "  ".join(f"{name} {format_figure(name, value)}" for name, value in self.means().items())
        views = " (8 views each)" if self.mirrored else ""
        return "\n".join([*lines, f"mean over {counted(len(self.rows), 'image')}{views}: {means}"])

    def _isbi(self) -> dict[str, tuple[float, float]]:
        counts = [row.isbi for row in self.rows if row.isbi is not None]
        return isbi_errors(counts) if counts else {}


def format_figure(name: str, value: float) -> str:
    """Digits that tell nets apart: six for warping errors, which are a few pixels in a hundred thousand, else four."""
    return f"{value:.6f}" if name.startswith("warping_error") else f"{value:.4f}"


def row_as_json(row: ImageFigures) -> dict[str, Any]:
    """One image's figures for JSON; its errors of the ISBI 2012 challenge are those at its own best thresholds."""
    entry: dict[str, Any] = {"stem": row.stem, "iou": row.iou, "dice": row.dice}
    if len(row.overlaps) > 1:
        entry |= {f"iou@{name}": overlap.iou if overlap.either else None for name, overlap in row.overlaps.items()}
    for name, overlap in row.overlaps.items():
        entry |= {f"{name}_both_px": overlap.both, f"{name}_either_px": overlap.either}
    entry |= {"objects": row.objects, "found": row.found, "ap": row.ap}
    if row.jaccards is not None:
        entry["seg"] = float(np.mean(row.jaccards)) if row.jaccards else None
    if row.isbi is not None:
        entry |= {name: error for name, (error, _) in isbi_errors([row.isbi]).items()}
    return entry


def figures(
    probabilities_cyx: NDArray[np.float32],
    image: AnnotatedImage,
    rule: LabelRule,
    *,
    instances: bool,
    scoring: Scoring | None = None,
    classes: Sequence[str] = (),
) -> ImageFigures:
    """Score one image by the package's rule.

    Parameters
    ----------
    probabilities_cyx
        What the net gives for it, (c, y, x), 0 to 1.
    image, rule
        The image with its reference, and how probabilities become a mask and objects.
    instances
        Whether the reference numbers objects; else it gives classes.
    scoring
        What is measured; None: what such a reference allows.
    classes
        Names of the net's classes, asked for where :func:`model.labels.class_mask` tells several apart.

    """
    measured = (scoring or Scoring()).measured("instances" if instances else "semantic")
    mask = class_mask(probabilities_cyx, rule)
    if instances or rule.tells_object_or_not(len(probabilities_cyx)):
        overlaps = {"foreground": foreground_overlap(mask, image.labels_yx)}
    else:
        overlaps = class_overlaps(mask, image.labels_yx, classes)
    objects = found = ap = jaccards = None
    if "ap" in measured or "seg" in measured:
        labels = instance_labels(probabilities_cyx, rule)
        matches = match_objects(labels, image.labels_yx)
        objects = matches[0].true_positives + matches[0].false_negatives
        found = matches[0].true_positives + matches[0].false_positives
        if "ap" in measured:
            ap = {str(threshold): match.ap for threshold, match in zip(AP_THRESHOLDS, matches, strict=True)}
        if "seg" in measured:
            jaccards = tuple(seg_jaccards(labels, image.labels_yx).tolist())
    return ImageFigures(
        image.stem,
        overlaps,
        objects,
        found,
        ap,
        jaccards,
        isbi_counts(parted(probabilities_cyx, rule), image.labels_yx) if "isbi" in measured else None,
    )


def parted(probabilities_cyx: NDArray[np.float32], rule: LabelRule) -> NDArray[np.float32]:
    """Probability of "object" (y, x), with lines of zeros where a rule's watershed parts objects that touch.

    A threshold of this map gives objects apart that the rule tells apart: the ISBI 2012 challenge, which scored
    components of thresholded maps, would see them so. Below the rule's own threshold objects grow on until they meet,
    for the challenge has thresholds of its own; none is dropped for its area or score.
    """
    foreground = foreground_probability(probabilities_cyx, rule)
    if rule.method == "components":
        return foreground
    objects = instance_labels(probabilities_cyx, rule.with_values(min_area_px=0, min_score=0.0)).astype(np.int32)
    grown = watershed(-foreground, objects, connectivity=rule.connectivity)
    return np.where(separating_ridge(grown), np.float32(0), foreground)


def evaluate_images(
    images: Sequence[AnnotatedImage], predictor: Predictor, *, instances: bool, scoring: Scoring | None = None
) -> Evaluation:
    """Run a net over whole images as served, and score each."""
    rows = tuple(
        figures(
            predictor.probabilities(image.image_yxc),
            image,
            predictor.label_rule,
            instances=instances,
            scoring=scoring,
            classes=predictor.classes,
        )
        for image in tqdm(images, desc="evaluate", unit="image", leave=False, disable=None)
    )
    return Evaluation(rows, scoring or Scoring(), predictor.mirror)


def score(predictor: Predictor, recipe: Recipe, images: Sequence[AnnotatedImage]) -> Evaluation:
    """Score a net on images, by what the recipe measures."""
    return evaluate_images(images, predictor, instances=recipe.data.kind == "instances", scoring=recipe.scoring)


def _table_cells(row: ImageFigures, scoring: Scoring) -> dict[str, str]:
    """Entries of one line of the table, by column."""
    cells: dict[str, str] = {}
    if scoring.measures is None or "foreground" in scoring.measures:
        cells |= {"IoU": f"{row.iou:.4f}", "Dice": f"{row.dice:.4f}"}
        if len(row.overlaps) > 1:
            cells |= {f"IoU {name}": f"{one.iou:.4f}" if one.either else "-" for name, one in row.overlaps.items()}
    cells |= {
        name: "-" if count is None else str(count) for name, count in (("objects", row.objects), ("found", row.found))
    }
    if row.ap is not None or scoring.measures is None:
        cells["AP@0.5"] = "-" if row.ap is None else f"{row.ap['0.5']:.4f}"
    if row.jaccards is not None:
        cells["SEG"] = f"{np.mean(row.jaccards):.4f}" if row.jaccards else "-"
    if row.isbi is not None:
        errors = isbi_errors([row.isbi])
        cells |= {
            name.removesuffix("_error"): format_figure(name, errors[name][0])
            for name in ISBI_ERRORS
            if name != "warping_error_all"
        }
    return cells
