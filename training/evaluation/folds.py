"""Figures over folds: of each, their mean and spread, and of all images pooled, each scored by a net new to it."""

from __future__ import annotations

import logging
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from model.wording import counted
from training.data.datasets import AnnotatedImage
from training.data.origin import Origin, copies_told
from training.errors import FoldsMismatch
from training.evaluation.evaluate import Evaluation, format_figure, row_as_json
from training.recipe import Recipe
from training.runs.checkpoint import Checkpoint

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fold:
    """One net's figures on the images that were kept from it."""

    name: str
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over folds: mean and standard deviation (n - 1; None for one fold), and of all images pooled."""

    mean: float
    std: float | None
    pooled: float


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """Folds that were scored, and what they leave out.

    Parameters
    ----------
    folds
        One or more, all judged alike; no image stands in two of them.
    images
        Images in the data folder.
    missing
        Names of the folds that were not run to their end.
    held_out_chose
        Whether the images of a fold chose the state of the net that is scored on them, so that figures flatter.

    """

    folds: tuple[Fold, ...]
    images: int
    missing: tuple[str, ...] = ()
    held_out_chose: bool = False

    def __post_init__(self) -> None:
        first = self.folds[0]
        for fold in self.folds:
            if fold.evaluation.scoring != first.evaluation.scoring:
                raise FoldsMismatch(
                    f"{first.name} and {fold.name} are judged by different measures ([scoring] of their recipes); name "
                    "one recipe for both (--recipe), or score them one by one"
                )
        classes = list(dict.fromkeys(tuple(row.overlaps) for row in self.pooled.rows))
        if len(classes) > 1:
            told = " and ".join(", ".join(names) for names in classes[:2])
            raise FoldsMismatch(f"the folds' nets tell different classes apart ({told}); score them one by one")
        holders = Counter(row.stem for row in self.pooled.rows)
        twice = [stem for stem, count in holders.items() if count > 1]
        if twice:
            names = [fold.name for fold in self.folds if twice[0] in {row.stem for row in fold.evaluation.rows}]
            raise FoldsMismatch(
                f"scored twice: {counted(len(twice), 'image')}, {twice[0]} by {' and '.join(names)}; pooled figures "
                "count each once: name runs of different folds of one split"
            )

    @property
    def pooled(self) -> Evaluation:
        """All rows as one evaluation."""
        rows = tuple(row for fold in self.folds for row in fold.evaluation.rows)
        return replace(self.folds[0].evaluation, rows=rows)

    def figures(self) -> dict[str, Spread]:
        """Each figure over the folds that define it, and pooled."""
        spreads = {}
        of_folds = [fold.evaluation.means() for fold in self.folds]
        for name, pooled in self.pooled.means().items():
            values = [means[name] for means in of_folds if name in means]
            spread = statistics.stdev(values) if len(values) > 1 else None
            spreads[name] = Spread(statistics.fmean(values), spread, pooled)
        return spreads

    def as_json(self) -> dict[str, Any]:
        """Return all figures, ready for ``json.dumps``; ``images``, ``means`` and ``rows`` are those of one evaluation.

        Of a stack's errors the threshold is chosen for each fold, and for the pool anew.
        """
        rows = [{"fold": fold.name} | row_as_json(row) for fold in self.folds for row in fold.evaluation.rows]
        return self.pooled.as_json() | {
            "of_images": self.images,
            "complete": not self.missing and len(rows) == self.images,
            "missing": list(self.missing),
            "held_out_chose": self.held_out_chose,
            "figures": {
                name: {"mean": spread.mean, "std": spread.std, "pooled": spread.pooled}
                for name, spread in self.figures().items()
            },
            "folds": [
                {
                    "name": fold.name,
                    "images": len(fold.evaluation.rows),
                    "figures": fold.evaluation.means(),
                    "thresholds": fold.evaluation.thresholds(),
                }
                for fold in self.folds
            ],
            "rows": rows,
        }

    def as_table(self) -> str:
        """Lines of text: one a fold, mean and standard deviation over folds, all images pooled, what is missing."""
        spreads = self.figures()
        lines = [["fold", "images", *spreads]]
        lines.extend(
            [fold.name, str(len(fold.evaluation.rows)), *_entries(spreads, fold.evaluation.means())]
            for fold in self.folds
        )
        lines.append(["mean", "", *_entries(spreads, {name: spread.mean for name, spread in spreads.items()})])
        deviations = {name: spread.std for name, spread in spreads.items() if spread.std is not None}
        lines.append(["std", "", *_entries(spreads, deviations)])
        lines.append(["pooled", str(len(self.pooled.rows)), *_entries(spreads, self.pooled.means())])
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        text = [
            "  ".join([line[0].ljust(widths[0]), *(e.rjust(w) for e, w in zip(line[1:], widths[1:], strict=True))])
            for line in lines
        ]
        return "\n".join([*(line.rstrip() for line in text), *self._remarks()])

    def _remarks(self) -> list[str]:
        remarks = ["each figure is the mean over eight views of an image"] if self.pooled.mirrored else []
        if self.held_out_chose:
            remarks.append("each fold's images chose the state of its net: figures flatter (schedule.keep = 'last')")
        scored = len(self.pooled.rows)
        if self.missing:
            remarks.append(f"not run to the end: {', '.join(self.missing)}")
        if scored < self.images:
            remarks.append(f"these are figures of {scored} of {counted(self.images, 'image')}")
        return remarks


def _entries(names: dict[str, Spread], values: dict[str, float]) -> list[str]:
    return [format_figure(name, values[name]) if name in values else "-" for name in names]


def warn_of_changed(checkpoint: Checkpoint, images: Sequence[AnnotatedImage], recipe: Recipe, name: str) -> None:
    """Say in the log where images, read by ``recipe``, have the names of a run's images but are others."""
    if not recipe.reads_labels_as(checkpoint.read_recipe()):
        _log.info("%s: labels are read otherwise than in the run, so images are not compared with the run's", name)
        return
    changed = checkpoint.changed({image.stem: image.digest() for image in images})
    if changed:
        _log.warning(
            "%s: %d of %d images have names of the run's images, but other pixels or labels (%s is the first): their "
            "figures are not those of the run's split",
            name,
            len(changed),
            len(images),
            changed[0],
        )


