"""``unet-train cross-validate``: a net for each fold, and the figures of all images, each scored by a net new to it."""

from __future__ import annotations

import argparse
import sys

from training.choosing.composing import add_values
from training.learning.cross_validation import REPORT_NAME, cross_validate
from training.paths import given_path
from training.recipe import read_recipe, shipped_recipes
from training.runs.command_line import arguments_of


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--recipe", required=True, help=f"a TOML file, or one of: {', '.join(shipped_recipes())}")
    add_values(parser, "change a value of the recipe, such as schedule.batch=2")
    parser.add_argument("--data", type=given_path, required=True, metavar="DIR", help="folder of annotated images")
    parser.add_argument("--out", type=given_path, required=True, metavar="RUN", help="folder for the folds' runs")
    parser.add_argument("--folds", type=int, required=True, metavar="N", help="how many, 2 or more")
    parser.add_argument("--only", type=_numbers, metavar="K,...", help="train these folds now (default: all)")
    parser.add_argument("--resume", action="store_true", help="leave out finished folds, go on with begun ones")
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction, help="average over eight mirrored views")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that make tiles (default: %(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train the folds, write the report, print its table."""
    recipe = read_recipe(options.recipe).for_folder(options.data).with_values(options.values)
    result = cross_validate(
        recipe,
        options.data,
        options.out,
        folds=options.folds,
        only=options.only,
        resume=options.resume,
        device=options.device,
        workers=options.workers,
        mirror=recipe.scoring.mirror if options.mirror is None else options.mirror,
        arguments=arguments_of(options),
    )
    sys.stdout.write(f"{result.as_table()}\nreport: {options.out / REPORT_NAME}\n")


def _numbers(text: str) -> tuple[int, ...]:
    """Fold numbers from ``1,3``."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} names no folds; give numbers with commas, such as 1,3") from None
