"""A training run, read from top to bottom in the order in which things happen."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from training.checkpoint import Checkpoint, load_checkpoint
from training.datasets import AnnotatedImage, load_images
from training.errors import CheckpointError, Diverged
from training.evaluate import evaluate_images
from training.losses import weighted_cross_entropy
from training.options import Schedule
from training.prediction import net_predictor
from training.recipe import Recipe
from training.splits import split_images
from training.state import TrainingState, fresh_state, learning_rate, require_device
from training.tiles import TileDataset, class_weights, prepare

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_log = logging.getLogger(__name__)
_LOG_EVERY = 100  # steps


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Files of one run's folder."""

    folder: Path

    @property
    def last(self) -> Path:
        """Newest state, to resume from."""
        return self.folder / "last.pt"

    @property
    def best(self) -> Path:
        """State with the best validation score, to evaluate and export."""
        return self.folder / "best.pt"

    @property
    def log(self) -> Path:
        """One JSON object a line: step, minutes, running loss, learning rate, figures of a validation."""
        return self.folder / "log.jsonl"


def checkpoint_path(run: Path) -> Path:
    """File of the net to use: the given one, or the best of a run's folder."""
    return run if run.suffix == ".pt" else RunFiles(run).best


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    origin: Checkpoint | None = None,
    device: str = "cpu",
    workers: int = 1,
    tensorboard: bool = False,
) -> Checkpoint:
    """Train a net and return its last state; ``out`` receives ``last.pt``, ``best.pt`` and ``log.jsonl``.

    On the CPU a run is repeatable from its seed, and a resumed run ends with the same weights, bit for bit, as one that
    was never interrupted (test: ``test_a_resumed_run_ends_with_the_same_weights``), unless ``max_minutes`` is given.

    Parameters
    ----------
    recipe
        What to do.
    data
        The data folder.
    out
        The run's folder.
    resume
        Go on from ``last.pt``.
    origin
        Begin with the net of another run instead of fresh weights; it must be the same net.
    device
        ``cpu`` or ``cuda``.
    workers
        Processes that make tiles; 0: this one.
    tensorboard
        Write TensorBoard's event files to ``out`` as well.

    Raises
    ------
    TrainingError
        Before the first step for a missing device, a broken dataset or checkpoint, nothing to resume, or a run that
        would be overwritten; :class:`training.errors.Diverged` later.

    """
    schedule, files = recipe.schedule, RunFiles(out)

    # 0. what needs no image to be refused
    require_device(device)
    if resume and not files.last.exists():
        raise CheckpointError(f"nothing to resume: there is no {files.last}; leave --resume out, or correct --out")
    if files.last.exists() and not resume:
        raise CheckpointError(f"{files.last} is there already; resume it (--resume), or choose another folder (--out)")

    # 1. all images, checked, and the split that their names decide
    images = load_images(data, recipe.data, recipe.net.in_channels, len(recipe.targets.classes))
    training, validation = split_images(images, recipe.data)
    split = {"training": [image.stem for image in training], "validation": [image.stem for image in validation]}
    _log.info("%d images for training, %d for validation", len(training), len(validation))

    # 2. a fresh net, or the one to go on with
    state = fresh_state(recipe, device)
    if origin is not None:
        state.adopt(origin)
    if resume:
        state.restore(_matching_checkpoint(files.last, recipe, split))
        _log.info("resumed after step %d", state.step)
    out.mkdir(parents=True, exist_ok=True)
    writer = _event_writer(out) if tensorboard else None

    # 3. weight maps once; tiles from then on in the order of their numbers
    wc = class_weights(training, recipe)
    _log.info("class weights: %s", dict(zip(recipe.targets.classes, wc.round(3).tolist(), strict=True)))
    tiles = _tiles(TileDataset(prepare(training, recipe), recipe, wc), schedule, state.step, workers, device)

    # 4. steps, until they or the minutes are used up
    began, loss = time.monotonic() - state.elapsed_s, math.nan
    done = state.step >= schedule.steps
    bar = tqdm(total=schedule.steps, initial=state.step, desc=recipe.name, unit="step", mininterval=5, smoothing=0.05)
    while not done:
        state.elapsed_s = time.monotonic() - began
        progress = _progress(schedule, state)
        rate = learning_rate(schedule, state.step, progress)
        newest = training_step(state, next(tiles), schedule, rate)
        loss = newest if math.isnan(loss) else 0.99 * loss + 0.01 * newest
        done = state.step >= schedule.steps or progress >= 1
        bar.update()
        bar.set_postfix(loss=f"{loss:.4f}", lr=f"{rate:.1e}", refresh=False)

        # 5. now and then: whole images as served; the best net, the newest state and the log to disk
        validated = bool(validation) and (done or state.step % schedule.validate_every == 0)
        if validated:
            improved = validate(state, validation, recipe)
            bar.write(f"step {state.step}: " + "  ".join(f"{k} {v:.4f}" for k, v in state.figures.items()))
            if improved and schedule.keep == "best":
                state.checkpoint(recipe, split, resumable=False).save(files.best)
        if validated or done or state.step % _LOG_EVERY == 0:
            _write_log(files.log, writer, state, loss, rate, validated=validated)
        if done or state.step % schedule.checkpoint_every == 0:
            state.checkpoint(recipe, split, resumable=True).save(files.last)
    bar.close()
    if writer is not None:
        writer.close()

    # 6. where no validation image chooses, the last net is the best that is known
    if not validation or schedule.keep == "last":
        state.checkpoint(recipe, split, resumable=False).save(files.best)
    return state.checkpoint(recipe, split, resumable=True)


