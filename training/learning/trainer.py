"""A training run, read from top to bottom in the order in which things happen."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from training.data.datasets import IGNORE, load_for
from training.data.loading import Batch, require_workers, tile_batches
from training.data.object_sizes import learnt_diameters
from training.data.splits import split_for_run
from training.data.tiles import TileDataset, class_weights, prepare, require_annotated, require_tile
from training.errors import Diverged
from training.evaluation.folds import tell_split, warn_of_seen
from training.learning.distributed import ALONE, Processes
from training.learning.losses import soft_dice_loss, weighted_cross_entropy
from training.learning.progress import Progress, share_done
from training.learning.record import Record
from training.recipe import Recipe
from training.report.tile_facts import all_cautions
from training.runs.checkpoint import (
    Arguments,
    Beginning,
    Checkpoint,
    Provenance,
    load_own_checkpoint,
    require_own_recipe,
)
from training.runs.run_folder import Journal, RunFiles
from training.runs.state import TrainingState, fresh_state, learning_rate, require_device, require_fitting_net

_log = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    beginning: Beginning | None = None,
    arguments: Arguments = (),
    device: str = "cpu",
    workers: int = 1,
    tensorboard: bool = False,
    cautious: bool = False,
    processes: Processes = ALONE,
) -> Checkpoint:
    """Train a net and return its last state; ``out`` receives ``last.pt``, ``best.pt`` and ``log.jsonl``.

    On the CPU a run is repeatable from its seed, and a run that was killed and resumed ends with the same weights and
    log, bit for bit, as one that was never interrupted (test: ``test_a_run_killed_again_and_again_ends_the_same``),
    unless ``max_minutes`` is given.

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
    beginning
        Begin with the net of another run instead of fresh weights; width, depth and blocks must be the same.
    arguments
        The command that begins the run, kept for its report and card.
    device
        ``cpu`` or ``cuda``.
    workers
        Processes that make tiles; 0: this one.
    tensorboard
        Write TensorBoard's event files to ``out`` as well.
    cautious
        Say in the log, before a new run begins, what a person should look at: as ``unet-train preview`` does.
    processes
        Those that train together (:func:`training.learning.distributed.joined`); the first one validates and writes.

    Raises
    ------
    TrainingError
        Before the first step for a missing device, a net to begin with that does not fit, a broken dataset or
        checkpoint, nothing to resume, or a run that would be overwritten; :class:`training.errors.Diverged` later, and
        :class:`training.errors.Unwritable` whenever the disk is full.

    """
    files = RunFiles(out)

    # 0. what needs no image to be refused
    require_device(device)
    require_workers(workers)
    _require_possible(files, recipe, beginning, resume=resume)
    if device == "cuda":
        torch.backends.cudnn.benchmark = True  # all tiles have one shape: the fastest kernels are looked for once

    # 1. all images, checked, and the split that their names decide
    images = load_for(recipe, data)
    require_tile(images, recipe)
    training, validation = split_for_run(images, recipe.data, data)
    require_annotated(training, recipe, recipe.schedule.steps * recipe.schedule.batch * processes.count)
    split = {"training": [image.stem for image in training], "validation": [image.stem for image in validation]}
    origin = None if beginning is None else beginning.origin
    provenance = Provenance(
        split,
        {image.stem: image.digest() for image in (*training, *validation)},
        {image.stem: image.pixels_digest() for image in (*training, *validation)},
        origin,
        arguments,
        processes.count,
        learnt_diameters(training, recipe),
    )
    recipe = _with_own_card(recipe, provenance)
    tell_split(split, provenance.pixels, warn=processes.first)
    if cautious and processes.first and not resume:
        _log.info("looking at the images and their labels for what a person should see before it is learnt ...")
        for caution in all_cautions(images, training, recipe):
            _log.warning("%s", caution)
    if origin is not None and processes.first and not resume:
        warn_of_seen(origin, {stem: provenance.pixels[stem] for stem in split["validation"]}, recipe.name)

    with files.taken() if processes.first else nullcontext():
        files.require(resume=resume, held=True)  # another process may have filled the folder since

        # 2. a fresh net, or the one to go on with
        state = fresh_state(recipe, device)
        if beginning is not None:
            state.adopt(beginning.net, recipe)
        if resume:
            last = load_own_checkpoint(files.last, split, provenance.digests, processes.count)
            state.restore(last)
            known = last.origin if last.pixels else origin  # an older version kept none
            provenance = replace(provenance, origin=known, arguments=last.arguments)
            _log.info("resumed after step %d", state.step)
        state.learner = processes.learner(state.net)
        processes.wait()  # until all have seen that the folder is free: now it fills
        record = None
        if processes.first:
            journal = Journal(files.log, state.step, tensorboard=tensorboard)
            progress = Progress(recipe.schedule, recipe.name, step=state.step, elapsed_s=state.elapsed_s)
            record = Record(recipe, provenance, validation, files, journal, progress)
            if not resume:
                record.save(state, files.last)  # from here on a kill leaves something to resume

        # 3. weight maps once; tiles from then on in the order of their numbers
        wc = class_weights(training, recipe)
        _log.info("class weights: %s", dict(zip(recipe.targets.classes, wc.round(3).tolist(), strict=True)))
        batch = recipe.schedule.batch
        numbers = processes.tile_numbers(batch, state.step, recipe.schedule.steps)
        tiles = tile_batches(TileDataset(prepare(training, recipe), recipe, wc), numbers, batch, workers, device)

        # 4. steps, until they or the minutes are used up
        _learn(state, tiles, recipe, record, processes)

        # 5. where no validation image chooses, the last net is the best that is known
        if record is not None:
            record.close(state)
        processes.wait()
        return state.checkpoint(recipe, provenance, resumable=True)


def _with_own_card(recipe: Recipe, provenance: Provenance) -> Recipe:
    """Leave out a card that speaks of other images: no package may claim data that it has not seen."""
    own = recipe.for_images(provenance.pixels.values())
    if own is not recipe:
        _log.info("none of the images of recipe %s; its card is left out", recipe.name)
    return own


def _require_possible(files: RunFiles, recipe: Recipe, beginning: Beginning | None, *, resume: bool) -> None:
    """Make sure of what the run's folder, and the net to begin with, can tell before any image is read."""
    files.require(resume=resume)
    if resume:
        require_own_recipe(files.last, recipe)
    if beginning is not None:
        require_fitting_net(beginning.net, recipe)


