"""Pictures of simulated fleets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.fleet_model import Outcome, Sample

mpl.use("agg")


def plot_day(outcome: Outcome, path: Path) -> None:
    """Load, replicas, backlog and refusals over time, one above the other."""
    samples = outcome.samples
    hours = np.array([sample.t_s for sample in samples]) / 3600
    figure = Figure(figsize=(9, 8), layout="constrained")
    rows = figure.subplots(4, sharex=True)
    step_s = samples[1].t_s - samples[0].t_s
    load = np.diff([sample.offered_mpx for sample in samples]) / step_s
    refused = np.diff([sample.refused for sample in samples]) / step_s * 60
    for axes, values, label in (
        (rows[0], load, "load, Mpx/s"),
        (rows[1], [sample.replicas for sample in samples], "ready replicas"),
        (rows[2], [sample.backlog_s for sample in samples], "backlog, s a replica"),
        (rows[3], refused, "refused a minute"),
    ):
        axes.plot(hours[: len(values)], values, linewidth=0.8)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    rows[3].set_xlabel("hour")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def plot_trace(seen: Sequence[Sample], simulated: Sequence[Sample], path: Path) -> None:
    """Replicas and backlog of a real run and of its simulation."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    rows = figure.subplots(2, sharex=True)
    for axes, name, label in (
        (rows[0], "replicas", "ready replicas"),
        (rows[1], "backlog_s", "backlog, s a replica"),
    ):
        for samples, who in ((seen, "cluster"), (simulated, "simulation")):
            axes.plot([s.t_s for s in samples], [getattr(s, name) for s in samples], label=who)
        axes.set_ylabel(label)
        axes.legend()
    rows[1].set_xlabel("s")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
