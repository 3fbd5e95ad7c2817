"""A recipe composed for a folder: the options that it depends on, and the choice itself."""

from __future__ import annotations

import argparse
import logging
import math
from dataclasses import replace
from functools import partial

from training.choosing.choose import choose_recipe
from training.choosing.choose_size import Budget, length_caution
from training.choosing.finetune import MINUTES, inherit, size_caution
from training.choosing.pace import bf16_support, seconds_per_step
from training.choosing.plan import Choice, Plan
from training.data.datasets import AnnotatedImage
from training.data.loading import require_workers
from training.data.survey import survey_folder
from training.errors import RecipeError
from training.options import Data
from training.recipe import named_in_errors
from training.runs.checkpoint import Beginning
from training.runs.run_folder import NET_HELP, net_path
from training.runs.state import require_device

_USUAL_MINUTES = 60.0

_log = logging.getLogger(__name__)


def add_values(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare the option that changes values; ``what`` of, in words."""
    parser.add_argument(
        "--set",
        dest="values",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"{what}; may be given several times",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what a choice depends on beside the images."""
    parser.add_argument(
        "--from",
        dest="origin",
        type=net_path,
        metavar="RUN_OR_PACKAGE",
        help=f"begin with this net: {NET_HELP}",
    )
    length = parser.add_mutually_exclusive_group()
    minutes = "end by the clock, the learning rate with it; with --recipe by its steps where they are done first"
    length.add_argument("--minutes", type=float, metavar="M", help=minutes)
    steps = (
        "end after N steps and not by the recipe's clock, unless --set schedule.max_minutes is given, too; repeatable "
        "with --recipe (without one the precision follows from measured steps)"
    )
    length.add_argument("--steps", type=int, metavar="N", help=steps)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that make tiles (default: %(default)s)")


def compose(
    options: argparse.Namespace, beginning: Beginning | None, asked: Data | None
) -> tuple[Plan, list[AnnotatedImage]]:
    """Survey a folder and choose a recipe for it, to train afresh or from the net of ``beginning``.

    Returns it with the images of the folder, as the recipe reads them.

    Parameters
    ----------
    options
        ``data``, and what :func:`add_options` declares.
    beginning
        What to begin with.
    asked
        How the folder is read, as far as that is said.

    Raises
    ------
    TrainingError
        For a missing device, a length that is none, or a broken dataset.

    """
    device: str = options.device
    require_device(device)
    require_length(options)
    require_workers(options.workers)
    _log.info("looking at the images of %s", options.data)
    survey, known, images = survey_folder(options.data, asked)
    pace = partial(seconds_per_step, device=device, workers=options.workers)
    usual = _USUAL_MINUTES if beginning is None else MINUTES
    budget = Budget(options.minutes, options.steps, usual, device, bf16_support(device), pace)
    name = options.data.resolve().name
    with named_in_errors(f"no recipe can be composed for {options.data}, write one and name it (--recipe)"):
        if beginning is None:
            plan = choose_recipe(survey, known, budget, name)
            caution = length_caution(plan.recipe.schedule)
        else:
            plan = inherit(beginning.net.read_recipe(), survey, known, budget, name, known=beginning.origin)
            caution = size_caution(beginning.net.object_diameter_px, survey)
    if caution is not None:
        _log.warning("%s", caution)
    if known.truth == "silver" and (asked is None or "truth" not in asked.model_fields_set):
        silver = Choice("truth silver", "no sequence has gold truth; figures are against computed masks")
        plan = replace(plan, choices=(silver, *plan.choices))
    return plan, images


def require_length(options: argparse.Namespace) -> None:
    """Make sure that a limit is one.

    Raises
    ------
    RecipeError
        Where it is 0 or less, or infinite.

    """
    for name in ("minutes", "steps"):
        limit = getattr(options, name)
        if limit is not None and not 0 < limit < math.inf:
            raise RecipeError(f"--{name} {limit:g} is no time to train; give a finite number above 0")
