"""What the names of a net's output channels tell, for packages that bring no label rule of their own.

Packages of other people seldom say how objects are told apart. Names such as "foreground" and "boundary" do, together
with whether the channels share one probability (softmax) or each have their own (sigmoids): where they share it, one of
them is background; where each has its own, none need be. What neither tells is refused, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.errors import InvalidPackage, UnsupportedPackage
from model.label_rule import LabelRule

Kind = Literal["background", "object", "boundary"]

_WORDS: dict[str, Kind | None] = {
    **dict.fromkeys(("boundary", "boundaries", "border", "borders", "edge", "edges"), "boundary"),
    **dict.fromkeys(("contour", "contours", "outline", "outlines", "membrane", "membranes"), "boundary"),
    **dict.fromkeys(("background", "bg"), "background"),
    **dict.fromkeys(("foreground", "fg", "object", "objects", "mask", "interior", "inside"), "object"),
    **dict.fromkeys(("cell", "cells", "nucleus", "nuclei"), "object"),
    **dict.fromkeys(("non", "not", "no", "distance", "distances", "offset", "offsets", "flow", "flows"), None),
}
_PRECEDENCE: tuple[Kind | None, ...] = (None, "boundary", "background", "object")  # "cell boundary" is a boundary
_SUM_TOLERANCE = 0.01  # shares of one probability add up to 1, in half precision too
_RANGE_TOLERANCE = 1e-3
_EXAMPLE = "config: {unet_service: {labels: {method: watershed, foreground: [0], seeds: [0], boundary: [1]}}}"


def _known_words(name: str) -> list[str]:
    parted = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [word for word in re.findall(r"[a-z]+", parted.lower()) if word in _WORDS]


def kind_of(name: str) -> Kind | None:
    """What a channel of this name holds; None where the name does not tell."""
    found = {_WORDS[word] for word in _known_words(name)}
    return next((kind for kind in _PRECEDENCE if kind in found), None)


def _is_something_else(classes: Sequence[str]) -> bool:
    """Whether the only channel says of itself that it holds no objects: a boundary, or a distance."""
    if len(classes) != 1:
        return False
    kind = kind_of(classes[0])
    return kind == "boundary" or (kind is None and bool(_known_words(classes[0])))


def rule_from_names(classes: Sequence[str], test_output: NDArray[np.float32]) -> LabelRule:
    """Return the label rule that names and test output tell.

    Parameters
    ----------
    classes
        Names of the output channels.
    test_output
        The package's, (1, c, y, x), after the activation.

    Raises
    ------
    InvalidPackage
        Where the test output has another number of channels.
    UnsupportedPackage
        Where the output is no probability, or names do not tell; the message has what to add to the package.

    """
    if test_output.ndim != 4 or test_output.shape[1] != len(classes):
        raise InvalidPackage(f"the test output has shape {test_output.shape}; (1, {len(classes)}, y, x) is declared")
    low, high = float(test_output.min(initial=0)), float(test_output.max(initial=0))
    if not (low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE):  # NaN is neither
        raise UnsupportedPackage(
            f"the test output has values from {low:.3g} to {high:.3g}, probabilities are from 0 to 1; add the "
            "post-processing that makes them so (softmax or sigmoid), or export a net that ends in one"
        )
    shared = bool((np.abs(test_output.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())
    rule = None if _is_something_else(classes) else _rule([kind_of(name) for name in classes], shared=shared)
    if rule is None:
        how = "one probability that they share" if shared else "a probability each"
        raise UnsupportedPackage(
            f"the package has no label rule, and its {len(classes)} output channels ({', '.join(classes)}; {how}) do "
            f"not tell which is background, object or boundary; add a rule to its description, such as {_EXAMPLE}"
        )
    return rule


def _rule(kinds: Sequence[Kind | None], *, shared: bool) -> LabelRule | None:
    """Return the rule for channels of these kinds; None where they do not tell."""
    unknown, boundary, background, objects = (
        tuple(index for index, found in enumerate(kinds) if found == kind) for kind in _PRECEDENCE
    )
    if len(kinds) == 1:
        return None if background else LabelRule(foreground=(0,), seeds=(0,))
    if not shared:
        if unknown or len(objects) != 1:
            return None
        method: Literal["watershed", "components"] = "watershed" if boundary else "components"
        return LabelRule(method=method, foreground=objects, seeds=objects, boundary=boundary)
    if len(kinds) == 2 and objects and unknown:
        background, unknown = unknown, ()  # what is left of 1 is what is no object
    objects = tuple(sorted(objects + unknown))
    if len(background) != 1 or not objects:
        return None
    if boundary:
        return LabelRule(method="watershed", foreground=tuple(sorted(objects + boundary)), seeds=objects)
    return LabelRule(foreground=objects, seeds=objects)


def in_words(rule: LabelRule, classes: Sequence[str]) -> str:
    """Say a rule in words, such as "objects are the connected areas where 'nucleus' is above 0.5"."""

    def summed(channels: Sequence[int]) -> str:
        return " + ".join(repr(classes[channel]) for channel in channels)

    over = f"{summed(rule.foreground)} is above {rule.threshold:g}"
    if rule.method == "components":
        text = f"objects are the connected areas where {over}"
    else:
        inside = summed(rule.seeds) + "".join(f" - {classes[channel]!r}" for channel in rule.boundary)
        sure = f"{inside} is above {rule.seed_threshold:g}"
        text = f"objects grow from the connected areas where {sure}, over all where {over}"
    limits = (
        (rule.min_seed_px > 1, f"seeds have at least {rule.min_seed_px} px"),
        (rule.min_seed_share > 0, f"seeds have at least {rule.min_seed_share:g} of the typical one beside them"),
        (rule.fill_holes, "holes are filled"),
        (rule.min_area_px > 1, f"objects have at least {rule.min_area_px} px"),
        (rule.min_score > 0, f"their mean probability is at least {rule.min_score:g}"),
    )
    return "; ".join([text, *(words for holds, words in limits if holds)])
