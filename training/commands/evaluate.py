"""``unet-train evaluate``: score runs, checkpoints or packages on annotated images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from model.label_rule import LabelRule
from model.package import Package, read_package
from training.checkpoint import Checkpoint, load_checkpoint
from training.datasets import AnnotatedImage, load_images
from training.errors import FoldsMismatch, RecipeError
from training.evaluate import Evaluation, evaluate_images
from training.folds import CrossValidation, Fold, require_unseen, warn_of_changed, warn_of_seen
from training.origin import Origin, package_origin
from training.paths import given_path
from training.prediction import Predictor, net_predictor, package_predictor
from training.recipe import Recipe, read_recipe, stored_recipe
from training.report.facts import warn_of_misread
from training.run_folder import NET_HELP, checkpoint_path, is_run, net_path, require_net
from training.splits import Side, take_side
from training.state import require_device


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("evaluate", help="score a run, a checkpoint or a package on annotated images")
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
        images = load_images(options.data, recipe.data, recipe.net.in_channels, len(recipe.targets.classes))
        held_out = take_side(images, recipe.data, "validation", options.data)
        checkpoint = checkpoint_of(target)
        if checkpoint is not None:
            require_unseen(checkpoint, held_out, recipe, str(target))
        warn_of_misread(held_out, recipe)
        folds.append(Fold(str(target), score(predictor, recipe, held_out)))
        trained = recipe if checkpoint is None else checkpoint.read_recipe()
        most, chose = max(most, len(images)), chose or trained.schedule.keep == "best"
    return CrossValidation(tuple(folds), most, held_out_chose=chose)


def open_predictor(target: Path, recipe_name: str | None, device: str) -> tuple[Predictor, Recipe]:
    """Open a run, a checkpoint or a package, with the recipe that says how to read the data folder and what to measure.

    The net is run, and its probabilities are turned into objects, as it was trained, whatever recipe is named.

    Raises
    ------
    RecipeError
        Where there is no such recipe, or it reads images or masks that do not fit the net.
    CheckpointError, PackageError
        Where the target cannot be read.

    """
    if is_run(target):
        checkpoint = load_checkpoint(checkpoint_path(target))
        own = checkpoint.read_recipe()
        recipe = own if recipe_name is None else read_recipe(recipe_name)
        _require_fitting(recipe, target, own.net.in_channels, own.targets.classes, own.labels)
        return net_predictor(checkpoint.build_net().to(device), own), recipe
    require_net(target)
    package = read_package(target)
    recipe = recipe_of(package, recipe_name)
    return package_predictor(package), recipe


def recipe_of(package: Package, name: str | None) -> Recipe:
    """Return the recipe called ``name``, or the one that a package was trained by.

    Raises
    ------
    RecipeError
        Where there is none, or it reads images or masks that do not fit the net.

    """
    facts = package.spec.facts.get("recipe")
    if name is not None:
        recipe = read_recipe(name)
    elif facts is not None:
        recipe = stored_recipe(facts, str(package.path))
    else:
        raise RecipeError(
            f"{package.path} does not say how it was trained; name a recipe for the data folder (--recipe)"
        )
    spec = package.spec
    _require_fitting(recipe, package.path, len(spec.channels), spec.classes, spec.label_rule)
    return recipe


def _require_fitting(recipe: Recipe, target: Path, channels: int, classes: Sequence[str], rule: LabelRule) -> None:
    """Make sure that images and masks are read as a net takes and tells them, before any is read."""
    if recipe.net.in_channels != channels:
        raise RecipeError(
            f"recipe {recipe.name} reads images of {recipe.net.in_channels} channels (net.in_channels), the net of "
            f"{target} takes {channels}; name a recipe that reads {channels} (--recipe)"
        )
    read, told = len(recipe.targets.classes), sorted({len(classes), len(rule.mask_classes(classes))})
    if recipe.data.kind == "semantic" and read not in told:
        raise RecipeError(
            f"recipe {recipe.name} reads masks of {read} classes (targets.classes), the net of {target} tells "
            f"{' or '.join(map(str, told))} apart; name a recipe that reads as many (--recipe)"
        )


def checkpoint_of(target: Path) -> Checkpoint | None:
    """Read the checkpoint of a run; None for a package."""
    return load_checkpoint(checkpoint_path(target)) if is_run(target) else None


def origin_of(target: Path, checkpoint: Checkpoint | None) -> Origin | None:
    """Return what ``checkpoint``, a run, began with; of a package, what is known of its own training."""
    return package_origin(read_package(target)) if checkpoint is None else checkpoint.origin


def score(predictor: Predictor, recipe: Recipe, images: Sequence[AnnotatedImage]) -> Evaluation:
    """Score a net on images, by what the recipe measures."""
    return evaluate_images(images, predictor, instances=recipe.data.kind == "instances", scoring=recipe.scoring)


def chosen_images(
    recipe: Recipe,
    data: Path,
    split: Side,
    checkpoint: Checkpoint | None,
    origin: Origin | None,
    *,
    required: bool = False,
) -> list[AnnotatedImage]:
    """Read a folder and take one side of the split or all of it, as :func:`training.splits.take_side` does.

    The log says where images have the names of those of ``checkpoint``, the run that is scored, but are others, and
    where that run, or a net before it, or ``origin``, the package that is scored, was trained on them.
    """
    images = load_images(data, recipe.data, recipe.net.in_channels, len(recipe.targets.classes))
    chosen = take_side(images, recipe.data, split, data, required=required)
    if checkpoint is not None:
        warn_of_changed(checkpoint, chosen, recipe, str(data))
    known = origin if checkpoint is None else checkpoint.begun_with(checkpoint.recipe["name"]).origin
    if known is not None and split != "training":
        warn_of_seen(known, {image.stem: image.pixels_digest() for image in chosen}, known.name)
    return chosen
