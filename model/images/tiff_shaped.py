"""What tifffile says of a TIFF that it has written: ``{"shape": [...], "axes": "..."}``, of the array that it got."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_AXES = 64
"""Of an array, as of numpy's."""
_UNNAMED = "IJKLMNOPQRUVWAB"  # 15: so many pages as are read are no more axes longer than 1


def shaped_array(description: str, page_shape: tuple[int, ...]) -> tuple[tuple[int, ...], str | None] | None:
    """Shape and axes, or no axes where they have no names; None where the last ones are no page of this shape."""
    try:
        fields: Any = json.loads(description)
        shape = tuple(int(length) for length in fields["shape"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if shape[-len(page_shape) :] != page_shape or len(shape) > MAX_AXES or min(shape) < 1:
        return None
    axes = fields.get("axes")
    named = isinstance(axes, str) and len(axes) == len(shape) and len(set(axes)) == len(axes) and axes.isalpha()
    return shape, axes.upper() if named else None


def shaped_axes(description: str, page_shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]] | None:
    """Axes in front of those of a page, and their lengths; without names they are I, J, K, ..., as of an array."""
    found = shaped_array(description, page_shape)
    if found is None or not (lead := found[0][: -len(page_shape)]):
        return None
    if found[1] is not None:
        return found[1][: len(lead)], lead
    long = tuple(length for length in lead if length > 1)
    return (_UNNAMED[: len(long)], long) if len(long) <= len(_UNNAMED) else ("I", (math.prod(long),))
