"""From what the images are to a recipe, every choice with its reason: what ``unet-train fit`` does without a recipe.

The rules are those that the shipped recipes follow, read off their data: a boundary class where objects have numbers,
the paper's weight map where masks are two-valued, blocks of pixels where objects are large. How wide the net is and how
long it learns follows from the time that a step takes here (:mod:`training.choosing.choose_size`).
"""

from __future__ import annotations

import math
import re

from model.normalization import ScaleRange
from model.wording import counted
from training.choosing.choose_size import Budget, Size, choose_schedule, choose_size
from training.choosing.choose_targets import choose_labels, choose_targets, fresh_rule
from training.choosing.choose_validation import choose_validation
from training.choosing.plan import Choice, Plan, percent
from training.data.survey import Survey
from training.data.survey_images import HIGH_PERCENTILES, LOW_PERCENTILE
from training.options import Augmentation, Card, Data, Net, Weights
from training.recipe import Recipe

_FEW_TILES = 0.25


def choose_recipe(survey: Survey, data: Data, budget: Budget, name: str) -> Plan:
    """Compose a recipe.

    Parameters
    ----------
    survey, data
        What :func:`training.data.survey.survey_folder` returns.
    budget
        Time, device, and how long a step takes.
    name
        Of the data; becomes the recipe's name.

    """
    targets, about_targets = choose_targets(survey)
    data, about_validation = choose_validation(survey, data)
    downscale, about_downscale = choose_downscale(survey)
    weights, about_weights = choose_weights(survey)
    normalization, about_normalization = _normalization(survey)
    labels, about_labels = choose_labels(survey, fresh_rule(survey, targets))
    recipe = Recipe(
        name=recipe_name(name),
        data=data,
        net=Net(in_channels=survey.channels, base_width=8, depth=1, dropout=0.2, downscale=downscale, batch_norm=True),
        targets=targets,
        weights=weights,
        tile_output_px=Size(8, 1, downscale, 1).tile_output_px,
        normalization=(normalization,),
        labels=labels,
        card=describe(survey, name),
    )
    recipe, seconds, about_size = choose_size(survey, recipe, budget)
    augmentation, about_augmentation = _augmentation(survey, recipe)
    recipe = recipe.model_copy(update={"augmentation": augmentation})
    recipe, about_schedule = choose_schedule(survey, recipe, budget, seconds)
    choices = [about_targets, about_validation, about_downscale, *about_size, *about_weights, about_normalization]
    choices += [*about_augmentation, about_labels, *about_schedule]
    return Plan(describe_survey(survey), Recipe.model_validate(recipe.model_dump()), tuple(choices))


def describe_survey(survey: Survey) -> tuple[str, ...]:
    """What the images are, in lines of text."""
    grey, objects = survey.grey, survey.objects
    sizes = _size(survey.median_yx)
    if survey.smallest_yx != survey.largest_yx:
        sizes = f"{_size(survey.smallest_yx)} to {_size(survey.largest_yx)}, {sizes} (median)"
    low, middle, high = objects.diameter_px
    lines = [
        f"{counted(survey.images, 'image')}, {sizes}, {counted(survey.channels, 'channel')}, "
        f"{grey.dtype}, grey values {grey.lowest:g} to {grey.highest:g}",
        f"masks: {survey.guess.kind} ({survey.guess.reason}); {survey.foreground:.1%} foreground",
        f"{counted(objects.count, 'object')} in {counted(objects.images, 'image')}: {low:.0f}, {middle:.0f} and "
        f"{high:.0f} px across (5th, 50th and 95th percentile); {objects.touching:.0%} touch another",
    ]
    if survey.annotated < 1:
        lines.append(f"{1 - survey.annotated:.1%} of the pixels are not annotated and left out")
    if survey.empty:
        lines.append(f"{counted(survey.empty, 'image')} without any object")
    return tuple(lines)


def choose_downscale(survey: Survey) -> tuple[int, Choice]:
    """Choose the side of the blocks of pixels that the net works on."""
    objects = survey.objects
    low, middle, _ = objects.diameter_px
    thinnest = objects.width_px
    if survey.guess.kind == "semantic":
        thinnest = min(thinnest, objects.background_width_px)
    sizes = f"objects are {middle:.0f} px across (median), the smallest 5 % {low:.0f} px"
    if len(survey.class_shares) > 2:
        return 1, Choice("downscale 1", "with several classes the fine parts of each are kept")
    for downscale, least_middle, least_low, least_width in ((4, 120, 40, 22), (2, 40, 16, 8)):
        if middle >= least_middle and low >= least_low and thinnest >= least_width:
            return downscale, Choice(f"downscale {downscale}", sizes)
    return 1, Choice("downscale 1", f"{sizes}, the thinnest parts {thinnest:.0f} px")


