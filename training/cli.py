"""``unet-train``: fit, evaluate, export."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from model.errors import ModelError
from model.package import read_package
from training.card import golden_image, license_notice, run_card
from training.checkpoint import load_checkpoint
from training.datasets import load_images
from training.errors import MissingLicense, RecipeError, TrainingError
from training.evaluate import Evaluation, evaluate_images
from training.export import ExportError, export_package
from training.prediction import Predictor, net_predictor, package_predictor
from training.recipe import Recipe, read_recipe, recipe_from, shipped_recipes
from training.splits import split_images
from training.state import require_device
from training.trainer import RunFiles, train

_log = logging.getLogger("training")
_HUGE_PAGES = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, or 2 with one message on standard error where it cannot be done.

    Parameters
    ----------
    arguments
        The command line without the program's name; ``sys.argv`` where None.

    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("training").setLevel(logging.INFO)
    if arguments is None and options.command == "fit":
        _restart_with_huge_pages()
    try:
        match options.command:
            case "fit":
                _fit(options)
            case "evaluate":
                _evaluate(options)
            case "export":
                _export(options)
    except (TrainingError, ExportError, ModelError, OSError) as error:
        sys.stderr.write(f"unet-train {options.command}: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"\ninterrupted{_how_to_go_on(options)}\n")
        return 130
    return 0


def _how_to_go_on(options: argparse.Namespace) -> str:
    if options.command != "fit":
        return ""
    if RunFiles(options.out).last.exists():
        return "; the same command with --resume goes on from the newest checkpoint"
    return " before the first checkpoint; there is nothing to resume"


def _fit(options: argparse.Namespace) -> None:
    shipped = read_recipe(options.recipe)
    recipe = shipped.for_folder(options.data)
    if recipe is not shipped:
        # no package may claim data that it has not seen
        _log.info("%s: not the images of recipe %s; all are taken, its card is left out", options.data, recipe.name)
    if options.fold is not None:
        recipe = recipe.with_fold(options.fold)
    origin = None if options.origin is None else load_checkpoint(_checkpoint_path(options.origin))
    last = train(
        recipe,
        options.data,
        options.out,
        resume=options.resume,
        origin=origin,
        device=options.device,
        workers=options.workers,
        tensorboard=options.tensorboard,
    )
    figures = "  ".join(f"{name} {value:.4f}" for name, value in last.figures.items())
    sys.stdout.write(f"{last.step} steps in {last.elapsed_s / 60:.1f} minutes; {figures or 'not validated'}\n")
    sys.stdout.write(f"best net: {RunFiles(options.out).best}\n")


def _evaluate(options: argparse.Namespace) -> None:
    require_device(options.device)
    predictor, recipe = _predictor(options.target, options.recipe, options.device)
    evaluation = _evaluation(predictor, recipe, options.data, options.split)
    if options.json:
        sys.stdout.write(json.dumps(evaluation.as_json(), indent=2) + "\n")
    else:
        sys.stdout.write(evaluation.as_table() + "\n")


def _export(options: argparse.Namespace) -> None:
    checkpoint = load_checkpoint(_checkpoint_path(options.run))
    recipe = checkpoint.read_recipe()
    net = checkpoint.build_net()
    if options.recipe is not None:  # words and label rule may be bettered after training, the net may not
        newer = read_recipe(options.recipe)
        recipe = recipe.model_copy(update={"name": newer.name, "card": newer.card, "labels": newer.labels})
    license_text = _license_text(options.license_file, recipe.card.license, options.author)
    if options.data is not None:
        figures = _evaluation(net_predictor(net, recipe), recipe, options.data, "validation").means()
        checkpoint = replace(checkpoint, figures=figures)
    elif recipe.labels != checkpoint.read_recipe().labels:
        raise RecipeError("the label rule is not the one that the run was scored with; give --data to score it again")
    card = run_card(
        checkpoint,
        recipe,
        version=options.version,
        author=options.author,
        license_text=license_text,
        command=options.trained_by
        or f"unet-train fit --recipe {checkpoint.recipe['name']} --data DIR --out {shlex.quote(str(options.run))}",
    )
    package, agreement = export_package(
        net,
        card,
        channels=options.channels or [f"channel{index}" for index in range(recipe.net.in_channels)],
        classes=recipe.targets.classes,
        normalization=recipe.normalization,
        label_rule=recipe.labels,
        image_yxc=golden_image(recipe.net.in_channels),
        out=options.out,
    )
    sys.stdout.write(
        f"{package.path}: torch and ONNX Runtime differ by at most {agreement.largest_difference:.1e}, "
        f"same class in {agreement.equal_argmax:.4%} of the pixels\n"
    )


def _license_text(file: Path | None, identifier: str, author: str) -> str:
    """Text of the package's licence: the file's, or a short notice.

    Raises
    ------
    MissingLicense
        Where the file cannot be read.

    """
    if file is None:
        return license_notice(identifier, author)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else "it is not UTF-8 text"
        raise MissingLicense(
            f"the licence text {file} cannot be read: {reason}; correct --license-file, or leave it out for a short "
            f"notice that names {identifier} and the author"
        ) from error


def _predictor(target: Path, recipe_name: str | None, device: str) -> tuple[Predictor, Recipe]:
    """Open a run, a checkpoint or a package, with the recipe that says how to read the data folder."""
    if target.suffix == ".pt" or RunFiles(target).best.exists():
        checkpoint = load_checkpoint(_checkpoint_path(target))
        recipe = read_recipe(recipe_name) if recipe_name else checkpoint.read_recipe()
        return net_predictor(checkpoint.build_net().to(device), recipe), recipe
    package = read_package(target)
    if recipe_name is not None:
        return package_predictor(package), read_recipe(recipe_name)
    facts = package.spec.facts.get("recipe")
    if facts is None:
        raise RecipeError(f"{target} does not say how it was trained; name a recipe for the data folder (--recipe)")
    return package_predictor(package), recipe_from(facts, str(target))


def _evaluation(predictor: Predictor, recipe: Recipe, data: Path, split: str) -> Evaluation:
    images = load_images(data, recipe.data, recipe.net.in_channels, len(recipe.targets.classes))
    training, validation = split_images(images, recipe.data)
    chosen = {"training": training, "validation": validation, "all": images}[split]
    return evaluate_images(chosen, predictor, instances=recipe.data.kind == "instances")


def _checkpoint_path(run: Path) -> Path:
    return run if run.suffix == ".pt" else RunFiles(run).best


def _restart_with_huge_pages() -> None:
    """Start this process anew with huge pages for malloc: torch trains 1.3 to 1.9 times as fast on a CPU."""
    name, value = _HUGE_PAGES
    if sys.platform == "linux" and name not in os.environ:
        os.environ[name] = value
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - itself, no shell wanted


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unet-train", description="From annotated images to a model package.")
    commands = parser.add_subparsers(dest="command", required=True)

    fit = commands.add_parser("fit", help="train a net")
    fit.add_argument("--recipe", required=True, help=f"a TOML file, or one of: {', '.join(shipped_recipes())}")
    fit.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of images and masks")
    fit.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder for checkpoints and log")
    fit.add_argument("--from", dest="origin", type=Path, metavar="RUN", help="begin with the net of another run")
    fit.add_argument("--fold", metavar="K/N", help="validate on part K of N instead of the recipe's own split")
    fit.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in RUN")
    fit.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    fit.add_argument("--workers", type=int, default=1, help="processes that make tiles (default: %(default)s)")
    fit.add_argument("--tensorboard", action="store_true", help="write TensorBoard's event files to RUN")

    evaluate = commands.add_parser("evaluate", help="score a run, a checkpoint or a package on annotated images")
    evaluate.add_argument("target", type=Path, help="folder of a run, a .pt file, or a package (folder or zip)")
    evaluate.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of images and masks")
    evaluate.add_argument("--split", choices=("validation", "training", "all"), default="validation")
    evaluate.add_argument("--recipe", help="how to read DIR, where the target's own recipe does not fit")
    evaluate.add_argument("--device", default="cpu", help="cpu or cuda, for runs (default: %(default)s)")
    evaluate.add_argument("--json", action="store_true", help="JSON instead of a table")

    export = commands.add_parser("export", help="write the best net of a run as a model package")
    export.add_argument("run", type=Path, help="folder of the run, or a .pt file")
    export.add_argument("--out", type=Path, required=True, metavar="PACKAGE", help="folder, or a name ending in .zip")
    export.add_argument("--version", default="1.0.0", help="of the package (default: %(default)s)")
    export.add_argument("--author", default="unet-service", help="(default: %(default)s)")
    export.add_argument("--license-file", type=Path, metavar="FILE", help="full text (default: a short notice)")
    export.add_argument("--channels", nargs="+", metavar="NAME", help="names of the image's channels")
    export.add_argument("--data", type=Path, metavar="DIR", help="score the validation split anew for the card")
    export.add_argument("--trained-by", metavar="COMMAND", help="the command for the card, where it was another one")
    export.add_argument("--recipe", help="take name, card and label rule from this recipe instead of the run's own")
    return parser


if __name__ == "__main__":
    sys.exit(main())
