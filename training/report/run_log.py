"""The log of a run as curves."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.measures.isbi import ISBI_ERRORS
from training.report.charts import Series


@dataclass(frozen=True, slots=True)
class RunLog:
    """Lines of ``log.jsonl``, one a step, ascending."""

    entries: tuple[dict[str, Any], ...] = ()

    def series(self, name: str, figure: str) -> Series:
        """Return one figure over steps, ``loss``, ``lr`` or one of :meth:`figures`; steps without it are left out."""
        points = [(entry["step"], _value(entry, figure)) for entry in self.entries]
        known = [(float(step), value) for step, value in points if value is not None]
        return Series(name, [step for step, _ in known], [value for _, value in known])

    def figures(self) -> list[str]:
        """Names of the validation's figures, in the order of the log."""
        return list(dict.fromkeys(name for entry in self.entries for name in entry.get("validation") or {}))


def read_log(file: Path) -> RunLog:
    """Read a log; one that is missing is empty, and lines that a kill has cut in two are left out.

    Where a step was logged twice, by a run that was killed and went on, the later line counts.
    """
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return RunLog()
    entries: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            entries[int(entry["step"])] = entry
        except (ValueError, TypeError, KeyError):
            continue
    return RunLog(tuple(entries[step] for step in sorted(entries)))


def lower_is_better(figure: str) -> bool:
    """Whether a figure is an error."""
    return figure in ISBI_ERRORS or figure == "loss"


def best_point(series: Sequence[Series], figure: str) -> tuple[float, float] | None:
    """Step and value of the best point of all lines; None without any."""
    points = [point for line in series for point in zip(line.x, line.y, strict=True) if math.isfinite(point[1])]
    if not points:
        return None
    return (min if lower_is_better(figure) else max)(points, key=lambda point: point[1])


def _value(entry: dict[str, Any], figure: str) -> float | None:
    value = entry.get(figure) if figure in {"loss", "lr"} else (entry.get("validation") or {}).get(figure)
    return float(value) if isinstance(value, int | float) else None
