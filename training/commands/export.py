"""``unet-train export``: write the best net of a run as a model package."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from model.errors import ModelError
from training.data.datasets import load_for
from training.data.object_sizes import Percentiles, learnt_diameters, masks_tell_objects
from training.errors import MissingLicense, RecipeError, TrainingError
from training.evaluation.evaluate import score
from training.evaluation.prediction import net_predictor
from training.evaluation.targets import chosen_images
from training.packaging.card import license_notice, run_card
from training.packaging.drafts import require_place
from training.packaging.export import Card, describe, export_package, golden_answer
from training.packaging.golden import golden_image
from training.packaging.variants import add_int8_by
from training.paths import given_path
from training.recipe import Recipe, read_recipe, stored_recipe
from training.runs.checkpoint import Checkpoint, load_checkpoint
from training.runs.command_line import public_command_line
from training.runs.run_folder import checkpoint_path
from training.writing import require_folder


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    # not "run", which is what the command does
    parser.add_argument("finished", metavar="run", type=given_path, help="folder of the run, or a .pt file")
    parser.add_argument(
        "--out", type=given_path, required=True, metavar="PACKAGE", help="folder, or a name ending in .zip"
    )
    parser.add_argument("--version", default="1.0.0", help="of the package (default: %(default)s)")
    parser.add_argument("--author", default="unet-service", help="(default: %(default)s)")
    parser.add_argument("--license-file", type=given_path, metavar="FILE", help="full text (default: a short notice)")
    parser.add_argument("--channels", nargs="+", metavar="NAME", help="names of the image's channels")
    parser.add_argument(
        "--data",
        type=given_path,
        metavar="DIR",
        help="score the validation split anew for the card, and add int8 weights",
    )
    parser.add_argument("--no-int8", action="store_true", help="leave int8 weights out")
    parser.add_argument("--trained-by", metavar="COMMAND", help="the command for the card, where it was another one")
    parser.add_argument("--recipe", help="take name, card and label rule from this recipe instead of the run's own")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write a package, and say how far torch and ONNX Runtime differ on it.

    Raises
    ------
    RecipeError
        Where the label rule to publish does not fit the net, or is another one than the run was scored with.
    ExportError
        As :func:`training.packaging.export.export_package`; what can be known before the net is run is refused before.
    MissingLicense
        Where the licence text cannot be read.
    Unwritable
        Where the folder of the package cannot be written.

    """
    checkpoint = load_checkpoint(checkpoint_path(options.finished))
    recipe = _published(checkpoint, options)
    net = checkpoint.build_net()
    license_text = _license_text(options.license_file, recipe.card.license, options.author)
    channels = options.channels or [f"channel{index}" for index in range(recipe.net.in_channels)]

    def card_of(scored: Checkpoint) -> Card:
        return run_card(
            scored,
            recipe,
            version=options.version,
            author=options.author,
            license_text=license_text,
            command=options.trained_by or public_command_line(checkpoint, options.finished),
        )

    require_place(options.out)
    require_folder(options.out.parent)
    describe(
        net,
        card_of(checkpoint),
        channels=channels,
        classes=recipe.targets.classes,
        normalization=recipe.normalization,
        label_rule=recipe.labels,
    )
    if options.data is not None:
        held_out = chosen_images(recipe, options.data, "validation", checkpoint, checkpoint.origin)
        figures = score(net_predictor(net, recipe), recipe, held_out).means()
        checkpoint = replace(checkpoint, figures=figures)
    checkpoint = replace(checkpoint, object_diameter_px=_object_diameters(checkpoint, recipe, options.data))
    package, agreement = export_package(
        net,
        card_of(checkpoint),
        channels=channels,
        classes=recipe.targets.classes,
        normalization=recipe.normalization,
        label_rule=recipe.labels,
        image_yxc=golden_image(recipe.net.in_channels, golden_answer(net, recipe.normalization)),
        out=options.out,
    )
    sys.stdout.write(
        f"{package.path}: torch and ONNX Runtime differ by at most {agreement.largest_difference:.1e}, "
        f"same class in {1 - agreement.other_class:.4%} of the pixels\n"
    )
    if options.data is not None and not options.no_int8:
        try:
            sys.stdout.write(add_int8_by(recipe, package, options.data) + "\n")
        except (TrainingError, ModelError) as error:  # the package is whole without
            sys.stderr.write(f"no int8 weights: {error}\n")


def _published(checkpoint: Checkpoint, options: argparse.Namespace) -> Recipe:
    """Recipe to publish a run by: words and label rule may be bettered after training, the net may not."""
    own = checkpoint.read_recipe()
    if options.recipe is None:
        return own
    newer = read_recipe(options.recipe)
    changed = own.model_copy(update={"name": newer.name, "card": newer.card, "labels": newer.labels})
    recipe = stored_recipe(changed.model_dump(mode="json"), f"{options.recipe} for the net of {options.finished}")
    if options.data is None and recipe.labels != own.labels:
        raise RecipeError("the label rule is not the one that the run was scored with; give --data to score it again")
    return recipe


def _object_diameters(checkpoint: Checkpoint, recipe: Recipe, data: Path | None) -> Percentiles | None:
    """Diameters of the objects that a run has learnt: as it has kept them, or of its training images in a folder."""
    if checkpoint.object_diameter_px is not None or data is None:
        return checkpoint.object_diameter_px if masks_tell_objects(recipe) else None
    images = load_for(recipe, data)
    learnt = set(checkpoint.among_side("training", {image.stem: image.pixels_digest() for image in images}))
    return learnt_diameters([image for image in images if image.stem in learnt], recipe)


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
