"""What is wrong with parameters, in words."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from service.request_errors import InvalidParameter

_MOST_DESCRIBED = 5
_ALL_BUT_A_LETTER = 0.9
_ELSEWHERE = {"stitch_threshold": "link", "min_size": "min_area"}
"""Parameters of Cellpose whose names are nearer to others of ours than to those that mean the same."""


def refuse_repeated(given: Iterable[tuple[str, str]]) -> None:
    """Refuse parameters that are given more than once, of which one would win in silence.

    Raises
    ------
    InvalidParameter
        Where there is one.

    """
    repeated = [(name[:40], times) for name, times in Counter(name for name, _ in given).items() if times > 1]
    if repeated:
        found = _listed([partial("{} is given {} times".format, name, times) for name, times in repeated])
        raise InvalidParameter(f"{found}, the limit is once; keep the value that is meant")


def describe_invalid(errors: Iterable[Mapping[str, Any]], known: Sequence[str]) -> str:
    """Say what is wrong with each parameter, given pydantic's list, without pydantic's words for its own parts.

    Parameters
    ----------
    errors
        As pydantic lists them.
    known
        Parameters that there are.

    """
    return _listed([partial(_describe, item, known) for item in errors]) or "a parameter is not valid"


def _listed(descriptions: Sequence[Callable[[], str]]) -> str:
    """The first few, and how many there are beside: thousands would keep the event loop, and the answer long."""
    more = len(descriptions) - _MOST_DESCRIBED
    shown = [describe() for describe in descriptions[:_MOST_DESCRIBED]]
    return "; ".join([*shown, f"and {more} more of the kind"] if more > 0 else shown)


def _describe(item: Mapping[str, Any], known: Sequence[str]) -> str:
    place = [str(part) for part in item["loc"] if part not in ("query", "path", "body")]
    name = place[0] if place else "the request"
    if item["type"] == "extra_forbidden":
        meant = _meant(name, known)
        hint = f"there are {', '.join(known)}" if meant is None else f"did you mean {meant!r}?"
        return f"parameter {name[:40]!r} does not exist; {hint}"
    if item["type"] == "missing":
        return f"parameter {name!r} is missing; give it"
    if item["type"] == "bool_parsing":
        return f"{name} is {str(item['input'])[:40]!r}, it should be true or false"
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    return f"{name} is {str(item['input'])[:40]!r}, it {message}"


def _meant(name: str, known: Sequence[str]) -> str | None:
    """The parameter that another program calls so, else the one of the nearest name; None where none is near."""
    elsewhere = {theirs: ours for theirs, ours in _ELSEWHERE.items() if ours in known}
    if theirs := difflib.get_close_matches(name, elsewhere, n=1, cutoff=_ALL_BUT_A_LETTER):
        return elsewhere[theirs[0]]
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)
