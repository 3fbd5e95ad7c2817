"""Which images validate where no recipe says so: enough of them, with objects, and new to the net to begin with."""

from __future__ import annotations

import math
from collections.abc import Iterable

from model.wording import counted
from training.choosing.plan import Choice
from training.data.origin import Origin
from training.data.splits import asks_for_validation, describe_split, says_validation, validation_stems
from training.data.survey import Survey
from training.options import Data

_FEWEST_FOR_HASH = 100  # with fewer images a share by hash may come out empty
_MOST_WITHOUT_VALIDATION = 2
_FEWEST_FOR_BLOCKS = 5
_ALIKE = 0.15  # by so much more do neighbours correlate where images are frames or slices
_NONE = {"fold": None, "validation_fraction": 0.0, "split": "hash"}


def choose_validation(survey: Survey, data: Data) -> tuple[Data, Choice]:
    """Choose which images validate, unless that is said: images that show objects are left to both sides.

    Parameters
    ----------
    survey, data
        What :func:`training.data.survey.survey_folder` returns.

    """
    if data.parts is not None:
        return data, Choice(f"validation {data.parts[1]}/", f"{data.parts[0]}/ is trained on")
    if says_validation(data):
        return data, Choice("validation as asked for", describe_split(data).removesuffix("."))
    chosen, choice = _by_number(survey, data)
    if not asks_for_validation(chosen) or leaves_something(survey, chosen):
        return chosen, choice
    parts = [part for part in _parts(chosen) if leaves_something(survey, part)]
    if not parts:
        return data.model_copy(update=_NONE), Choice(
            "validation none",
            "no part of the images leaves objects to both sides, and every class to training",
        )
    number, count = parts[0].fold or (1, 1)
    reason = f"{len(validation_stems(list(survey.shows), parts[0]))} of {survey.images} images"
    return parts[0], Choice(
        f"validation part {number} of {count}", f"{reason}, the first that leaves objects to both sides"
    )


def _by_number(survey: Survey, data: Data) -> tuple[Data, Choice]:
    """Choose by the number of the images, and by whether they resemble each other; some always train."""
    count = survey.images
    if count <= _MOST_WITHOUT_VALIDATION:
        chosen = data.model_copy(update=_NONE)
        return chosen, Choice("validation none", f"with {counted(count, 'image')} all are needed for training")
    alike = f"images resemble the next by name (correlation {survey.likeness:.2f}, others {survey.chance:.2f})"
    if survey.sequences or (count >= _FEWEST_FOR_BLOCKS and survey.likeness - survey.chance > _ALIKE):
        parts = min(5, count)
        chosen = data.model_copy(update=_NONE | {"split": "blocks", "fold": (parts, parts)})
        reason = "by their layout images are" if survey.sequences else f"{alike}:"
        return chosen, Choice(
            f"validation the last {'fifth' if parts == 5 else f'of {parts}'}",
            f"{reason} frames or slices, so a block of them validates",
        )
    if count >= _FEWEST_FOR_HASH:
        chosen = data.model_copy(update=_NONE | {"validation_fraction": 0.15})
        return chosen, Choice("validation 15 %", f"of {count} images, chosen by the hash of their names")
    wanted = 1 if count < 5 else max(1, round(0.15 * count))
    folds = math.ceil(count / wanted)
    chosen = data.model_copy(update=_NONE | {"fold": (1, folds)})
    return chosen, Choice(f"validation part 1 of {folds}", f"{wanted} of {count} images")


def leaves_something(survey: Survey, data: Data) -> bool:
    """Whether the images for training show all classes that there are, and those that validate any."""

    def shown(stems: Iterable[str]) -> set[int]:
        return {kind for stem in stems for kind in survey.shows[stem]}

    validating = validation_stems(list(survey.shows), data)
    every, learnt = shown(survey.shows), shown(survey.shows.keys() - validating)
    return learnt == every and (not every or bool(shown(validating - survey.training_only)))


def _parts(data: Data) -> list[Data]:
    """Parts of the size of the one that validates by ``data``."""
    count = round(1 / data.validation_fraction) if data.fold is None else data.fold[1]
    return [data.model_copy(update={"fold": (number, count)}) for number in range(1, count + 1)]


def hold_out(known: Origin, theirs: Data, survey: Survey, data: Data, about: Choice) -> tuple[Data, Choice]:
    """Let those images validate of which the net to begin with was trained on the fewest; on a tie those chosen.

    Parts of the size that was chosen are tried, and what the net's own recipe held out.
    """
    stems, seen = list(survey.pixels), set(known.seen_among(survey.pixels))
    if not seen or not asks_for_validation(data):
        return data, about
    own = {name: getattr(theirs, name) for name in ("split", "stretches", "validation_fraction", "fold")}
    best, reason, fewest = data, about.reason, len(validation_stems(stems, data) & seen)
    for candidate in (*_parts(data), data.model_copy(update=own)):
        validating = validation_stems(stems, candidate)
        sides = 0 < len(validating) < len(stems) and leaves_something(survey, candidate)
        if sides and len(validating & seen) < fewest:
            best, reason = candidate, f"{len(validating)} of {len(stems)} images"
            fewest = len(validating & seen)
    what = f"validation part {best.fold[0]} of {best.fold[1]}" if best.fold else "validation as of the net"
    learnt = f"{fewest} of them" if fewest else "none of them"
    return best, Choice(about.what if best == data else what, f"{reason}; the net to begin with has learnt {learnt}")
