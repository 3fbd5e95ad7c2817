"""Traces of real fleets: read, replayed, set beside a simulation."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.fleet_load import MOST_IMAGES
from benchmarks.fleet_model import Sample

_COLUMNS = ("t_s", "replicas", "backlog_s", "accepted", "refused", "mpx")
_COUNTS = ("replicas", "accepted", "refused")
_LONGEST_S = 7 * 24 * 3600
_MOST = 1e12


def read_trace(path: Path) -> list[Sample]:
    """Read a trace of a real run.

    Raises
    ------
    ValueError
        Where columns are missing, there are fewer than two rows, or one holds what no run can have written.

    """
    samples: list[Sample] = []
    with path.open(newline="", encoding="utf-8-sig", errors="backslashreplace") as file:
        reader = csv.DictReader(file, restval="")
        try:
            columns = reader.fieldnames or ()
            if not set(_COLUMNS) <= set(columns):
                raise ValueError(f"the columns are {','.join(columns) or 'none'}; a trace has {','.join(_COLUMNS)}")
            for row in reader:
                if None in row:
                    raise ValueError(
                        f"there are {len(columns) + len(row[None])} cells; write {len(columns)}, decimals with a point"
                    )
                samples.append(_sample(row, samples[-1] if samples else None))
        except (ValueError, csv.Error) as error:
            raise ValueError(f"line {max(1, reader.reader.line_num)}: {error}") from error
    if len(samples) < 2:
        raise ValueError(f"{len(samples)} rows, a trace has 2 or more")
    return samples


def _sample(row: Mapping[str, str], before: Sample | None) -> Sample:
    values = {}
    for name in _COLUMNS:
        try:
            values[name] = float(row[name])
        except ValueError:
            raise ValueError(f"{name} is {row[name]!r}; write a number") from None
        if not 0 <= values[name] <= _MOST:
            raise ValueError(f"{name} is {row[name]}; write a number from 0 to {_MOST:g}")
        if name in _COUNTS and values[name] % 1:
            raise ValueError(f"{name} is {row[name]}; write a whole number")
    sample = Sample(
        t_s=values["t_s"],
        replicas=int(values["replicas"]),
        backlog_s=values["backlog_s"],
        accepted=int(values["accepted"]),
        refused=int(values["refused"]),
        offered_mpx=values["mpx"],
    )
    if sample.t_s > _LONGEST_S:
        raise ValueError(f"t_s is {sample.t_s:g}, the limit is {_LONGEST_S} (a week); write seconds since the start")
    if sample.accepted > MOST_IMAGES:
        raise ValueError(f"accepted is {sample.accepted}, the limit is {MOST_IMAGES}; take a shorter part of the run")
    if before is not None:
        if sample.t_s <= before.t_s:
            raise ValueError(f"t_s is {sample.t_s:g} after {before.t_s:g}; sort the lines by time, each time once")
        for name in ("accepted", "refused", "offered_mpx"):
            now, earlier = getattr(sample, name), getattr(before, name)
            if now < earlier:
                raise ValueError(
                    f"{name.removeprefix('offered_')} falls from {earlier:g} to {now:g}; count since the start"
                )
        if sample.offered_mpx > before.offered_mpx and sample.accepted == before.accepted:
            raise ValueError(
                f"mpx rises from {before.offered_mpx:g} to {sample.offered_mpx:g}, accepted stays {before.accepted}; "
                "count an image and its size in the same line"
            )
    return sample


def replay(seen: Sequence[Sample]) -> Iterator[tuple[float, float]]:
    """Requests that a trace accepted, evenly within each of its steps and of equal size there.

    A refused one came again and is among them.
    """
    for before, after in pairwise([Sample(0.0, 0, 0.0, 0, 0, 0.0), *seen]):
        count = after.accepted - before.accepted
        for index in range(count):
            at = before.t_s + (after.t_s - before.t_s) * index / count
            yield at, (after.offered_mpx - before.offered_mpx) / count


def compare(seen: Sequence[Sample], simulated: Sequence[Sample]) -> str:
    """Say how far a simulation stands from a trace."""
    found = []
    for name in ("replicas", "backlog_s"):
        real, model = (max(getattr(sample, name) for sample in samples) for samples in (seen, simulated))
        mean = apart(seen, simulated, name)
        found.append(f"{name} at most {real:.3g} real, {model:.3g} simulated, {mean:.3g} apart on average")
    return "; ".join(found)


def apart(seen: Sequence[Sample], simulated: Sequence[Sample], name: str) -> float:
    """Mean difference of ``replicas`` or ``backlog_s`` at the times of a trace."""
    real = np.array([getattr(sample, name) for sample in seen])
    at, model = ([getattr(sample, column) for sample in simulated] for column in ("t_s", name))
    return float(np.abs(real - np.interp([sample.t_s for sample in seen], at, model)).mean())
