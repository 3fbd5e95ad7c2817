"""The state of a run on disk: everything needed to go on, to evaluate, and to export."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from model.unet import UNet
from training.data.origin import Origin, name_digest
from training.errors import CheckpointError, RecipeError
from training.recipe import Recipe, stored_recipe
from training.recipe_differences import differences
from training.writing import replacing

_log = logging.getLogger(__name__)

_FORMAT = 1

Arguments = tuple[tuple[str, str], ...]
"""Options of a command with their values, ``("--recipe", "nuclei")``, in the order in which they are quoted."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State after ``step`` steps.

    Parameters
    ----------
    recipe
        The recipe as a dictionary (:meth:`training.recipe.Recipe.model_dump` in JSON mode): net, normalisation, labels.
    step, elapsed_s
        Steps done and seconds spent on them.
    net
        State dictionary of the net that is being trained.
    averaged
        State dictionary of its moving average (:class:`torch.optim.swa_utils.AveragedModel`); None without one.
    optimizer
        State dictionary of the optimiser; None in ``best.pt``.
    split
        Stems of the training and of the validation images.
    best_score
        Best validation score so far; -1 before the first.
    figures
        Means of the validation that belongs to these weights; empty before the first.
    loss
        Running mean of the loss; NaN before the first step.
    processes
        Processes that train together: how many batches a step is.
    digests, pixels
        :meth:`.AnnotatedImage.digest` and ``pixels_digest`` of each image of the split by its stem;
        empty where an older version wrote the checkpoint.
    origin
        What the run began with; None for fresh weights, and where an older version wrote the checkpoint.
    arguments
        Options of the command that began the run (:func:`.arguments_of`); empty where there was
        none, or an older version wrote the checkpoint.
    object_diameter_px
        Of the training images' objects (:func:`.learnt_diameters`); None where they have none, and
        where an older version wrote the checkpoint.

    """

    recipe: dict[str, Any]
    step: int
    elapsed_s: float
    net: dict[str, Any]
    averaged: dict[str, Any] | None
    optimizer: dict[str, Any] | None
    split: dict[str, list[str]]
    best_score: float = -1.0
    figures: dict[str, float] = field(default_factory=dict)
    loss: float = math.nan
    processes: int = 1
    digests: dict[str, str] = field(default_factory=dict)
    pixels: dict[str, str] = field(default_factory=dict)
    origin: Origin | None = None
    arguments: Arguments = ()
    object_diameter_px: tuple[float, float, float] | None = None

    def changed(self, digests: Mapping[str, str]) -> list[str]:
        """Return the stems, sorted, under which the run has seen other pixels or labels than those of ``digests``."""
        return sorted(stem for stem, digest in digests.items() if self.digests.get(stem, digest) != digest)

    def begun_with(self, name: str) -> Beginning:
        """Return the run, called ``name``, as what another one begins with."""
        own = {self.pixels.get(stem) or name_digest(stem) for stem in self.split["training"]}
        before = self.origin or Origin(name)
        return Beginning(self, Origin(name, None, tuple(sorted(own | set(before.seen))), before.unknown))

    def among_side(self, side: str, pixels: Mapping[str, str]) -> list[str]:
        """Return the stems, in the given order, of the images that stand on one side of the run's split.

        They are known by their pixels; by their names where the run is of an older version, which kept no digests.

        Parameters
        ----------
        side
            ``training`` or ``validation``.
        pixels
            Digest of the pixels of each image by stem.

        """
        of_side = replace(self, origin=None, split={"training": self.split[side]})
        return of_side.begun_with("").origin.seen_among(pixels)

    def learnt_before(self) -> list[str]:
        """Stems of the validation images that the net to begin with, or a forerunner of it, was trained on."""
        if self.origin is None:
            return []
        return self.origin.seen_among({stem: self.pixels.get(stem, "") for stem in self.split["validation"]})

    def save(self, path: Path) -> None:
        """Write whole or not at all: a kill at any moment leaves the old file or the new one.

        Raises
        ------
        Unwritable
            Where it cannot be written; the old file stays.

        """
        state = {entry.name: getattr(self, entry.name) for entry in fields(self)} | {"format": _FORMAT}
        if self.origin is not None:
            state["origin"] = asdict(self.origin)
        with replacing(path) as file:
            torch.save(state, file)

    def read_recipe(self) -> Recipe:
        """Return the recipe as a value.

        Raises
        ------
        CheckpointError
            Where a later version of the software no longer understands it.

        """
        try:
            return stored_recipe(self.recipe, "the checkpoint's recipe is not understood")
        except RecipeError as error:
            raise CheckpointError(f"{error}. Use it with the version that wrote it, or train again") from error

    def build_net(self) -> UNet:
        """Return the net to use, in evaluation mode on the CPU: the averaged weights where there are any.

        Batch normalisation is folded into the convolutions: what is used is the paper's net.
        """
        return self.build_trained_net().folded()

    def build_trained_net(self) -> UNet:
        """Return the net as it was trained, batch normalisation and all, in evaluation mode."""
        recipe = self.read_recipe()
        net = build_net(recipe)
        weights = self.net
        if self.averaged is not None:
            prefix = "module."
            weights = {key[len(prefix) :]: value for key, value in self.averaged.items() if key.startswith(prefix)}
        net.load_state_dict(weights)
        return net.eval()


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a run begins with instead of fresh weights: a net, and what the run will remember of it."""

    net: Checkpoint
    origin: Origin


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a run keeps from its first checkpoint to its last: parameters as of :class:`Checkpoint`."""

    split: dict[str, list[str]]
    digests: dict[str, str] = field(default_factory=dict)
    pixels: dict[str, str] = field(default_factory=dict)
    origin: Origin | None = None
    arguments: Arguments = ()
    processes: int = 1
    object_diameter_px: tuple[float, float, float] | None = None


def build_net(recipe: Recipe) -> UNet:
    """Return the recipe's net with fresh weights drawn from torch's global generator."""
    return UNet(
        in_channels=recipe.net.in_channels,
        classes=len(recipe.targets.classes),
        base_width=recipe.net.base_width,
        depth=recipe.net.depth,
        dropout=recipe.net.dropout,
        downscale=recipe.net.downscale,
        batch_norm=recipe.net.batch_norm,
    )


def require_own_recipe(path: Path, recipe: Recipe) -> None:
    """Make sure that a run is resumed by the recipe that it began with, but for its card.

    Raises
    ------
    CheckpointError
        With the values that differ.

    """
    # read as a recipe first: options that did not exist when it was written have their default
    differing = differences(load_checkpoint(path).read_recipe(), recipe, {"card"})
    if differing:
        raise CheckpointError(
            f"{path} was made by another recipe: {differing}. Resume with what it began with, or begin another run "
            f"with its net (--from {path}, another --out)"
        )


def load_own_checkpoint(
    path: Path, split: dict[str, list[str]], digests: Mapping[str, str], processes: int
) -> Checkpoint:
    """Read the state that a run resumes from; the log says where an older version left nothing to compare images by.

    Raises
    ------
    CheckpointError
        Where images, their pixels or labels, or the number of processes are others.

    """
    last = load_checkpoint(path)
    if last.split != split:
        raise CheckpointError(f"{path} was made from other images; choose another --out, or bring the images back")
    if not last.digests:
        _log.warning(
            "%s was written by an older version, which kept nothing to compare images by: make sure that they are the "
            "same; what it learns from here on may differ from an undisturbed run of that version",
            path,
        )
    changed = last.changed(digests)
    if changed:
        raise CheckpointError(
            f"{path} was made from other images: {len(changed)} of {len(digests)} have other pixels or labels now, "
            f"{changed[0]} is the first; bring them back, or begin with this net in another --out (--from {path})"
        )
    if last.processes != processes:
        raise CheckpointError(
            f"{path} was made by {last.processes} processes that share the tiles, here there are {processes}; "
            f"start {last.processes} (torchrun --nproc-per-node {last.processes}), or begin a new run with this net "
            f"(--from {path})"
        )
    return last


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in it is executed.

    Raises
    ------
    CheckpointError
        Where it is missing, damaged, or of another format.

    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}; train first, or correct the path") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is no readable checkpoint ({type(error).__name__}); train again") from error
    found = state.pop("format", None) if isinstance(state, dict) else None
    if found != _FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {found}, {_FORMAT} is expected; train again")
    if state.get("origin") is not None:
        state["origin"] = Origin(**state["origin"])
    return Checkpoint(**state)
