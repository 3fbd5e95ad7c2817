"""How large the net and its tiles are and how long they learn: as much as the time allows, by the measured step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from model.tiling import valid_unet_geometry
from model.wording import counted
from training.choosing.plan import Choice
from training.data.splits import validation_stems
from training.data.survey import Survey
from training.options import Schedule
from training.recipe import Recipe
from training.report.facts import Caution

_FEWEST_STEPS = 1500  # with fewer a smaller net learns more
_TOO_FEW_STEPS = 300  # for a net that knows nothing
_MOST_STEPS = 20_000
_SHARE_OF_STEPS = 0.85  # of the time; the rest reads images, computes weight maps, validates
_SHARE_OF_VALIDATION = 0.1
_FEW_VALIDATION_IMAGES = 5
_RATES = {64: 3e-4, 32: 5e-4, 16: 1e-3, 8: 2e-3}
# base width, depth at most, output of a tile at most in blocks of pixels: the last that is fast enough is taken
_LADDER = ((8, 3, 84), (8, 3, 132), (16, 3, 196), (16, 4, 260), (32, 4, 260), (32, 4, 388), (64, 4, 388))
_WIDEST = {"cpu": 32, "cuda": 64}


@dataclass(frozen=True, slots=True)
class Budget:
    """Time for a run, and what it is spent on.

    Parameters
    ----------
    minutes
        Limit by the clock.
    steps
        Number of steps; without it and without ``minutes`` as many as take about ``usual_minutes`` here. A number of
        steps can be repeated bit for bit, a limit by the clock cannot.
    usual_minutes
        Length of a run that nobody limits.
    device
        ``cpu`` or ``cuda``.
    bf16
        Whether the device computes in bfloat16, and how that is known.
    seconds_per_step
        Seconds that a step of a recipe takes, measured.

    """

    minutes: float | None
    steps: int | None
    usual_minutes: float
    device: str
    bf16: tuple[bool, str]
    seconds_per_step: Callable[[Recipe], float]

    def affordable_steps(self, seconds: float) -> int:
        """Steps that there is time for, where each takes so many seconds; at least 1."""
        if self.steps is not None:
            return self.steps
        if self.minutes is not None:
            return max(1, int(60 * self.minutes * _SHARE_OF_STEPS / seconds))
        return max(1, min(_MOST_STEPS, _two_digits(int(60 * self.usual_minutes * _SHARE_OF_STEPS / seconds))))


@dataclass(frozen=True, slots=True)
class Size:
    """Net and tile; ``wish_px`` is the tile's output before it is made legal."""

    base_width: int
    depth: int
    downscale: int
    wish_px: int

    @property
    def tile_output_px(self) -> int:
        """Smallest legal output size that holds ``wish_px``."""
        geometry = valid_unet_geometry(self.depth, self.downscale)
        return geometry.output_shape((geometry.y.input_for(self.wish_px),) * 2)[0]


def choose_size(survey: Survey, recipe: Recipe, budget: Budget) -> tuple[Recipe, float, tuple[Choice, ...]]:
    """Give a recipe width, depth, tile, batch and precision: the largest that leave time for enough steps.

    Returns
    -------
    tuple[Recipe, float, tuple[Choice, ...]]
        The recipe, seconds that a step of it takes, and the reasons.

    """
    downscale = recipe.net.downscale
    side = min(survey.median_yx)
    deepest = 4 if side // downscale >= 96 else 3 if side // downscale >= 40 else 2
    ladder = [
        Size(width, min(depth, deepest), downscale, wish_px(survey, most * downscale))
        for width, depth, most in _LADDER
        if width <= _WIDEST[budget.device]
    ]
    if budget.steps is not None:  # the number alone decides
        ladder = ladder[-1:] if budget.steps >= _FEWEST_STEPS else ladder[:1]
    sized, seconds = fastest(_with_size(recipe, ladder[0]), budget)
    for smaller, size in itertools.pairwise(ladder):
        if size == smaller:
            continue
        candidate, seconds_of_it = fastest(_with_size(recipe, size), budget)
        if budget.affordable_steps(seconds_of_it) < _FEWEST_STEPS:
            break
        sized, seconds = candidate, seconds_of_it
    steps = budget.affordable_steps(seconds)
    net, tile = sized.net, sized.tile_output_px
    largest = survey.objects.diameter_px[2]
    tempo = f"{steps} steps of {seconds:.2g} s, a wider net wants {_FEWEST_STEPS} or more"
    if net.base_width == _WIDEST[budget.device]:
        tempo = f"{steps} steps of {seconds:.2g} s, {_FEWEST_STEPS} are enough for it"
    choices = (
        Choice(f"base_width {net.base_width}, depth {net.depth}", f"{tempo}; images are {side} px high or wide"),
        Choice(
            f"tile_output_px {tile}",
            f"images are {survey.median_yx[0]} x {survey.median_yx[1]} px (median), the largest objects "
            f"{largest:.0f} px; {sized.tile_input_px} px are read",
        ),
        Choice(f"batch {sized.schedule.batch}", f"{sized.schedule.batch * tile**2} px a step"),
        Choice(f"precision {sized.schedule.precision}", budget.bf16[1]),
    )
    return sized, seconds, choices


def wish_px(survey: Survey, most_px: int) -> int:
    """Output of a tile: the image, or ``most_px`` where that is larger; never less than the largest objects need.

    Pieces of several classes need none: one may fill every image.
    """
    largest = survey.objects.diameter_px[2] if len(survey.class_shares) <= 2 else 0.0
    most = max(most_px, math.ceil(largest))
    return max(1, min(*survey.median_yx, most))