def _learn(
    state: TrainingState,
    tiles: Iterator[Batch],
    recipe: Recipe,
    record: Record | None,
    processes: Processes,
) -> None:
    """Step after step from where ``state`` stands to the end of the schedule."""
    schedule = recipe.schedule
    began, done = time.monotonic() - state.elapsed_s, share_done(schedule, state.step, state.elapsed_s) >= 1
    while not done:
        if schedule.max_minutes is None:
            state.elapsed_s = time.monotonic() - began
        else:
            state.elapsed_s = processes.agree(time.monotonic() - began)
        progress = share_done(schedule, state.step, state.elapsed_s)
        rate = learning_rate(schedule, state.step, progress)
        newest = training_step(state, next(tiles), recipe, rate, processes)
        state.loss = newest if math.isnan(state.loss) else 0.99 * state.loss + 0.01 * newest
        done = state.step >= schedule.steps or progress >= 1
        if record is not None:
            record.progress.advance(state.step, time.monotonic() - began, state.loss, rate)
            record.step(state, rate, done=done)


def training_step(
    state: TrainingState,
    batch: Batch,
    recipe: Recipe,
    rate: float,
    processes: Processes = ALONE,
) -> float:
    """Forward, loss on the unpadded output, backward, update; returns the loss over all processes.

    Raises
    ------
    Diverged
        Where the loss is not finite; the weights are left as they were.

    """
    schedule = recipe.schedule
    # drop-out of a step is the same in a resumed run
    torch.manual_seed(schedule.seed * 1_000_003 + state.step + (processes.rank << 48))
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    device = next(state.net.parameters()).device
    images, targets, weights = (part.to(device, non_blocking=True) for part in batch)
    state.net.train()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=schedule.precision == "bf16"):
        logits = state.learner(images.contiguous(memory_format=torch.channels_last))  # (b, c, o, o)
    loss = weighted_cross_entropy(logits, targets, weights) * processes.share(targets != IGNORE)
    if recipe.loss.dice:
        loss = loss + recipe.loss.dice * soft_dice_loss(logits, targets)
    value = processes.mean(loss).item()
    if not math.isfinite(value):
        raise Diverged(f"the loss is {value} at step {state.step}; lower schedule.learning_rate (now {rate:.2e})")
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if schedule.clip_norm:
        torch.nn.utils.clip_grad_norm_(state.net.parameters(), schedule.clip_norm)
    state.optimizer.step()
    state.follow(schedule.ema)
    state.step += 1
    return value
