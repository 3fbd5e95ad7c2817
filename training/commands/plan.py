"""``unet-train plan``: say what a run without a recipe would do, and why."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from training.choosing.composing import add_options, add_values, compose
from training.choosing.finetune import open_origin
from training.data.splits import split_for_run
from training.errors import RecipeError
from training.paths import given_path
from training.recipe import data_from
from training.report.tile_facts import all_cautions
from training.writing import require_file

_log = logging.getLogger(__name__)


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--data", type=given_path, required=True, metavar="DIR", help="folder of annotated images")
    parser.add_argument("--out", type=given_path, metavar="FILE.toml", help="write the recipe to a file")
    add_values(parser, "how the folder is read, such as data.layout=coco")
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the choices, write the recipe where that is asked for, and say what a person should look at."""
    beginning = None if options.origin is None else open_origin(options.origin)
    if options.out is not None:
        require_no_file(options.out)
        require_file(options.out)
    plan, images = compose(options, beginning, data_from(options.values))
    recipe = plan.recipe
    training, _ = split_for_run(images, recipe.data, options.data)
    found = all_cautions(images, training, recipe)
    sys.stdout.write(plan.as_text() + "\n")
    if options.out is not None:
        plan.write(options.out)
        sys.stdout.write(f"recipe: {options.out}\n")
    sys.stdout.flush()
    for caution in found:
        _log.warning("%s", caution)


def require_no_file(path: Path) -> None:
    """Make sure that no recipe, edited perhaps, is overwritten.

    Raises
    ------
    RecipeError
        Where the file is there.

    """
    if path.exists():
        raise RecipeError(
            f"{path} is there already; train by it (--recipe {path}), or remove it to have it chosen anew"
        )
