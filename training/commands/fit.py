"""``unet-train fit``: train a net."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from model.wording import counted
from training.choosing.composing import add_options, add_values, compose, require_length
from training.choosing.finetune import open_origin
from training.errors import RecipeError
from training.learning.distributed import Processes, joined
from training.learning.trainer import train
from training.options import Data
from training.paths import given_path
from training.recipe import Recipe, data_from, read_recipe, shipped_recipes
from training.runs.checkpoint import Beginning, load_checkpoint
from training.runs.command_line import arguments_of
from training.runs.run_folder import RunFiles

_log = logging.getLogger(__name__)


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    names = ", ".join(shipped_recipes())
    parser.add_argument("--recipe", help=f"a TOML file, or one of: {names} (default: chosen from the images)")
    change = "change a value of the named recipe, such as schedule.batch=2"
    add_values(parser, f"{change}; without a recipe how the folder is read, such as data.layout=coco")
    parser.add_argument("--data", type=given_path, required=True, metavar="DIR", help="folder of annotated images")
    parser.add_argument("--out", type=given_path, required=True, metavar="RUN", help="folder for checkpoints and log")
    add_options(parser)
    parser.add_argument("--fold", metavar="K/N", help="validate on part K of N instead of the recipe's own split")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in RUN")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard's event files to RUN")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train a net."""
    require_length(options)
    asked = data_from(options.values) if options.recipe is None else None
    with joined(options.device) as processes:
        beginning = None if options.origin is None else open_origin(options.origin)
        recipe = _recipe(options, beginning, asked, processes)
        last = train(
            recipe,
            options.data,
            options.out,
            resume=options.resume,
            beginning=beginning,
            arguments=arguments_of(options),
            device=options.device,
            workers=options.workers,
            tensorboard=options.tensorboard,
            cautious=True,
            processes=processes,
        )
    if not processes.first:
        return
    if options.minutes is not None and last.elapsed_s < 60 * options.minutes:
        _log.warning("the recipe's %s ended the run before its %g minutes", counted(last.step, "step"), options.minutes)
    figures = "  ".join(f"{name} {value:.4f}" for name, value in last.figures.items())
    sys.stdout.write(
        f"{counted(last.step, 'step')} in {last.elapsed_s / 60:.1f} minutes; {figures or 'not validated'}\n"
    )
    sys.stdout.write(f"best net: {RunFiles(options.out).best}\n")


def _recipe(
    options: argparse.Namespace, beginning: Beginning | None, asked: Data | None, processes: Processes
) -> Recipe:
    """Recipe of the run: the named one, that of the run to resume, or one chosen from the images."""
    files = RunFiles(options.out)
    if options.recipe is not None:
        recipe = _of_length(_named(options.recipe, options.data), options)
    elif options.resume:
        files.require(resume=True)
        recipe = load_checkpoint(files.last).read_recipe()
        _require_nothing_new(options, asked, recipe)
    else:
        files.require(resume=False)
        processes.wait()  # until all have seen that the folder is free: now it fills
        if processes.first:
            _choose(options, beginning, asked)
        processes.wait()
        recipe = read_recipe(str(files.recipe))  # the run does what the file says, in every process
    return recipe if options.fold is None else recipe.with_fold(options.fold)


def _choose(options: argparse.Namespace, beginning: Beginning | None, asked: Data | None) -> None:
    """Choose a recipe from the images and write it to the run's folder, unless another process has done so before."""
    files = RunFiles(options.out)
    plan = None if files.recipe.exists() else compose(options, beginning, asked)[0]
    with files.taken():
        if plan is None or files.recipe.exists():
            # that run ended before its first checkpoint; perhaps the recipe was edited since
            _require_same(options, asked, read_recipe(str(files.recipe)))
            _log.warning("training by %s, which is there already; remove it to have it chosen anew", files.recipe)
            return
        sys.stdout.write(plan.as_text() + "\n")
        plan.write(files.recipe)
        sys.stdout.write(f"recipe: {files.recipe}\n")
        sys.stdout.flush()


def _require_nothing_new(options: argparse.Namespace, asked: Data | None, recipe: Recipe) -> None:
    """Refuse what a run that goes on by its own recipe would leave out of account; the same again is no harm."""
    changes, own = _differing(options, asked, recipe)
    if options.origin is not None:
        changes.append(f"--from {options.origin}")
    if changes:
        raise RecipeError(
            f"{' and '.join(changes)} cannot change a run that is resumed: {options.out} goes on by its own recipe, "
            f"from its own net, to {own}. Leave it out, or begin another run with this net (--from {options.out}, "
            "another --out)"
        )


def _require_same(options: argparse.Namespace, asked: Data | None, recipe: Recipe) -> None:
    """Refuse another length or reading than that of the recipe that was chosen for a run before."""
    changes, own = _differing(options, asked, recipe)
    if changes:
        chosen = RunFiles(options.out).recipe
        raise RecipeError(
            f"{' and '.join(changes)} is not what {chosen} says, which is there already: {own}. Leave it out, or "
            "remove the file to have the recipe chosen anew"
        )


def _differing(options: argparse.Namespace, asked: Data | None, recipe: Recipe) -> tuple[list[str], str]:
    """Options that ask for another length or reading than a recipe has, and what it has in words."""
    length = {"steps": recipe.schedule.steps, "minutes": recipe.schedule.max_minutes}
    changes = [
        f"--{name} {getattr(options, name):g}" for name in length if getattr(options, name) not in {None, length[name]}
    ]
    own = counted(recipe.schedule.steps, "step")
    if length["minutes"]:
        own += f" or {counted(length['minutes'], 'minute', 'g')}"
    for name in sorted(asked.model_fields_set if asked is not None else ()):
        new, old = getattr(asked, name), getattr(recipe.data, name)
        if new != old:
            changes.append(f"--set data.{name}={new}")
            own += f", data.{name} = {old}"
    return changes, own


def _of_length(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """Give a named recipe the values and the length that the command asks for.

    ``--steps`` lifts the recipe's own minutes, which a run that ends by its steps could not repeat; minutes that
    ``--set`` gives stay. ``--minutes`` lets the recipe's steps stand: its warm-up and its times of validation are made
    for them.
    """
    if options.steps is not None:
        recipe = recipe.with_schedule("--steps", max_minutes=None)
    recipe = recipe.with_values(options.values)
    if options.steps is not None:
        recipe = recipe.with_schedule("--steps", steps=options.steps)
    if options.minutes is not None:
        recipe = recipe.with_schedule("--minutes", max_minutes=options.minutes)
        _log.info(
            "the run ends after %g minutes, or with the recipe's %d steps where those are done first "
            "(--set schedule.steps=N for more)",
            options.minutes,
            recipe.schedule.steps,
        )
    return recipe


def _named(name: str, data: Path) -> Recipe:
    """Read a recipe, for a folder that may hold others' images."""
    shipped = read_recipe(name)
    recipe = shipped.for_folder(data)
    if recipe.data.include != shipped.data.include:
        # no package may claim data that it has not seen
        _log.info("%s: not the images of recipe %s; all are taken, its card is left out", data, recipe.name)
    return recipe
