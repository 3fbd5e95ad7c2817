"""Figures of a net over annotated images: one row an image, and the means over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.labels import LabelRule, foreground_probability, instance_labels
from training.datasets import AnnotatedImage
from training.metrics import AP_THRESHOLDS, foreground_overlap, match_objects
from training.prediction import Predictor


@dataclass(frozen=True, slots=True)
class ImageFigures:
    """Figures of one image; the object figures are None for semantic masks."""

    stem: str
    iou: float
    dice: float
    foreground_both_px: int
    foreground_either_px: int
    objects: int | None
    found: int | None
    ap: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Rows of all images."""

    rows: tuple[ImageFigures, ...]

    def means(self) -> dict[str, float]:
        """Unweighted means over images: ``iou``, ``dice``, and ``ap@0.5`` ... where there are objects.

        ``pooled_iou`` is the intersection over union of the pixels of all images together.
        """
        means = {name: float(np.mean([getattr(row, name) for row in self.rows])) for name in ("iou", "dice")}
        either = sum(row.foreground_either_px for row in self.rows)
        means["pooled_iou"] = sum(row.foreground_both_px for row in self.rows) / either if either else 1.0
        if all(row.ap is not None for row in self.rows):
            for threshold in AP_THRESHOLDS:
                key = str(threshold)
                means[f"ap@{key}"] = float(np.mean([row.ap[key] for row in self.rows if row.ap is not None]))
        return means

    def score(self) -> float:
        """One number to choose the best net by: mean of IoU and AP at 0.5, or IoU alone without objects."""
        means = self.means()
        return (means["iou"] + means["ap@0.5"]) / 2 if "ap@0.5" in means else means["iou"]

    def as_json(self) -> dict[str, Any]:
        """Return means and rows, ready for ``json.dumps``."""
        return {"images": len(self.rows), "means": self.means(), "rows": [asdict(row) for row in self.rows]}

    def as_table(self) -> str:
        """Lines of text: one an image, then the means."""
        width = max([len(row.stem) for row in self.rows] + [5])
        lines = [f"{'image':<{width}}  {'IoU':>6} {'Dice':>6} {'objects':>7} {'found':>6} {'AP@0.5':>6}"]
        for row in self.rows:
            objects = "-" if row.objects is None else str(row.objects)
            found = "-" if row.found is None else str(row.found)
            ap = "-" if row.ap is None else f"{row.ap['0.5']:.4f}"
            lines.append(f"{row.stem:<{width}}  {row.iou:6.4f} {row.dice:6.4f} {objects:>7} {found:>6} {ap:>6}")
        means = "  ".join(f"{name} {value:.4f}" for name, value in self.means().items())
        return "\n".join([*lines, f"mean over {len(self.rows)} images: {means}"])


def figures(
    probabilities_cyx: NDArray[np.float32], image: AnnotatedImage, rule: LabelRule, *, instances: bool
) -> ImageFigures:
    """Score one image's probabilities (c, y, x) by the package's rule."""
    mask = foreground_probability(probabilities_cyx, rule) > np.float32(rule.threshold)
    overlap = foreground_overlap(mask, image.labels_yx)
    if not instances:
        return ImageFigures(image.stem, overlap.iou, overlap.dice, overlap.both, overlap.either, None, None, None)
    labels = instance_labels(probabilities_cyx, rule)
    matches = match_objects(labels, image.labels_yx)
    return ImageFigures(
        image.stem,
        overlap.iou,
        overlap.dice,
        overlap.both,
        overlap.either,
        objects=matches[0].true_positives + matches[0].false_negatives,
        found=matches[0].true_positives + matches[0].false_positives,
        ap={str(threshold): match.ap for threshold, match in zip(AP_THRESHOLDS, matches, strict=True)},
    )


def evaluate_images(images: Sequence[AnnotatedImage], predictor: Predictor, *, instances: bool) -> Evaluation:
    """Run a net over whole images as served, and score each."""
    return Evaluation(
        tuple(
            figures(predictor.probabilities(image.image_yxc), image, predictor.label_rule, instances=instances)
            for image in tqdm(images, desc="evaluate", unit="image", leave=False, disable=None)
        )
    )
