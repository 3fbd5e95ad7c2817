"""What a lower precision costs: the same net in fp32 and below, over whole held-out images, and what is too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from model.agreement import Agreement, agreement
from model.package import Package
from model.session import SessionOptions, open_session
from training.data.datasets import AnnotatedImage
from training.evaluation.evaluate import Evaluation, ImageFigures, figures
from training.evaluation.prediction import session_predictor
from training.packaging.quantize import pooled
from training.recipe import Recipe

_MOST_OTHER_CLASS = 0.001
_MOST_LOSS = {"iou": 0.002, "pooled_iou": 0.002, "ap@0.5": 0.005}


@dataclass(frozen=True, slots=True)
class Judged:
    """What a lower precision costs on held-out images: agreement with fp32, and the figures of both."""

    agreement: Agreement
    fp32: dict[str, float]
    lower: dict[str, float]

    def problem(self) -> str | None:
        """Say which limit is exceeded, if any."""
        if self.agreement.other_class > _MOST_OTHER_CLASS:
            return (
                f"the class differs in {self.agreement.other_class:.3%} of pixels, {_MOST_OTHER_CLASS:.1%} is the limit"
            )
        for name in self._limited():
            most, lower = _MOST_LOSS[_measure_of(name)], self.lower.get(name, 0.0)
            if self.fp32[name] - lower > most:
                return f"{name} falls from {self.fp32[name]:.4f} to {lower:.4f}, by {most} at most is the limit"
        return None

    def table(self, precision: str) -> str:
        """Return the figures of both in Markdown; ``precision`` is what the lower one is called."""
        rows = [f"| {name} | {self.fp32[name]:.4f} | {self.lower.get(name, 0.0):.4f} |" for name in self._limited()]
        return "\n".join([f"| measure | fp32 | {precision} |", "| --- | --- | --- |", *rows])

    def __str__(self) -> str:
        changes = [f"{name} {self.fp32[name]:.4f} -> {self.lower.get(name, 0.0):.4f}" for name in self._limited()]
        return f"{self.agreement}; {', '.join(changes)}"

    def _limited(self) -> list[str]:
        """Names of the figures that may fall by so much alone."""
        return [name for name in self.fp32 if _measure_of(name) in _MOST_LOSS]


def _measure_of(name: str) -> str:
    """Name by which a figure has its limit: that of a class is that of all."""
    return "iou" if name.startswith("iou@") else name


def judge(package: Package, recipe: Recipe, images: Sequence[AnnotatedImage], options: SessionOptions) -> Judged:
    """Compare a package in one precision with the same package in fp32 on the same backend, over whole images.

    Parameters
    ----------
    package, recipe
        What runs, and how it is scored.
    images
        Held out of its training.
    options
        The backend and the lower precision.

    Raises
    ------
    ModelError
        Where the backend or the precision is not there.

    """
    predictors = [
        session_predictor(package, open_session(package, chosen))
        for chosen in (replace(options, precision="fp32"), options)
    ]
    parts: list[Agreement] = []
    pixels: list[int] = []
    rows: tuple[list[ImageFigures], list[ImageFigures]] = [], []
    instances = recipe.data.kind == "instances"
    for image in tqdm(images, desc=f"{options.precision} against fp32", unit="image", leave=False, disable=None):
        fp32, lower = (predictor.probabilities(image.image_yxc) for predictor in predictors)
        parts.append(agreement(lower[np.newaxis], fp32[np.newaxis]))
        pixels.append(fp32[0].size)
        for side, probabilities in zip(rows, (fp32, lower), strict=True):
            side.append(
                figures(
                    probabilities,
                    image,
                    package.spec.label_rule,
                    instances=instances,
                    scoring=recipe.scoring,
                    classes=package.spec.classes,
                )
            )
    means = [Evaluation(tuple(side), recipe.scoring).means() for side in rows]
    return Judged(pooled(parts, pixels), means[0], means[1])
