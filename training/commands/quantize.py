"""``unet-train quantize``: add the net in 8-bit integers to a package."""

from __future__ import annotations

import argparse
import sys

from model.package import read_package
from training.evaluation.targets import recipe_of
from training.packaging.drafts import recover
from training.packaging.variants import add_int8_by
from training.paths import given_path
from training.writing import require_folder


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
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
    sys.stdout.write(add_int8_by(recipe_of(package, options.recipe), package, options.data) + "\n")
