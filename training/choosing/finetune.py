"""Fine-tuning: a run that begins with the net of another run, or of a package, and inherits its recipe."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.errors import InvalidPackage
from model.normalization import Step
from model.package import RDF_NAMES, Package, description_name, read_package
from model.session import self_test
from model.tiling import valid_unet_geometry
from model.unet import UNet
from model.wording import counted
from training.choosing.choose import (
    choose_foreground_share,
    choose_weights,
    describe,
    describe_survey,
    most_shift_px,
    recipe_name,
)
from training.choosing.choose_size import Budget, Size, choose_schedule, fastest, wish_px
from training.choosing.choose_targets import choose_labels, inherit_targets
from training.choosing.choose_validation import choose_validation, hold_out
from training.choosing.plan import Choice, Plan
from training.data.object_sizes import Percentiles
from training.data.origin import Origin, package_origin
from training.data.splits import says_validation
from training.data.survey import Survey
from training.errors import ForeignPackage, RecipeError
from training.options import Augmentation, Data, Net, Schedule, Targets
from training.packaging.onnx_weights import read_unet
from training.recipe import Recipe, named_in_errors, stored_recipe
from training.report.facts import Caution
from training.runs.checkpoint import Beginning, Checkpoint, load_checkpoint
from training.runs.run_folder import RunFiles, checkpoint_path, is_run, require_net
from training.scoring import Scoring

MINUTES = 20.0
"""Length of a run that begins with a net, where nobody gives one."""

_SHARE_OF_RATE = 0.3  # of the rate of fresh weights: higher ones forget what the net knows
_MOST_TILE_PX = 388
_ANOTHER_SIZE = 2.0  # times as large or as small: beyond what augmentation shows

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _TorchSession:
    """A torch net in the place of a runtime's session, so that a package's own test judges it."""

    net: UNet
    backend: str = "torch"
    provider: str = "torch"
    precision: str = "fp32"
    evidence: None = None

    def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of normalised tiles."""
        with torch.inference_mode():
            logits = self.net(torch.from_numpy(tiles_bcyx))
        probabilities: NDArray[np.float32] = torch.softmax(logits, dim=1).numpy()
        return probabilities


def open_origin(path: Path) -> Beginning:
    """Read what a run shall begin with: a run's folder, a checkpoint, or a package (folder or zip).

    Raises
    ------
    CheckpointError, PackageError
        Where it cannot be read.
    ForeignPackage
        Where it is a package of another net.

    """
    if is_run(path):
        return load_checkpoint(checkpoint_path(path)).begun_with(str(path))
    require_net(path)
    if description_name(path) or path.suffix.lower() == ".zip":
        package = read_package(path)
        return Beginning(package_checkpoint(package), package_origin(package))
    raise ForeignPackage(
        f"{path} is nothing to begin with: expected a run's folder with {RunFiles(path).best.name}, a .pt file, or a "
        f"package (a folder with {' or '.join(RDF_NAMES)}, or a zip)"
    )


def package_checkpoint(package: Package) -> Checkpoint:
    """Read a package back: its net in torch, held to the package's golden pair, and its recipe.

    Raises
    ------
    ForeignPackage
        Where the net is not ours, or does in torch what the package does not.

    """
    net = read_unet(package.weights(), str(package.path))
    geometry = valid_unet_geometry(net.depth, net.downscale)
    if package.spec.geometry != geometry:
        raise ForeignPackage(
            f"{package.path} declares other sizes than a U-Net of depth {net.depth} without padding has; begin with a "
            "package that unet-train wrote"
        )
    try:
        difference = self_test(_TorchSession(net), package)
    except InvalidPackage as error:
        raise ForeignPackage(f"read back into torch, {error}; begin with a package that unet-train wrote") from error
    _log.info("%s: read back, differs from its golden pair by at most %.1e", package.path, difference)
    return Checkpoint(
        recipe=_package_recipe(package, net).model_dump(mode="json"),
        step=0,
        elapsed_s=0.0,
        net=net.state_dict(),
        averaged=None,
        optimizer=None,
        split={"training": [], "validation": []},
        object_diameter_px=package.spec.object_diameter_px,
    )