def recipe_name(name: str) -> str:
    """Name of a recipe for data called ``name``: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "images"


def describe(survey: Survey, name: str) -> Card:
    """Card of a recipe that nobody wrote."""
    return Card(
        description=f"Trained on {counted(survey.images, 'annotated image')} ({name}) by a recipe composed from their "
        "survey.",
        data=f"{counted(survey.images, 'image')}, {_size(survey.median_yx)} (median), "
        f"{counted(survey.objects.count, 'object')} measured.",
        limits="For images like those that it was trained on; judge it on images held back from training.",
    )


def choose_weights(survey: Survey) -> tuple[Weights, tuple[Choice, ...]]:
    """Choose the weight map, and how much rarer classes count."""
    rarest = min(share for share in survey.class_shares if share)  # one that no pixel has gains nothing
    balance = 0.5 if rarest < 0.05 else 0.0
    kept = "probabilities stay calibrated" if not balance else "the rarer class counts for more"
    about_balance = Choice(
        f"class_balance {balance:g}", f"the rarest class has {percent(rarest)} of the pixels: {kept}"
    )
    middle = survey.objects.diameter_px[1]
    if survey.guess.kind == "instances":
        sigma = round(min(5.0, max(3.0, middle / 12)), 1)
        reason = f"objects are {middle:.0f} px across; a class of its own parts them as well"
        return Weights(w0=5.0, sigma_px=sigma, class_balance=balance), (
            Choice(f"weight map w0 5, sigma {sigma:g} px", reason),
            about_balance,
        )
    if len(survey.class_shares) > 2:
        return Weights(w0=0.0, class_balance=balance), (Choice("weight map none", "several classes"), about_balance)
    gap = survey.objects.background_width_px
    return Weights(class_balance=balance), (
        Choice("weight map w0 10, sigma 5 px", f"as in the paper; the background between is {gap:.0f} px wide"),
        about_balance,
    )


def _normalization(survey: Survey) -> tuple[ScaleRange, Choice]:
    grey = survey.grey
    saturated, usual, sparse, _ = HIGH_PERCENTILES
    high, reason = usual, f"the brightest pixel lies {grey.hot:.1f} times as high (median)"
    if survey.foreground < 0.01:
        high, reason = sparse, f"only {survey.foreground:.2%} of the pixels are foreground"
    elif grey.at_highest > 0.002:
        high, reason = saturated, f"{grey.at_highest:.1%} of the pixels are saturated: they have the highest value"
    blank = grey.flat[-1]  # of one value: no percentile helps them
    ranges = zip(HIGH_PERCENTILES, grey.flat, strict=True)
    chosen = next(percentile for percentile, flat in ranges if percentile >= high and flat <= blank)
    if chosen > high:
        flat = grey.flat[HIGH_PERCENTILES.index(high)] - blank
        reason = f"{flat} of {survey.images} images hold a single value up to percentile {high:g}"
    colour = survey.channels == 3
    if colour:
        reason += "; one scale for three channels keeps the colours"
    step = ScaleRange(per_channel=not colour, min_percentile=LOW_PERCENTILE, max_percentile=chosen)
    return step, Choice(f"normalization percentiles {LOW_PERCENTILE:g} to {chosen:g}", reason)


def _augmentation(survey: Survey, recipe: Recipe) -> tuple[Augmentation, tuple[Choice, ...]]:
    low, middle, high = survey.objects.diameter_px
    spread = high / low if low else 1.0
    # pieces of a class differ in size under any magnification; objects seldom
    least, most = (0.8, 1.25) if survey.guess.kind == "semantic" else (0.6, 1.7) if spread >= 4 else (0.7, 1.4)
    if low:
        least = round(max(least, min(1.0, 5 / low)), 2)  # the smallest stay 5 px wide
    # vectors stand half a tile apart: beyond 3.6 % of that distance tissue does not bend
    elastic = round(min(10.0, max(1.0, 0.018 * recipe.tile_input_px), max(1.0, middle / 2)), 1)
    blur = round(min(1.5, max(0.5, low / 8)), 1)
    augmentation = Augmentation(
        probability=0.8,
        elastic_px=elastic,
        scale=(least, most),
        gamma=(0.7, 1.4),
        contrast=(0.7, 1.4),
        brightness=0.1,
        noise=0.05,
        blur_px=blur,
        shift_px=most_shift_px(survey),
    )
    share, about_share = choose_foreground_share(survey, recipe.tile_output_px)
    augmentation = augmentation.model_copy(update={"foreground_share": share})
    return augmentation, (
        *about_share,
        Choice(f"scale {least:g} to {most:g}", f"the largest objects are {spread:.1f} times as wide as the smallest"),
        Choice(f"elastic_px {elastic:g}", f"objects are {middle:.0f} px across, tiles {recipe.tile_input_px} px"),
    )


def choose_foreground_share(survey: Survey, tile_output_px: int) -> tuple[float, tuple[Choice, ...]]:
    """Choose how many tiles are drawn around objects: half, where few would show one, were objects strewn evenly."""
    objects, area = survey.objects, survey.median_yx[0] * survey.median_yx[1]
    reach_px = tile_output_px + objects.diameter_px[1]
    expected = objects.count / max(1, objects.images) * min(1.0, reach_px**2 / area)
    share = 1 - math.exp(-expected)
    if share >= _FEW_TILES or not objects.count:
        return 0.0, ()
    reason = f"{share:.0%} of the tiles would show an object, were they to lie anywhere"
    return 0.5, (Choice("foreground_share 0.5", reason),)


def most_shift_px(survey: Survey) -> float:
    """Largest shift of a tile that leaves most of it on the smallest image."""
    return float(min(16, max(1, min(survey.smallest_yx) // 8)))


def _size(size_yx: tuple[int, int]) -> str:
    return f"{size_yx[0]} x {size_yx[1]} px"