def warn_of_seen(origin: Origin, pixels: Mapping[str, str], name: str) -> None:
    """Say in the log where a net is judged by images that ``origin`` knows: its net to begin with, or it itself.

    Parameters
    ----------
    origin
        What the run began with; of a run or a package itself, what is known of it.
    name
        Of the run; where ``origin`` is the net itself, the name in there.
    pixels
        Digest of the pixels of each image that it is judged by, by stem.

    """
    seen = origin.seen_among(pixels)
    if seen:
        _log.warning(
            "%s: of %d images that it is judged by, %d taught %s, or a net before that one (%s is the first): their "
            "figures flatter. Judge it by images that none of these nets has learnt",
            name,
            len(pixels),
            len(seen),
            "it" if name == origin.name else f"{origin.name}, which it began with",
            seen[0],
        )
    if origin.unknown:
        _log.info("what %s was trained on is not known here", " and ".join(origin.unknown))


def tell_split(split: Mapping[str, Sequence[str]], pixels: Mapping[str, str], *, warn: bool) -> None:
    """Say in the log how many images train and validate and, to ``warn``, which do both under two names."""
    _log.info("%s for training, %d for validation", counted(len(split["training"]), "image"), len(split["validation"]))
    if warn and (told := copies_told(split, pixels)):
        _log.warning("%s. Keep each picture once in the folder", told)


def require_unseen(checkpoint: Checkpoint, images: Sequence[AnnotatedImage], recipe: Recipe, name: str) -> None:
    """Make sure that a net was trained on none of the images that it shall be scored on.

    Pictures that the run itself held out, although copies of them taught it, are only warned of.

    Raises
    ------
    FoldsMismatch
        Where it was: images came or went since, and the split by names with them.

    """
    warn_of_changed(checkpoint, images, recipe, name)
    pixels = {image.stem: image.pixels_digest() for image in images}
    warn_of_seen(checkpoint.begun_with(name).origin, pixels, name)
    held_out = set(checkpoint.among_side("validation", pixels))
    seen = [stem for stem in checkpoint.among_side("training", pixels) if stem not in held_out]
    if seen:
        raise FoldsMismatch(
            f"{name} was trained on {len(seen)} of the {counted(len(images), 'image')} that it shall be scored on "
            f"({seen[0]}); bring back the images that it was trained with, or leave it out"
        )
