"""What ImageJ says of a TIFF, in lines of ``key=value`` in the description of its first page (``ij.io.FileInfo``)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from model.images.tiff_ome import UNITS_UM


def imagej_fields(description: str) -> dict[str, str]:
    """Values by their keys."""
    pairs = (line.partition("=") for line in description.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs if key.strip()}


def imagej_axes(fields: Mapping[str, str]) -> tuple[str, tuple[int, ...]] | None:
    """Axes and lengths of a hyperstack: channels run fastest, then slices, then frames."""
    try:
        images = int(fields.get("images", 1))
        shape = tuple(int(fields.get(key, 1)) for key in ("frames", "slices", "channels"))
    except ValueError:
        return None
    if images < 1 or min(shape) < 1:
        return None
    return ("TZC", shape) if math.prod(shape) == images else ("I", (images,))


def imagej_um(fields: Mapping[str, str], resolution_xy: tuple[float, float]) -> tuple[float, float] | None:
    """Height and width of a pixel: there are so many per ``unit`` (``yunit`` where the axes differ), as tags say."""
    x_unit = UNITS_UM.get(fields.get("unit", "").lower())
    y_unit = UNITS_UM.get(fields.get("yunit", fields.get("unit", "")).lower())
    x, y = resolution_xy
    if x_unit is None or y_unit is None or not (x > 0 and y > 0):
        return None
    return y_unit / y, x_unit / x


def imagej_spacing(fields: Mapping[str, str]) -> float | None:
    """Distance of slices in micrometres, given in ``zunit`` where that is not the unit of the pixels."""
    unit = UNITS_UM.get(fields.get("zunit", fields.get("unit", "")).lower())
    spacing = positive(fields.get("spacing", ""))
    return None if unit is None or spacing is None else unit * spacing


def imagej_interval(fields: Mapping[str, str]) -> float | None:
    """Seconds between frames."""
    return positive(fields.get("finterval", "")) if fields.get("tunit", "s") in ("s", "sec", "seconds") else None


def positive(text: str) -> float | None:
    """A finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None
