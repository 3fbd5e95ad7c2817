"""``unet-train compare``: what a lower precision costs, on images held out of training or on all."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import get_args

from model.package import read_package
from model.session import Backend, Precision, SessionOptions, resolve_backend
from training.data.origin import package_origin
from training.evaluation.targets import chosen_images, recipe_of
from training.packaging.judging import judge
from training.paths import given_path
from training.runs.run_folder import net_path


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("package", type=net_path, metavar="PACKAGE", help="folder, zip, or the name of one that ships")
    parser.add_argument("--data", type=given_path, required=True, metavar="DIR", help="folder of images and masks")
    parser.add_argument(
        "--precision", choices=[name for name in get_args(Precision) if name not in ("auto", "fp32")], required=True
    )
    parser.add_argument(
        "--backend", choices=get_args(Backend), default="auto", help="default: auto, as the service takes it"
    )
    parser.add_argument(
        "--split", choices=("validation", "all"), default="validation", help="which images (default: %(default)s)"
    )
    parser.add_argument("--recipe", help="how to read DIR, where the package's own recipe does not fit")
    parser.add_argument("--json", action="store_true", help="JSON instead of a sentence")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Compare, and say whether the difference keeps within the limits of :mod:`training.packaging.judging`."""
    package = read_package(options.package)
    recipe = recipe_of(package, options.recipe)
    taken = chosen_images(recipe, options.data, options.split, None, package_origin(package), required=True)
    chosen = SessionOptions(backend=options.backend, precision=options.precision)
    judged, backend = judge(package, recipe, taken, chosen), resolve_backend(chosen)
    problem = judged.problem()
    if options.json:
        report = {**asdict(judged), "backend": backend, "images": len(taken), "problem": problem}
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return
    which = "images" if options.split == "all" else "held-out images"
    verdict = "within the limits" if problem is None else f"too much: {problem}"
    sys.stdout.write(
        f"{package.path}: {options.precision} against fp32 on {backend}, {len(taken)} {which}: {judged}; {verdict}\n"
    )