def choose_schedule(
    survey: Survey, recipe: Recipe, budget: Budget, seconds: float, share_of_rate: float = 1.0
) -> tuple[Recipe, tuple[Choice, ...]]:
    """Give a recipe steps, learning rate, moving average and times of validation.

    Parameters
    ----------
    survey
        Size and number of the images.
    recipe
        With net, tile, batch, precision and split.
    budget
        Time or steps.
    seconds
        That a step takes.
    share_of_rate
        Of the learning rate of fresh weights.

    """
    expected = budget.affordable_steps(seconds)
    # by the clock: the schedule ends with the minutes, however slow or fast the steps are
    steps = expected if budget.minutes is None else 2 * expected
    every, keep, about_validation = _validations(survey, recipe, seconds, expected)
    warmup = min(200, expected // 10)
    ema = round(min(0.998, max(0.9, 1 - 20 / expected)), 4)
    rate = _RATES[max(width for width in _RATES if width <= max(8, recipe.net.base_width))]
    if recipe.net.batch_norm:
        rate = min(2e-3, 2 * rate)
    rate = float(f"{rate * share_of_rate:.2g}")
    schedule = Schedule(
        optimizer="adamw",
        learning_rate=rate,
        weight_decay=1e-4,
        warmup_steps=warmup,
        decay="cosine",
        steps=steps,
        max_minutes=budget.minutes,
        batch=recipe.schedule.batch,
        ema=ema,
        clip_norm=1.0,
        precision=recipe.schedule.precision,
        validate_every=every,
        checkpoint_every=max(1, min(500, expected // 4)),
        keep=keep,
        seed=1,
    )
    fine = f", {share_of_rate:g} of it for weights that know much" if share_of_rate < 1 else ""
    norm = " with batch normalisation" if recipe.net.batch_norm else ""
    minutes = expected * seconds / 60 / _SHARE_OF_STEPS
    length = f"a step takes {seconds:.2g} s on this {budget.device}: about {counted(minutes, 'minute', '.2g')} in all"
    if budget.minutes is not None:
        length = f"--minutes; a step takes {seconds:.2g} s on this {budget.device}: about {counted(expected, 'step')}"
    what = f"steps {steps}" if budget.minutes is None else f"max_minutes {budget.minutes:g}"
    return recipe.model_copy(update={"schedule": schedule}), (
        Choice(what, length),
        Choice(
            f"learning_rate {rate:g}",
            f"for a base width of {recipe.net.base_width}{norm}{fine}; warm-up {warmup} steps",
        ),
        Choice(f"ema {ema:g}", "a twentieth of the run is averaged"),
        about_validation,
    )


def _with_size(recipe: Recipe, size: Size) -> Recipe:
    net = recipe.net.model_copy(update={"base_width": size.base_width, "depth": size.depth})
    # small tiles are bundled, so that a step sees about as much as one tile of 132 px
    batch = max(1, min(8, round(132**2 / size.tile_output_px**2)))
    schedule = recipe.schedule.model_copy(update={"batch": batch, "optimizer": "adamw"})
    return recipe.model_copy(update={"net": net, "tile_output_px": size.tile_output_px, "schedule": schedule})


def fastest(recipe: Recipe, budget: Budget) -> tuple[Recipe, float]:
    """Choose the faster precision, and return the seconds that a step takes in it."""
    precisions: list[Literal["fp32", "bf16"]] = ["bf16", "fp32"] if budget.bf16[0] else ["fp32"]
    timed = []
    for precision in precisions:
        schedule = recipe.schedule.model_copy(update={"precision": precision})
        candidate = recipe.model_copy(update={"schedule": schedule})
        timed.append((budget.seconds_per_step(candidate), candidate))
    seconds, fastest = min(timed, key=lambda pair: pair[0])
    return fastest, seconds


def length_caution(schedule: Schedule) -> Caution | None:
    """Say where a run is too short for fresh weights to learn much; None where it is not.

    Parameters
    ----------
    schedule
        As :func:`choose_schedule` gives it.

    """
    if schedule.max_minutes is None:
        expected, remedy = schedule.steps, f"--steps {_FEWEST_STEPS}"
    else:
        expected = schedule.steps // 2
        remedy = f"--minutes {math.ceil(schedule.max_minutes * _FEWEST_STEPS / max(1, expected))}"
    if expected >= _TOO_FEW_STEPS:
        return None
    return Caution(
        f"About {counted(expected, 'step')}",
        f"A fresh net learns little in fewer than {_TOO_FEW_STEPS}. Give {remedy} or more, or begin with a package "
        "that knows such images (--from).",
    )


def _validations(
    survey: Survey, recipe: Recipe, seconds: float, steps: int
) -> tuple[int, Literal["best", "last"], Choice]:
    """Steps between validations, and whether they choose the net."""
    count = len(validation_stems(list(survey.shows), recipe.data) - survey.training_only)
    if not count:
        return steps, "last", Choice("keep last", "no image validates")
    # forward alone, a third of a step a pixel
    pixels = survey.median_yx[0] * survey.median_yx[1] * count
    validation = seconds / 3 * pixels / (recipe.schedule.batch * recipe.tile_output_px**2)
    times = max(1, min(10, int(_SHARE_OF_VALIDATION * steps * seconds / validation)))
    keep: Literal["best", "last"] = "best" if count >= _FEW_VALIDATION_IMAGES else "last"
    enough = "enough" if keep == "best" else "too few"
    every = max(1, steps // times)
    return (
        every,
        keep,
        Choice(f"validate_every {every}, keep {keep}", f"validated on {count}: {enough} to choose the net by"),
    )


def _two_digits(number: int) -> int:
    """Round down to two digits."""
    scale = 10 ** max(0, len(str(number)) - 2)
    return int(number // scale * scale)
