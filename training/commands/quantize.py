"""``unet-train quantize``: add the net in 8-bit integers to a package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model.package import Package, read_package
from training.datasets import load_for
from training.drafts import recover
from training.paths import given_path
from training.recipe import Recipe
from training.splits import split_images
from training.targets import recipe_of
from training.variants import add_int8
from training.writing import require_folder


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("quantize", help="add int8 weights to a package, for faster CPUs")
    parser.add_argument(
        "package", type=given_path, metavar="PACKAGE", help="folder or zip that unet-train export wrote"
    )
    parser.add_argument(
        "--data",
        type=given_path,
        required=True,
        metavar="DIR",
        help="the images: ranges from those trained on, checks on others",
    )
    parser.add_argument("--recipe", help="how to read DIR, where the package's own recipe does not fit")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Add int8 to a package.

    Raises
    ------
    Unwritable
        Where the package's folder cannot be written.

    """
    recover(options.package)
    package = read_package(options.package)
    package.check_files()
    require_folder(options.package.parent)
    add(package, recipe_of(package, options.recipe), options.data)


def add(package: Package, recipe: Recipe, data: Path) -> None:
    """Add int8 to a package by a recipe's split of a data folder, and say how it compares with fp32."""
    images = load_for(recipe, data)
    training, held_out = split_images(images, recipe.data)
    package, judged = add_int8(package, recipe, training, held_out)
    sys.stdout.write(f"{package.path}: int8 against fp32 on {len(held_out)} held-out images: {judged}\n")
