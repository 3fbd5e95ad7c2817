"""In which values two recipes differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from training.recipe import Recipe

_SHOWN = 3


def differences(before: Recipe, now: Recipe, but_for: set[str]) -> str:
    """Name the values that differ between two recipes, the first three of them, but for some parts; empty for none."""
    old, new = (dict(_values(each.model_dump(mode="json", exclude=but_for))) for each in (before, now))
    differing = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    told = [f"{key} was {old.get(key)} and is {new.get(key)}" for key in differing[:_SHOWN]]
    return ", ".join(told) + (f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else "")


def _values(part: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a recipe by their keys, ``schedule.steps``."""
    for key, value in part.items():
        if isinstance(value, Mapping):
            yield from _values(value, f"{place}{key}.")
        else:
            yield place + key, value