def training_step(state: TrainingState, batch: tuple[Tensor, Tensor, Tensor], schedule: Schedule, rate: float) -> float:
    """Forward, weighted loss on the unpadded output, backward, update; returns the loss.

    Raises
    ------
    Diverged
        Where the loss is not finite; the weights are left as they were.

    """
    torch.manual_seed(schedule.seed * 1_000_003 + state.step)  # drop-out of a step is the same in a resumed run
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    device = next(state.net.parameters()).device
    images, targets, weights = (part.to(device, non_blocking=True) for part in batch)
    state.net.train()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=schedule.precision == "bf16"):
        logits = state.net(images.contiguous(memory_format=torch.channels_last))  # (b, c, o, o)
    loss = weighted_cross_entropy(logits, targets, weights)
    value = loss.item()
    if not math.isfinite(value):
        raise Diverged(f"the loss is {value} at step {state.step}; lower schedule.learning_rate (now {rate:.2e})")
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if schedule.clip_norm:
        torch.nn.utils.clip_grad_norm_(state.net.parameters(), schedule.clip_norm)
    state.optimizer.step()
    if state.averaged is not None:
        state.averaged.update_parameters(state.net)
    state.step += 1
    return value


def validate(state: TrainingState, images: list[AnnotatedImage], recipe: Recipe) -> bool:
    """Score the net on whole images as served; returns whether it is the best so far."""
    instances = recipe.data.kind == "instances"
    predictor = net_predictor(state.scored_net, recipe)
    evaluation = evaluate_images(images, predictor, instances=instances, scoring=recipe.scoring)
    state.figures = evaluation.means()
    improved = evaluation.score() > state.best_score
    state.best_score = max(state.best_score, evaluation.score())
    return improved


def _progress(schedule: Schedule, state: TrainingState) -> float:
    """Elapsed fraction of the run: of its steps, or of its minutes where they run out sooner."""
    fractions = [state.step / schedule.steps]
    if schedule.max_minutes is not None:
        fractions.append(state.elapsed_s / 60 / schedule.max_minutes)
    return min(1.0, max(fractions))


def _tiles(
    dataset: TileDataset, schedule: Schedule, start: int, workers: int, device: str
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches from step ``start`` on, in order."""
    loader = DataLoader(
        dataset,
        batch_size=schedule.batch,
        sampler=range(start * schedule.batch, schedule.steps * schedule.batch),
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        pin_memory=device == "cuda",
    )
    return iter(loader)


def _matching_checkpoint(path: Path, recipe: Recipe, split: dict[str, list[str]]) -> Checkpoint:
    """Read the state to resume from.

    Raises
    ------
    CheckpointError
        Where recipe (but for its card) or images are others.

    """
    last = load_checkpoint(path)
    ours = recipe.model_dump(mode="json")
    changed = sorted(key for key, value in ours.items() if key != "card" and value != last.recipe.get(key))
    if changed:
        raise CheckpointError(f"{path} was made by another recipe ({', '.join(changed)} differ); choose another --out")
    if last.split != split:
        raise CheckpointError(f"{path} was made from other images; choose another --out, or bring the images back")
    return last


def _event_writer(folder: Path) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter  # seconds to import

    return SummaryWriter(str(folder))


def _write_log(
    path: Path, writer: SummaryWriter | None, state: TrainingState, loss: float, rate: float, *, validated: bool
) -> None:
    entry = {"step": state.step, "minutes": round(state.elapsed_s / 60, 2), "loss": loss, "lr": rate}
    figures = state.figures if validated else {}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry | ({"validation": figures} if validated else {})) + "\n")
    if writer is not None:
        for name, value in {"loss": loss, "lr": rate, **{f"validation/{k}": v for k, v in figures.items()}}.items():
            writer.add_scalar(name, value, state.step)
