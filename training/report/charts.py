"""Charts as inline SVG: they take the page's fonts and colours, light or dark, and need nothing but the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

SERIES_COLOURS = 8
"""Colours that the page's style defines for lines, ``--series-0`` to ``--series-7``."""

_WIDTH, _HEIGHT = 460, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 40
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name, and points of which those that are no finite number are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]

    def points(self) -> list[tuple[float, float]]:
        """Finite points by x; long series are thinned, the last point kept."""
        finite = [(x, y) for x, y in zip(self.x, self.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
        step = max(1, math.ceil(len(finite) / _MOST_POINTS))
        return finite[::-step][::-1]


@dataclass(frozen=True, slots=True)
class _Axis:
    """Numbers to places along a stretch of the drawing."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        low, high, value = (math.log10(part) if self.logarithmic else part for part in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.stop - self.start)


def line_chart(series: Sequence[Series], *, title: str, x_label: str, logarithmic: bool = False) -> Markup:
    """Draw lines over a common axis, each in a colour and a dash of its own.

    Parameters
    ----------
    series
        The lines; those without a point are left out.
    title
        Read by screen readers, with the last value of each line.
    x_label
        Under the horizontal axis.
    logarithmic
        Of the vertical axis; points that are not above 0 are left out.

    """
    lines = [(index, one.name, _drawable(one.points(), logarithmic)) for index, one in enumerate(series)]
    lines = [line for line in lines if line[2]]
    if not lines:
        return Markup('<p class="none">nothing to draw</p>')
    xs = [x for _, _, points in lines for x, _ in points]
    ys = [y for _, _, points in lines for _, y in points]
    x_axis = _axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    y_axis = _axis(min(ys), max(ys), _HEIGHT - _BOTTOM, _TOP, logarithmic=logarithmic)
    parts = [*_horizontal(y_axis), *_vertical(x_axis, x_label)]
    for index, name, points in lines:
        path = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in points)
        style = f'class="line series-{index % SERIES_COLOURS}"'
        dash = _DASHES[index // SERIES_COLOURS % len(_DASHES)]
        last_x, last_y = points[-1]
        hint = f"<title>{escape(name)}: {number(last_y)} at {number(last_x)}</title>"
        parts.append(f'<g {style}><polyline points="{path}" stroke-dasharray="{dash}"/>')
        parts.append(f'<circle cx="{x_axis.at(last_x):.1f}" cy="{y_axis.at(last_y):.1f}" r="3.5"/>{hint}</g>')
    spoken = "; ".join(f"{name}: {number(points[0][1])} to {number(points[-1][1])}" for _, name, points in lines)
    return _svg(parts, f"{title}. {spoken}")


def histogram(values: Sequence[float], *, title: str, x_label: str) -> Markup:
    """Draw how many values lie where, with a line at the median."""
    finite = np.array([value for value in values if math.isfinite(value)], dtype=np.float64)
    if not finite.size:
        return Markup('<p class="none">nothing to draw</p>')
    low, high = float(finite.min()), float(finite.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    bins = int(np.clip(math.sqrt(finite.size) * 1.5, 5, 24))
    counts, edges = np.histogram(finite, bins=bins, range=(low, high))
    x_axis = _Axis(low, high, _LEFT, _WIDTH - _RIGHT)
    y_axis = _axis(0, float(counts.max()), _HEIGHT - _BOTTOM, _TOP, whole=True)
    parts = [*_horizontal(y_axis, whole=True), *_vertical(x_axis, x_label)]
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        x, top = x_axis.at(left), y_axis.at(count)
        shape = f'x="{x + 0.5:.1f}" y="{top:.1f}" width="{max(0.5, x_axis.at(right) - x - 1):.1f}"'
        hint = f"<title>{number(left)} to {number(right)}: {count}</title>"
        parts.append(f'<rect class="bar" {shape} height="{_HEIGHT - _BOTTOM - top:.1f}">{hint}</rect>')
    median = float(np.median(finite))
    x = x_axis.at(median)
    parts.append(f'<line class="median" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
    anchor, shift = ("end", -5) if x > _WIDTH / 2 else ("start", 5)
    parts.append(f'<text x="{x + shift:.1f}" y="{_TOP + 10}" text-anchor="{anchor}">median {number(median)}</text>')
    spread = f"{number(float(finite.min()))} to {number(float(finite.max()))}"
    return _svg(parts, f"{title}: {finite.size} values, {spread}, median {number(median)}")


def number(value: float) -> str:
    """Write a number for people: whole ones whole, others with as many digits as tell something."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    if value == round(value) and size < 1e7:
        return f"{value:.0f}"
    if size >= 1e5 or size < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.0f}" if size >= 1000 else f"{value:.4g}"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``most`` of them: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _drawable(points: list[tuple[float, float]], logarithmic: bool) -> list[tuple[float, float]]:
    return [point for point in points if not logarithmic or point[1] > 0]


def _axis(
    low: float, high: float, start: float, stop: float, *, logarithmic: bool = False, whole: bool = False
) -> _Axis:
    """Axis that holds all values, with room where there is but one."""
    if logarithmic:
        return _Axis(low / 1.1, high * 1.1, start, stop, logarithmic=True)
    if high <= low:
        low, high = (low, low + 1) if whole or low == 0 else (low - 0.5 * abs(low), high + 0.5 * abs(high))
    room = 0 if whole or start < stop else (high - low) * 0.05
    return _Axis(low - room, high * 1.2 if whole else high + room, start, stop)


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 times them where there would be too few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7)):
        found = [round(factor * 10.0**power, 12) for power in powers for factor in factors]
        found = [tick for tick in found if low <= tick <= high]
        if len(found) >= 3:
            return found
    return found


def _horizontal(axis: _Axis, *, whole: bool = False) -> list[str]:
    """Grid lines and numbers of the vertical axis."""
    places = _log_ticks(axis.low, axis.high) if axis.logarithmic else ticks(axis.low, axis.high, 5)
    parts = []
    for tick in places:
        if whole and tick != round(tick):
            continue
        y = axis.at(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    return parts


def _vertical(axis: _Axis, label: str) -> list[str]:
    """Ticks, numbers and name of the horizontal axis."""
    floor = _HEIGHT - _BOTTOM
    parts = [f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>']
    for tick in ticks(axis.low, axis.high, 6):
        x = axis.at(tick)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{floor + 17}" text-anchor="middle">{number(tick)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="label" x="{middle:.0f}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(label)}</text>')
    return parts


def _svg(parts: Sequence[str], description: str) -> Markup:
    opening = f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(description)}">'
    return Markup(opening + "".join(parts) + "</svg>")  # noqa: S704 - texts of others are escaped above
