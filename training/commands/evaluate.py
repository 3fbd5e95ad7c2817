"""``unet-train evaluate``: score runs, checkpoints or packages on annotated images."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from training.data.datasets import load_for
from training.data.splits import take_side
from training.errors import FoldsMismatch
from training.evaluation.evaluate import Evaluation, score
from training.evaluation.folds import CrossValidation, Fold, require_unseen
from training.evaluation.prediction import Predictor
from training.evaluation.targets import checkpoint_of, chosen_images, open_predictor, origin_of
from training.paths import given_path
from training.recipe import Recipe
from training.report.facts import warn_of_misread
from training.runs.run_folder import NET_HELP, net_path
from training.runs.state import require_device


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "targets",
        type=net_path,
        nargs="+",
        metavar="TARGET",
        help=f"{NET_HELP}; several folds are pooled",
    )
    parser.add_argument("--data", type=given_path, required=True, metavar="DIR", help="folder of images and masks")
    parser.add_argument("--split", choices=("validation", "training", "all"), default="validation")
    parser.add_argument("--recipe", help="how to read and measure DIR, where the target's own recipe does not fit")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for runs (default: %(default)s)")
    parser.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="average over eight mirrored views, as the service does for mirror=true (default: the recipe's)",
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print figures as a table or as JSON."""
    require_device(options.device)
    report: Evaluation | CrossValidation
    if len(options.targets) == 1:
        predictor, recipe = _open(options.targets[0], options)
        checkpoint = checkpoint_of(options.targets[0])
        origin = origin_of(options.targets[0], checkpoint)
        images = chosen_images(recipe, options.data, options.split, checkpoint, origin, required=True)
        warn_of_misread(images, recipe)
        report = score(predictor, recipe, images)
    else:
        report = _pool(options)
    text = json.dumps(report.as_json(), indent=2, allow_nan=False) if options.json else report.as_table()
    sys.stdout.write(text + "\n")


def _open(target: Path, options: argparse.Namespace) -> tuple[Predictor, Recipe]:
    predictor, recipe = open_predictor(target, options.recipe, options.device)
    mirror = recipe.scoring.mirror if options.mirror is None else options.mirror
    return replace(predictor, mirror=mirror), recipe


def _pool(options: argparse.Namespace) -> CrossValidation:
    """Score each target on its own images, which no other one may hold and it may not have been trained on."""
    if options.split != "validation":
        raise FoldsMismatch(f"--split {options.split} takes one target; several are scored on what each one held out")
    folds, most, chose = [], 0, False
    for target in options.targets:
        predictor, recipe = _open(target, options)
        images = load_for(recipe, options.data)
        held_out = take_side(images, recipe.data, "validation", options.data)
        checkpoint = checkpoint_of(target)
        if checkpoint is not None:
            require_unseen(checkpoint, held_out, recipe, str(target))
        warn_of_misread(held_out, recipe)
        folds.append(Fold(str(target), score(predictor, recipe, held_out)))
        trained = recipe if checkpoint is None else checkpoint.read_recipe()
        most, chose = max(most, len(images)), chose or trained.schedule.keep == "best"
    return CrossValidation(tuple(folds), most, held_out_chose=chose)
