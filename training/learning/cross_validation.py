"""Cross-validation: a net for each fold, and every image scored once, by the net that was not trained on it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.data.datasets import AnnotatedImage, load_for
from training.data.loading import require_workers
from training.data.splits import split_for_run, split_images
from training.errors import FoldsMismatch, RecipeError
from training.evaluation.evaluate import Evaluation, score
from training.evaluation.folds import CrossValidation, Fold
from training.evaluation.prediction import net_predictor
from training.learning.trainer import train
from training.recipe import Recipe
from training.recipe_differences import differences
from training.runs.checkpoint import Arguments, Checkpoint, load_checkpoint
from training.runs.command_line import of_fold
from training.runs.run_folder import RunFiles
from training.writing import require_folder, write_text

REPORT_NAME = "cross-validation.json"

_REMEDY = "give another number of --folds, or leave this one out with --only"

_log = logging.getLogger(__name__)


def fold_folder(out: Path, number: int, count: int) -> Path:
    """Folder of the run of one fold, numbered from 1."""
    return out / f"fold-{number}-of-{count}"


def cross_validate(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    folds: int,
    only: Sequence[int] | None = None,
    resume: bool = False,
    device: str = "cpu",
    workers: int = 1,
    mirror: bool = False,
    arguments: Arguments = (),
) -> CrossValidation:
    """Train a net for each fold, then score every image that a finished fold held out; ``out`` receives the report.

    Parameters
    ----------
    recipe
        What to do; its own fold or validation fraction plays no part.
    data
        The data folder.
    out
        Receives a run's folder for each fold (:func:`fold_folder`) and ``cross-validation.json``.
    folds
        How many, 2 or more.
    only
        Numbers of the folds to train now, from 1; None: all. Folds that finished earlier are scored as well; what
        the others would be trained on plays no part.
    resume
        Leave out folds that have finished, and go on with those that have begun.
    device, workers
        As in :func:`training.learning.trainer.train`.
    mirror
        Average over the eight mirrored views.
    arguments
        The command, kept for the folds' reports and cards.

    Raises
    ------
    TrainingError
        As :func:`training.learning.trainer.train`; :class:`training.errors.RecipeError` for a fold that does not exist,
        :class:`training.errors.NothingToLearn` where a fold that is to be trained has no images, or no objects, to
        learn from, :class:`training.errors.FoldsMismatch` where a finished fold is of another recipe or other images.

    """
    if folds < 2:
        raise RecipeError(f"--folds {folds} leaves nothing to train on or to score; give 2 or more")
    strange = [number for number in only or () if not 1 <= number <= folds]
    if strange:
        raise RecipeError(f"--only {strange[0]} is none of the {folds} folds; give numbers from 1 to {folds}")
    require_workers(workers)
    require_folder(out)
    recipes = {number: recipe.with_fold(f"{number}/{folds}") for number in range(1, folds + 1)}
    images = load_for(recipe, data)
    runs = {number: fold_folder(out, number, folds) for number in recipes}
    digests = {image.stem: image.digest() for image in images}
    for number, run in runs.items():  # all that can be refused, before hours are spent
        asked = only is None or number in only
        if asked and not resume:
            RunFiles(run).require(resume=False)
        if RunFiles(run).last.exists():
            _require_same(load_checkpoint(RunFiles(run).last), recipes[number], images, digests, run)
        if asked and not _finished(run, recipes[number]):
            split_for_run(images, recipes[number].data, data, _REMEDY)

    for number in only or recipes:
        if _finished(runs[number], recipes[number]):
            _log.info("fold %d of %d has finished", number, folds)
            continue
        _log.info("fold %d of %d: %s", number, folds, runs[number])
        begun = RunFiles(runs[number]).last.exists()
        given = of_fold(arguments, f"{number}/{folds}", runs[number])
        train(recipes[number], data, runs[number], resume=begun, arguments=given, device=device, workers=workers)

    done = [number for number in recipes if _finished(runs[number], recipes[number])]
    scored = []
    for number in done:
        checkpoint = load_checkpoint(RunFiles(runs[number]).best)
        scored.append(Fold(f"{number}/{folds}", _score(checkpoint, recipes[number], images, device, mirror=mirror)))
    result = CrossValidation(
        tuple(scored),
        len(images),
        missing=tuple(f"{number}/{folds}" for number in recipes if number not in done),
        held_out_chose=recipe.schedule.keep == "best",
    )
    write_text(out / REPORT_NAME, json.dumps(result.as_json(), indent=2, allow_nan=False) + "\n")
    return result


def _score(
    checkpoint: Checkpoint, recipe: Recipe, images: Sequence[AnnotatedImage], device: str, *, mirror: bool
) -> Evaluation:
    """Score the net that a run exports on the images of its fold."""
    _, validation = split_images(images, recipe.data)
    predictor = replace(net_predictor(checkpoint.build_net().to(device), recipe), mirror=mirror)
    return score(predictor, recipe, validation)


def _finished(run: Path, recipe: Recipe) -> bool:
    """Whether the run has used up its steps or minutes and has its net to export."""
    files, schedule = RunFiles(run), recipe.schedule
    if not (files.best.exists() and files.last.exists()):
        return False
    last = load_checkpoint(files.last)
    out_of_time = schedule.max_minutes is not None and last.elapsed_s >= 60 * schedule.max_minutes
    return last.step >= schedule.steps or out_of_time


def _require_same(
    checkpoint: Checkpoint, recipe: Recipe, images: Sequence[AnnotatedImage], digests: dict[str, str], run: Path
) -> None:
    """Make sure that a run is of this recipe, but for card and scoring, and of these images.

    Raises
    ------
    FoldsMismatch
        Where it is not.
    NothingToLearn
        Where the fold has no images now.

    """
    differing = differences(checkpoint.read_recipe(), recipe, {"card", "scoring"})
    if differing:
        raise FoldsMismatch(f"{run} is of another recipe: {differing}; choose another --out")
    training, validation = split_images(images, recipe.data, _REMEDY)
    split = {"training": [image.stem for image in training], "validation": [image.stem for image in validation]}
    if checkpoint.split != split:
        raise FoldsMismatch(f"{run} was trained on other images; choose another --out, or bring the images back")
    altered = checkpoint.changed(digests)
    if altered:
        raise FoldsMismatch(
            f"{run} was trained on other images: {len(altered)} of {len(digests)} have other pixels or labels now, "
            f"{altered[0]} is the first; choose another --out, or bring the images back"
        )
