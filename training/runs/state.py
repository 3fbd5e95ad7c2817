"""What changes during a run: the net, its moving average, the optimiser, and how far it has come."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass, field, fields
from typing import cast

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.unet import UNet
from training.errors import CheckpointError, MissingDevice
from training.options import Schedule
from training.recipe import Recipe
from training.runs.checkpoint import Checkpoint, Provenance, build_net

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class TrainingState:
    """A run between two steps.

    Parameters
    ----------
    net, averaged, optimizer
        The net that learns, its moving average (None without one), and what moves it.
    step, elapsed_s
        Steps done, and seconds spent on them over all sittings.
    best_score, figures
        Best validation score so far, -1 before the first; means of the newest validation.
    loss
        Running mean of the loss, NaN before the first step.
    learner
        What a step runs: the net, or what averages its gradients over several processes.

    """

    net: UNet
    averaged: AveragedModel | None
    optimizer: Optimizer
    step: int = 0
    elapsed_s: float = 0.0
    best_score: float = -1.0
    figures: dict[str, float] = field(default_factory=dict)
    loss: float = math.nan
    learner: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.learner = self.net

    @property
    def scored_net(self) -> UNet:
        """The net to validate, in evaluation mode: the moving average where there is one."""
        net = self.net if self.averaged is None else cast("UNet", self.averaged.module)
        return net.eval()

    def follow(self, decay: float) -> None:
        """Move the average towards the net after step ``step``.

        Before step ``9 / (1 - decay)`` or so the decay is (1 + step) / (10 + step), lower than asked for: else a short
        run would end with an average in which its fresh weights still count (1,900 steps at 0.999: for 15 %).
        """
        if self.averaged is not None:
            known = min(decay, (1 + self.step) / (10 + self.step))
            self.averaged.multi_avg_fn = get_ema_multi_avg_fn(known)  # type: ignore[no-untyped-call]
            self.averaged.update_parameters(self.net)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint of the same recipe."""
        self.net.load_state_dict(checkpoint.net)
        if self.averaged is not None and checkpoint.averaged is not None:
            self.averaged.load_state_dict(checkpoint.averaged)
        if checkpoint.optimizer is not None:
            self.optimizer.load_state_dict(checkpoint.optimizer)
        self.step, self.elapsed_s = checkpoint.step, checkpoint.elapsed_s
        self.best_score, self.figures, self.loss = checkpoint.best_score, checkpoint.figures, checkpoint.loss

    def adopt(self, origin: Checkpoint, recipe: Recipe) -> None:
        """Begin with the net that another run ended with, for a run of ``recipe``.

        Where classes or channels are others, the layers that depend on them keep their fresh weights, and the log says
        so. What else may differ :func:`require_fitting_net` says.
        """
        theirs = origin.read_recipe()
        fresh: tuple[str, ...] = ()
        if not theirs.targets.same_head(recipe.targets):
            fresh += ("head.",)
            there, here = ", ".join(theirs.targets.classes), ", ".join(recipe.targets.classes)
            _log.info("the head begins anew: its classes were %s, now they are %s", there, here)
        if theirs.net.in_channels != recipe.net.in_channels:
            fresh += ("stem.", "down.0.0.")
            _log.info(
                "the first convolution begins anew: it took %d channels, now it takes %d",
                theirs.net.in_channels,
                recipe.net.in_channels,
            )
        known = (origin.build_trained_net() if recipe.net.batch_norm else origin.build_net()).state_dict()
        kept = {name: value for name, value in known.items() if not name.startswith(fresh)}
        self.net.load_state_dict(self.net.state_dict() | kept)
        if self.averaged is not None:
            self.averaged.module.load_state_dict(self.net.state_dict())

    def checkpoint(self, recipe: Recipe, provenance: Provenance, *, resumable: bool) -> Checkpoint:
        """Return the state as a checkpoint; without the optimiser where nobody will resume from it."""
        return Checkpoint(
            recipe=recipe.model_dump(mode="json"),
            step=self.step,
            elapsed_s=self.elapsed_s,
            net=self.net.state_dict(),
            averaged=None if self.averaged is None else self.averaged.state_dict(),
            optimizer=self.optimizer.state_dict() if resumable else None,
            best_score=self.best_score,
            figures=self.figures,
            loss=self.loss,
            **{entry.name: getattr(provenance, entry.name) for entry in fields(provenance)},
        )


def require_device(name: str) -> None:
    """Make sure that torch can compute on a device.

    Raises
    ------
    MissingDevice
        Where it is neither ``cpu`` nor ``cuda``, or ``cuda`` cannot be used here.

    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the driver that it does not find; the error below tells it
        usable = torch.cuda.is_available()
    here = "cpu, cuda" if usable else "cpu"
    if name not in {"cpu", "cuda"}:
        raise MissingDevice(f"there is no device {name!r}; here there is: {here}. Choose one of them (--device)")
    if name == "cuda" and not usable:
        built = f"is built for CUDA {torch.version.cuda} but finds no GPU" if torch.version.cuda else "has no CUDA"
        raise MissingDevice(
            f"device 'cuda' cannot be used: torch {torch.__version__} {built}; here there is: {here}. "
            "Leave --device out, or install torch for CUDA and the GPU's driver"
        )


def require_fitting_net(origin: Checkpoint, recipe: Recipe) -> None:
    """Make sure that a run of ``recipe`` can begin with the net of ``origin``.

    Raises
    ------
    CheckpointError
        Where width, depth, blocks or batch normalisation differ.

    """
    theirs = origin.read_recipe()
    for name in ("base_width", "depth", "downscale"):
        found, wanted = getattr(theirs.net, name), getattr(recipe.net, name)
        if found != wanted:
            raise CheckpointError(
                f"the net to begin with is another: its {name} is {found}, the recipe's {wanted}; give the recipe "
                f"net.{name} = {found}"
            )
    if recipe.net.batch_norm and not theirs.net.batch_norm:
        raise CheckpointError(
            "the net to begin with is another: it has no batch normalisation (packages have none, it is folded "
            "away), the recipe has; give the recipe net.batch_norm = false"
        )


def fresh_state(recipe: Recipe, device: str) -> TrainingState:
    """Start a run: weights drawn from the recipe's seed."""
    schedule = recipe.schedule
    torch.manual_seed(schedule.seed)
    net = build_net(recipe).to(device)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it
    averaged = None
    if schedule.ema:
        averaged = AveragedModel(net, use_buffers=True)
    return TrainingState(net, averaged, _optimizer(net, schedule))


def learning_rate(schedule: Schedule, step: int, progress: float) -> float:
    """Rate of step ``step`` (from 0), ``progress`` (0 to 1) through the run."""
    warmup = min(1.0, (step + 1) / (schedule.warmup_steps + 1))
    match schedule.decay:
        case "constant":
            factor = 1.0
        case "poly":
            factor = (1 - progress) ** 0.9
        case "cosine":
            factor = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * progress)).item())
    return schedule.learning_rate * warmup * factor


def _optimizer(net: nn.Module, schedule: Schedule) -> Optimizer:
    rate, decay = schedule.learning_rate, schedule.weight_decay
    if schedule.optimizer == "sgd":
        return SGD(net.parameters(), lr=rate, momentum=schedule.momentum, weight_decay=decay)
    return AdamW(net.parameters(), lr=rate, weight_decay=decay)
