"""What is scored: a run, a checkpoint or a package, the recipe that reads its images, and the images themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.label_rule import LabelRule
from model.package import Package, read_package
from model.wording import counted
from training.data.datasets import AnnotatedImage, load_for
from training.data.origin import Origin, package_origin
from training.data.splits import Side, take_side
from training.errors import RecipeError
from training.evaluation.folds import warn_of_changed, warn_of_seen
from training.evaluation.prediction import Predictor, net_predictor, package_predictor
from training.recipe import Recipe, read_recipe, stored_recipe
from training.runs.checkpoint import Checkpoint, load_checkpoint
from training.runs.run_folder import checkpoint_path, is_run, require_net


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
            f"recipe {recipe.name} reads images of {counted(recipe.net.in_channels, 'channel')} (net.in_channels), the "
            f"net of {target} takes {channels}; name a recipe that reads {channels} (--recipe)"
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


def chosen_images(
    recipe: Recipe,
    data: Path,
    split: Side,
    checkpoint: Checkpoint | None,
    origin: Origin | None,
    *,
    required: bool = False,
) -> list[AnnotatedImage]:
    """Read a folder and take one side of the split or all of it, as :func:`training.data.splits.take_side` does.

    The log says where images have the names of those of ``checkpoint``, the run that is scored, but are others, and
    where that run, or a net before it, or ``origin``, the package that is scored, was trained on them.
    """
    images = load_for(recipe, data)
    chosen = take_side(images, recipe.data, split, data, required=required)
    if checkpoint is not None:
        warn_of_changed(checkpoint, chosen, recipe, str(data))
    known = origin if checkpoint is None else checkpoint.begun_with(checkpoint.recipe["name"]).origin
    if known is not None and split != "training":
        warn_of_seen(known, {image.stem: image.pixels_digest() for image in chosen}, known.name)
    return chosen