def inherit(
    origin: Recipe, survey: Survey, data: Data, budget: Budget, name: str, *, known: Origin | None = None
) -> Plan:
    """Compose a recipe for fine-tuning: the origin's net and rules, the folder's images, a short schedule.

    Net, targets, weight map, normalisation, augmentation, label rule and scoring are inherited as far as they fit; what
    does not is chosen from the survey, or is a recipe's default, and said.

    Parameters
    ----------
    origin
        Recipe of the net to begin with.
    survey, data
        What :func:`training.data.survey.survey_folder` returns.
    budget
        Time, device, and how long a step takes.
    name
        Of the data.
    known
        What is known of the net to begin with; images that it was not trained on are preferred for validation.

    """
    net = origin.net
    choices = [Choice(f"net of {origin.name}", f"base width {net.base_width}, depth {net.depth}, {net.downscale} px")]
    if net.in_channels != survey.channels:
        choices.append(
            Choice(
                "the first convolution begins anew",
                f"{counted(survey.channels, 'channel')} here, {net.in_channels} there",
            )
        )
        net = net.model_copy(update={"in_channels": survey.channels})
    normalization, about_normalization = _normalization(origin, survey)
    targets, rule, about_targets = inherit_targets(origin, survey)
    labels, about_labels = choose_labels(survey, rule)
    kept = origin.targets.same_head(targets)
    weights, about_weights = (origin.weights, ()) if kept else choose_weights(survey)
    said = says_validation(data)
    data, about_validation = choose_validation(survey, data)
    if known is not None and not said:
        data, about_validation = hold_out(known, origin.data, survey, data, about_validation)
    fits = kept and origin.scoring.problem_with(data.kind) is None
    scoring = origin.scoring if fits else Scoring()
    size = Size(net.base_width, net.depth, net.downscale, wish_px(survey, _MOST_TILE_PX * net.downscale))
    augmentation, about_augmentation = _augmentation(origin, survey, size.tile_output_px)
    recipe = Recipe(
        name=recipe_name(f"{origin.name}-{name}"),
        data=data,
        net=net,
        targets=targets,
        weights=weights,
        loss=origin.loss,
        tile_output_px=size.tile_output_px,
        augmentation=augmentation,
        normalization=normalization,
        labels=labels,
        scoring=scoring,
        card=describe(survey, name).model_copy(update={"license": origin.card.license}),
    )
    recipe, seconds = fastest(recipe, budget)
    recipe, about_schedule = choose_schedule(survey, recipe, budget, seconds, _SHARE_OF_RATE)
    tile = Choice(f"tile_output_px {recipe.tile_output_px}", f"images are {' x '.join(map(str, survey.median_yx))} px")
    anew = [*about_weights, *about_normalization, *about_augmentation]
    if scoring != origin.scoring:
        anew.append(Choice("scoring by default", f"that of {origin.name} is for other classes or masks"))
    passed_on = {
        "normalization": not about_normalization,
        "weight map": kept,
        "loss, augmentation": True,
        "scoring": scoring == origin.scoring,
    }
    inherited = Choice("inherited", ", ".join(name for name, whether in passed_on.items() if whether))
    choices += [*about_targets, inherited, *anew, about_validation, tile, about_labels, *about_schedule]
    return Plan(describe_survey(survey), recipe, tuple(choices))


def size_caution(learnt_px: Percentiles | None, survey: Survey) -> Caution | None:
    """Say where objects are of quite another size than those that a net has learnt; None where they are not.

    Parameters
    ----------
    learnt_px
        Diameters that the net has learnt, as :func:`.learnt_diameters`; None where nobody knows.
    survey
        Of the images that it shall learn.

    """
    middle = survey.objects.diameter_px[1]
    if learnt_px is None or not middle or max(middle / learnt_px[1], learnt_px[1] / middle) < _ANOTHER_SIZE:
        return None
    low, typical, high = learnt_px
    return Caution(
        f"Objects {middle:.0f} px across (median), where the net to begin with has learnt {typical:.0f} px ({low:.0f} "
        f"to {high:.0f})",
        f"What it knows helps little there. Scale images and masks by {typical / middle:.2g}, or train without --from.",
    )


def _augmentation(origin: Recipe, survey: Survey, tile_output_px: int) -> tuple[Augmentation, tuple[Choice, ...]]:
    """The origin's augmentation, but for what follows the images: tiles around objects, shifts beyond small ones."""
    share, about = choose_foreground_share(survey, tile_output_px)
    augmentation = origin.augmentation.model_copy(update={"foreground_share": share})
    most = most_shift_px(survey)
    if augmentation.shift_px <= most:
        return augmentation, about
    smallest = f"the smallest image has {survey.smallest_yx[0]} x {survey.smallest_yx[1]} px"
    shorter = augmentation.model_copy(update={"shift_px": most})
    return shorter, (*about, Choice(f"shift_px {most:g}", smallest))


def _normalization(origin: Recipe, survey: Survey) -> tuple[tuple[Step, ...], tuple[Choice, ...]]:
    """The origin's normalisation, but for constants that it has for each of another number of channels."""
    counts = {
        len(values)
        for step in origin.normalization
        for values in step.model_dump(exclude={"id"}).values()
        if isinstance(values, tuple)
    }
    if counts <= {1, survey.channels}:
        return origin.normalization, ()
    fresh = Recipe(name=origin.name).normalization
    reason = f"that of {origin.name} has constants for {counted(max(counts), 'channel')}, here are {survey.channels}"
    return fresh, (Choice("normalization by default", reason),)


def _package_recipe(package: Package, net: UNet) -> Recipe:
    """Recipe of a package: its own, or what its description says, with defaults for what only training knows."""
    spec = package.spec
    architecture = Net(
        in_channels=net.in_channels, base_width=net.base_width, depth=net.depth, dropout=0.2, downscale=net.downscale
    )
    facts = spec.facts.get("recipe")
    if isinstance(facts, dict):
        try:
            recipe = stored_recipe(facts, str(package.path))
        except RecipeError as error:
            _log.info("the recipe in the package is not understood, its description is taken instead: %s", error)
        else:
            known = architecture.model_copy(update={"dropout": recipe.net.dropout})
            card = recipe.card.model_copy(update={"license": spec.license})
            return recipe.model_copy(update={"net": known, "labels": spec.label_rule, "card": card})
    scheme = "foreground" if len(spec.classes) == 2 else "classes"
    if len(spec.classes) == 3 and spec.label_rule.has_helper_classes:
        scheme = "contact" if spec.classes[2] == "contact" else "boundary"
    with named_in_errors(f"{package.path} is no package to begin with"):
        return Recipe(
            name=recipe_name(spec.name),
            net=architecture,
            data=Data(kind="instances" if scheme in {"boundary", "contact"} else "semantic"),
            targets=Targets.model_validate({"classes": spec.classes, "scheme": scheme}),
            tile_output_px=Size(net.base_width, net.depth, net.downscale, _MOST_TILE_PX * net.downscale).tile_output_px,
            schedule=Schedule(optimizer="adamw"),
            normalization=spec.normalization,
            labels=spec.label_rule,
        )
