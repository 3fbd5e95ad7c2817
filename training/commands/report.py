"""``unet-train report``: one file of HTML that shows what runs have become."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from pathlib import Path

from model.wording import counted
from training.errors import RecipeError
from training.evaluation.evaluate import score
from training.evaluation.targets import checkpoint_of, chosen_images, open_predictor, origin_of
from training.paths import given_path
from training.report.cases import MATCHED_IOU, show_case, worst_rows
from training.report.content import ScoredRun, report_values
from training.report.facts import warn_of_misread
from training.report.page import write_page
from training.report.pictures import BOTH, FOUND, REFERENCE, css
from training.report.run_log import RunLog, read_log
from training.runs.run_folder import NET_HELP, RunFiles, checkpoint_path, net_path
from training.runs.state import require_device
from training.writing import require_file

_log = logging.getLogger(__name__)


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "targets",
        type=net_path,
        nargs="+",
        metavar="RUN",
        help=f"{NET_HELP}; several compare",
    )
    parser.add_argument("--data", type=given_path, required=True, metavar="DIR", help="folder of annotated images")
    parser.add_argument("--out", type=given_path, required=True, metavar="FILE", help="the HTML file to write")
    parser.add_argument("--split", choices=("validation", "training", "all"), default="validation")
    parser.add_argument("--recipe", help="how to read and measure DIR, where the run's own recipe does not fit")
    parser.add_argument("--worst", type=int, default=6, help="worst images to show of each run (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for runs (default: %(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Score, and write the file.

    Raises
    ------
    RecipeError
        Where fewer than no image shall be shown, or the file to write is a folder.
    NothingToLearn
        Where the split leaves nothing to score.
    Unwritable
        Where the file cannot be written: as far as can be known before anything is scored.

    """
    require_device(options.device)
    if options.worst < 0:
        raise RecipeError(f"--worst {options.worst} is no number of images; give 0 or more")
    if options.out.is_dir():
        raise RecipeError(f"--out {options.out} is a folder; name the file to write, such as {options.out}/report.html")
    require_file(options.out)
    names = _names(options.targets)
    runs = [_scored(target, name, options) for target, name in zip(options.targets, names, strict=True)]
    write_page(
        options.out,
        "report.html",
        command=command_of(options),
        colours={"reference": css(REFERENCE), "found": css(FOUND), "both": css(BOTH)},
        matched_iou=MATCHED_IOU,
        **report_values(runs, options.data, options.split),
    )
    scored = len({stem for one in runs for stem in one.pixels})
    nets = f" by {len(runs)} nets" if len(runs) > 1 else ""
    sys.stdout.write(f"{options.out}: {counted(scored, 'image')} scored{nets}\n")


def _scored(target: Path, name: str, options: argparse.Namespace) -> ScoredRun:
    predictor, recipe = open_predictor(target, options.recipe, options.device)
    checkpoint = checkpoint_of(target)
    origin = origin_of(target, checkpoint)
    images = chosen_images(recipe, options.data, options.split, checkpoint, origin, required=True)
    instances = recipe.data.kind == "instances"
    _log.info("%s: scoring %s", name, counted(len(images), "image"))
    strange = tuple(warn_of_misread(images, recipe))
    evaluation = score(predictor, recipe, images)
    of_stem = {image.stem: image for image in images}
    cases = tuple(
        show_case(of_stem[row.stem], row, predictor, instances=instances)
        for row in worst_rows(evaluation, options.worst)
    )
    log = RunLog() if checkpoint is None else read_log(RunFiles(checkpoint_path(target).parent).log)
    pixels = {image.stem: image.pixels_digest() for image in images}
    return ScoredRun(name, target, recipe, checkpoint, log, evaluation, cases, origin, pixels, strange)


def _names(targets: list[Path]) -> list[str]:
    """Names that tell the targets apart: without the folders that all of them share."""
    if len(targets) == 1:
        target = targets[0]
        return [target.resolve().parent.name if target.suffix == ".pt" else target.resolve().name]
    whole = [target.resolve() for target in targets]
    if len(set(whole)) < len(whole):
        raise RecipeError("a run is named twice; name each once")
    shared = Path(os.path.commonpath(whole))
    return [path.relative_to(shared).as_posix() for path in whole]


def command_of(options: argparse.Namespace) -> str:
    """Return the command that writes the same report again."""
    parts = ["unet-train", "report", *map(str, options.targets), "--data", str(options.data), "--out", str(options.out)]
    parts += ["--split", options.split, "--worst", str(options.worst)]
    parts += ["--recipe", options.recipe] if options.recipe else []
    parts += ["--device", options.device] if options.device != "cpu" else []
    return shlex.join(parts)
