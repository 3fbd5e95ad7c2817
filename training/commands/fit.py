"""``unet-train fit``: train a net."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from training.checkpoint import load_checkpoint
from training.distributed import joined
from training.recipe import read_recipe, shipped_recipes
from training.run_folder import RunFiles, checkpoint_path
from training.trainer import train

_log = logging.getLogger(__name__)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("fit", help="train a net")
    parser.add_argument("--recipe", required=True, help=f"a TOML file, or one of: {', '.join(shipped_recipes())}")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of images and masks")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder for checkpoints and log")
    parser.add_argument("--from", dest="origin", type=Path, metavar="RUN", help="begin with the net of another run")
    parser.add_argument("--fold", metavar="K/N", help="validate on part K of N instead of the recipe's own split")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in RUN")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that make tiles (default: %(default)s)")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard's event files to RUN")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train a net."""
    shipped = read_recipe(options.recipe)
    recipe = shipped.for_folder(options.data)
    if recipe is not shipped:
        # no package may claim data that it has not seen
        _log.info("%s: not the images of recipe %s; all are taken, its card is left out", options.data, recipe.name)
    if options.fold is not None:
        recipe = recipe.with_fold(options.fold)
    origin = None if options.origin is None else load_checkpoint(checkpoint_path(options.origin))
    with joined(options.device) as processes:
        last = train(
            recipe,
            options.data,
            options.out,
            resume=options.resume,
            origin=origin,
            device=options.device,
            workers=options.workers,
            tensorboard=options.tensorboard,
            processes=processes,
        )
    if not processes.first:
        return
    figures = "  ".join(f"{name} {value:.4f}" for name, value in last.figures.items())
    sys.stdout.write(f"{last.step} steps in {last.elapsed_s / 60:.1f} minutes; {figures or 'not validated'}\n")
    sys.stdout.write(f"best net: {RunFiles(options.out).best}\n")
