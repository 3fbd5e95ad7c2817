"""``unet-train evaluate``: score a run, a checkpoint or a package on annotated images."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from model.package import read_package
from training.checkpoint import load_checkpoint
from training.datasets import AnnotatedImage, load_images
from training.errors import RecipeError
from training.evaluate import Evaluation, evaluate_images
from training.prediction import Predictor, net_predictor, package_predictor
from training.recipe import Recipe, read_recipe, recipe_from
from training.splits import split_images
from training.state import require_device
from training.trainer import RunFiles, checkpoint_path


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("evaluate", help="score a run, a checkpoint or a package on annotated images")
    parser.add_argument("target", type=Path, help="folder of a run, a .pt file, or a package (folder or zip)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of images and masks")
    parser.add_argument("--split", choices=("validation", "training", "all"), default="validation")
    parser.add_argument("--recipe", help="how to read DIR, where the target's own recipe does not fit")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for runs (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print figures as a table or as JSON."""
    require_device(options.device)
    predictor, recipe = open_predictor(options.target, options.recipe, options.device)
    evaluation = score(predictor, recipe, options.data, options.split)
    if options.json:
        sys.stdout.write(json.dumps(evaluation.as_json(), indent=2) + "\n")
    else:
        sys.stdout.write(evaluation.as_table() + "\n")


def open_predictor(target: Path, recipe_name: str | None, device: str) -> tuple[Predictor, Recipe]:
    """Open a run, a checkpoint or a package, with the recipe that says how to read the data folder."""
    if target.suffix == ".pt" or RunFiles(target).best.exists():
        checkpoint = load_checkpoint(checkpoint_path(target))
        recipe = read_recipe(recipe_name) if recipe_name else checkpoint.read_recipe()
        return net_predictor(checkpoint.build_net().to(device), recipe), recipe
    package = read_package(target)
    if recipe_name is not None:
        return package_predictor(package), read_recipe(recipe_name)
    facts = package.spec.facts.get("recipe")
    if facts is None:
        raise RecipeError(f"{target} does not say how it was trained; name a recipe for the data folder (--recipe)")
    return package_predictor(package), recipe_from(facts, str(target))


def score(predictor: Predictor, recipe: Recipe, data: Path, split: str) -> Evaluation:
    """Score a net on one side of the split, ``validation`` or ``training``, or on ``all`` images of a folder."""
    images = chosen_images(recipe, data, split)
    return evaluate_images(images, predictor, instances=recipe.data.kind == "instances", scoring=recipe.scoring)


def chosen_images(recipe: Recipe, data: Path, split: str) -> list[AnnotatedImage]:
    """Read a folder and take one side of the split, ``validation`` or ``training``, or ``all`` of it."""
    images = load_images(data, recipe.data, recipe.net.in_channels, len(recipe.targets.classes))
    training, validation = split_images(images, recipe.data)
    return {"training": training, "validation": validation, "all": images}[split]
