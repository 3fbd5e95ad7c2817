"""What a finished run says of itself: the card of the package that it becomes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from model.spec import Person
from model.wording import counted
from training.data.origin import Origin, copies_told
from training.data.splits import describe_split
from training.evaluation.evaluate import format_figure
from training.packaging.export import Card
from training.recipe import Recipe
from training.runs.checkpoint import Checkpoint
from training.runs.command_line import public_name


def run_card(
    checkpoint: Checkpoint, recipe: Recipe, *, version: str, author: str, license_text: str, command: str
) -> Card:
    """Build the card of a run: data, split, figures, time, and what the package is not for.

    Parameters
    ----------
    checkpoint
        The state to be exported.
    recipe
        Its recipe, with the card and the label rule that shall be published.
    version, author, license_text
        Of the package.
    command
        The command line that trained it.

    """
    minutes = round(checkpoint.elapsed_s / 60, 1)
    counts = {side: len(stems) for side, stems in checkpoint.split.items()}
    training = counted(counts["training"], "image")
    figures = {name: float(format_figure(name, value)) for name, value in checkpoint.figures.items()}
    readme = f"""# {recipe.name}

{recipe.card.description}

- Classes: {", ".join(recipe.targets.classes)}.
- Net: the U-Net of Ronneberger, Fischer and Brox (2015) with unpadded convolutions, depth {recipe.net.depth}, base
  width {recipe.net.base_width}{_blocks(recipe)}.

## Data

{recipe.card.data}

{training} for training, {counts["validation"]} for validation. {describe_split(recipe.data)}

## Scale

{recipe.card.scale or "Pixels of the size that the training images have."}

## Validation

{_validation(checkpoint, recipe)}

## Training

{counted(checkpoint.step, "step")} in {minutes} minutes:

```sh
{command}
```{_beginning(checkpoint)}

## Limits

{recipe.card.limits}
"""
    facts: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json", exclude={"card"}, exclude_none=True),
        "data": recipe.card.data,
        "scale": recipe.card.scale,
        "images": counts,
        "validation": figures,
        "command": command,
        "minutes": minutes,
        "steps": checkpoint.step,
        "seen": " ".join(checkpoint.begun_with(recipe.name).origin.seen),
    }
    if checkpoint.origin is not None:
        facts["origin"] = _public(checkpoint.origin).as_facts()
    return Card(
        name=recipe.name,
        version=version,
        title=recipe.card.title or f"{recipe.name} (U-Net)",
        description=recipe.card.description or f"{recipe.name}, trained by unet-train",
        license=recipe.card.license,
        license_text=license_text,
        readme=readme,
        authors=(Person(name=author),),
        facts=facts,
        object_diameter_px=checkpoint.object_diameter_px,
    )


def _blocks(recipe: Recipe) -> str:
    scale = recipe.net.downscale
    return "" if scale == 1 else f", working on blocks of {scale} x {scale} pixels"


def _public(origin: Origin) -> Origin:
    """What a run began with, without paths of this machine."""
    return replace(origin, name=public_name(origin.name), unknown=tuple(map(public_name, origin.unknown)))


def _beginning(checkpoint: Checkpoint) -> str:
    """Sentence on the net that the run began with."""
    if checkpoint.origin is None:
        return ""
    origin = _public(checkpoint.origin)
    weights = f" (weights {origin.sha256})" if origin.sha256 else ""
    return f"\n\nThe run began with the net of {origin.name}{weights}."


def _flattery(checkpoint: Checkpoint) -> str:
    """Say which figures flatter, or may, because of what the net, or the one to begin with, was trained on."""
    told = copies_told(checkpoint.split, checkpoint.pixels)
    said = f" {told}." if told else ""
    if checkpoint.origin is None:
        return said
    origin, learnt = _public(checkpoint.origin), len(checkpoint.learnt_before())
    if learnt:
        said += (
            f" {origin.name}, with which the run began, or a net before it was trained on {learnt} of these images: "
            "the figures are too good."
        )
    if origin.unknown:
        said += f" It is not known what {' and '.join(origin.unknown)}, an earlier net of this line, was trained on."
    return said


def _validation(checkpoint: Checkpoint, recipe: Recipe) -> str:
    """Figures of the run's own validation images, and whether these have chosen anything."""
    count = len(checkpoint.split["validation"])
    if not count:
        return "Not validated: every image was trained on."
    chosen = (
        "the best state of the run, chosen by these images"
        if recipe.schedule.keep == "best"
        else "the last state of the run, so these images did not choose it"
    )
    rows = "\n".join(f"| {name} | {format_figure(name, value)} |" for name, value in checkpoint.figures.items())
    return (
        f"Means over the {count} validation images, each run whole through the tiling that the service uses. The net "
        f"is {chosen}.{_flattery(checkpoint)}\n\n| measure | value |\n| --- | --- |\n{rows}"
    )


def license_notice(identifier: str, holder: str) -> str:
    """Short licence text for a package whose author gives none: SPDX identifier, year, holder, place of the full text.

    Parameters
    ----------
    identifier
        SPDX identifier, as in the recipe's card.
    holder
        Who holds the copyright of the package.

    """
    year = datetime.now(UTC).year
    return (
        f"SPDX-FileCopyrightText: {year} {holder}\nSPDX-License-Identifier: {identifier}\n\n"
        f"The full text of the licence: https://spdx.org/licenses/{identifier}.html\n"
    )
