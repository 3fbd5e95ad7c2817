"""What a report says of runs: scored, compared, and put into tables, curves and cases."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from model.wording import counted
from training.data.origin import Origin, copies_told
from training.data.splits import asks_for_validation
from training.evaluation.evaluate import Evaluation, format_figure, row_as_json
from training.evaluation.folds import CrossValidation, Fold
from training.recipe import Recipe
from training.report.cases import Case
from training.report.charts import histogram, line_chart, number
from training.report.facts import Caution
from training.report.page import Table, flatten, table_of, title_of
from training.report.run_log import RunLog, best_point
from training.runs.checkpoint import Checkpoint
from training.runs.command_line import command_line


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """A run or a package with its figures.

    Parameters
    ----------
    name
        To tell it from the others.
    target
        What was scored: the run's folder, a checkpoint or a package.
    recipe
        How the data was read.
    checkpoint
        None for packages.
    log
        Empty for packages.
    evaluation, cases
        Rows of all images, and the worst of them as pictures.
    origin
        What the run began with; of a package what is known of itself.
    pixels
        Digest of the pixels of each scored image by its stem.
    strange
        What of the labels looks misread.

    """

    name: str
    target: Path
    recipe: Recipe
    checkpoint: Checkpoint | None
    log: RunLog
    evaluation: Evaluation
    cases: tuple[Case, ...]
    origin: Origin | None
    pixels: Mapping[str, str]
    strange: tuple[Caution, ...]

    @property
    def trained_by(self) -> Recipe:
        """Recipe of the run itself; of a package the one that reads the data."""
        return self.recipe if self.checkpoint is None else self.checkpoint.read_recipe()

    @property
    def trained_on(self) -> list[str]:
        """Images among the scored ones that the run was trained on."""
        return [] if self.checkpoint is None else self.checkpoint.among_side("training", self.pixels)

    @property
    def learnt_before(self) -> list[str]:
        """Images among the scored ones that ``origin`` was trained on."""
        return [] if self.origin is None else self.origin.seen_among(self.pixels)

    @property
    def chosen_by(self) -> list[str]:
        """Images among the scored ones that chose the state of the run's net."""
        if self.checkpoint is None or self.trained_by.schedule.keep == "last":
            return []
        return self.checkpoint.among_side("validation", self.pixels)


def report_values(runs: Sequence[ScoredRun], data: Path, split: str) -> dict[str, Any]:
    """Return what the template ``report.html`` takes, but for the command."""
    rows = [flatten(row_as_json(row)) for run in runs for row in run.evaluation.rows]
    names = [run.name for run in runs]
    owners = [run.name for run in runs for _ in run.evaluation.rows]
    titled = [{"image": row["stem"]} | {k: v for k, v in row.items() if k != "stem"} for row in rows]
    if len(runs) > 1:
        titled = [{"image": row["image"], "run": owner} | row for row, owner in zip(titled, owners, strict=True)]
    figures = _shares(rows)
    pooled = _pooled(runs)
    return {
        "names": names,
        "data": data,
        "split": {"all": "images"}.get(split, f"{split} images"),
        "scored": len({row["stem"] for row in rows}),
        "numbers": _headline(runs, pooled),
        "cautions": _cautions(runs),
        "run_table": table_of([_facts(run) for run in runs], "Runs", sortable=False, bars=False),
        "commands": [command_line(run.checkpoint, run.target, data) for run in runs if run.checkpoint is not None],
        "figure_table": table_of(
            [{"run": run.name, "images": len(run.evaluation.rows)} | run.evaluation.means() for run in runs],
            "Figures of all images of a run",
            sortable=len(runs) > 1,
        ),
        "spread_table": None if pooled is None else _spread_table(pooled),
        "curves": _curves(runs),
        "worst": max(len(run.cases) for run in runs),
        "worst_cases": [(run.name, run.cases) for run in runs],
        "instances": any(run.recipe.data.kind == "instances" for run in runs),
        "summary_table": _summary_table(rows, figures),
        "histograms": [
            (title_of(name), _histogram([row[name] for row in rows if row.get(name) is not None], title_of(name)))
            for name in figures
        ],
        "image_table": table_of(titled, f"Figures of {counted(len(rows), 'image')}"),
        "recipes": [(run.name, json.dumps(run.trained_by.model_dump(mode="json"), indent=2)) for run in runs],
    }


def _pooled(runs: Sequence[ScoredRun]) -> CrossValidation | None:
    """Return the runs as folds, where they are: alike in measures and classes, no image scored twice, none learnt."""
    stems = Counter(row.stem for run in runs for row in run.evaluation.rows)
    alike = all(run.evaluation.scoring == runs[0].evaluation.scoring for run in runs)
    alike = alike and len({tuple(row.overlaps) for run in runs for row in run.evaluation.rows}) < 2
    if (
        len(runs) < 2
        or not alike
        or max(stems.values()) > 1
        or any(run.trained_on or run.learnt_before for run in runs)
    ):
        return None
    return CrossValidation(tuple(Fold(run.name, run.evaluation) for run in runs), len(stems))


def _headline(runs: Sequence[ScoredRun], pooled: CrossValidation | None) -> list[tuple[str, str, str]]:
    """What stands in large figures on top: those of the one run, of all folds together, or of the first run."""
    evaluation = runs[0].evaluation if pooled is None else pooled.pooled
    whose = "" if len(runs) == 1 else (runs[0].name if pooled is None else "pooled")
    means = {name: value for name, value in evaluation.means().items() if not _is_minor(name)}
    return [(title_of(name), format_figure(name, value), whose) for name, value in means.items()]


def _is_minor(figure: str) -> bool:
    """Whether a figure is one of a family that another one stands for."""
    return figure == "dice" or (figure.startswith("ap@") and figure not in {"ap@0.5", "ap@0.8"})


def _facts(run: ScoredRun) -> dict[str, Any]:
    facts: dict[str, Any] = {"run": run.name, "path": str(run.target), "recipe": run.trained_by.name}
    checkpoint = run.checkpoint
    if checkpoint is None:
        return facts
    data, schedule = run.trained_by.data, run.trained_by.schedule
    part = f"fold {data.fold[0]}/{data.fold[1]}" if data.fold else f"{data.validation_fraction:.0%}"
    split = f"{part} by {data.split}" if asks_for_validation(data) else "none"
    if data.parts is not None:
        split = f"{data.parts[0]}/ and {data.parts[1]}/"
    began = {} if checkpoint.origin is None else {"began with": checkpoint.origin.name}
    return facts | {
        "trained on": len(checkpoint.split["training"]),
        "validated on": len(checkpoint.split["validation"]),
        "split": split,
        "seed": schedule.seed,
        "steps": checkpoint.step,
        "minutes": round(checkpoint.elapsed_s / 60, 1),
        "net kept": "best in validation" if schedule.keep == "best" else "last",
        "precision": schedule.precision,
        **began,
    }


def _cautions(runs: Sequence[ScoredRun]) -> list[tuple[str, str]]:
    """What flatters the figures, or makes them mean nothing."""
    found = []
    for run in runs:
        found += [(f"{run.name}: {each.title} ({each.named})", each.advice) for each in run.strange]
        seen, scored = len(run.trained_on), len(run.evaluation.rows)
        if seen:
            found.append(
                (
                    f"{run.name} was trained on {seen} of the {counted(scored, 'image')} that it is scored on",
                    "Their figures say how well it remembers, not how well it does on new images.",
                )
            )
        origin = run.origin
        if origin is not None and run.learnt_before:
            began = "" if run.checkpoint is None else f", which {run.name} began with,"
            found.append(
                (
                    f"{origin.name}{began} or a net before it was trained on {len(run.learnt_before)} of the {scored} "
                    f"images that {run.name} is scored on",
                    "Their figures flatter: judge it by images that none of these nets has learnt.",
                )
            )
        if origin is not None and origin.unknown:
            found.append(
                (
                    f"What {' and '.join(origin.unknown)} was trained on is not known here",
                    f"Images that {run.name} is scored on may be among it; then their figures flatter.",
                )
            )
        copies = "" if run.checkpoint is None else copies_told(run.checkpoint.split, run.checkpoint.pixels)
        if copies:
            found.append((f"{run.name}: {copies}", "Keep each picture once in the folder, and train again."))
        if run.chosen_by:
            found.append(
                (
                    f"{len(run.chosen_by)} of the {counted(scored, 'image')} that {run.name} is scored on chose its "
                    "state",
                    'Its figures flatter a little; schedule.keep = "last" lets no image choose.',
                )
            )
    return found


def _curves(runs: Sequence[ScoredRun]) -> list[tuple[str, str, Markup]]:
    """Charts over steps: title, best value, drawing."""
    figures = list(dict.fromkeys(name for run in runs for name in run.log.figures()))
    charts = []
    for figure in ("loss", "lr", *figures):
        lines = [run.log.series(run.name, figure) for run in runs]
        best = best_point(lines, figure)
        if best is None:
            continue
        title = {"loss": "Loss (running mean)", "lr": "Learning rate"}.get(figure, f"Validation: {title_of(figure)}")
        kind = "lowest" if figure == "loss" else "best"
        note = "" if figure == "lr" else f"{kind} {number(best[1])} at step {best[0]:.0f}"
        drawing = line_chart(lines, title=title, x_label="step", logarithmic=figure == "loss")
        charts.append((title, note, drawing))
    return charts


def _histogram(values: Sequence[float], title: str) -> Markup:
    return histogram(values, title=f"{title} of the images", x_label="number of images by value")


def _shares(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the figures that are no counts."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if any(isinstance(row.get(name), float) for row in rows)]


def _summary_table(rows: Sequence[dict[str, Any]], figures: Sequence[str]) -> Table:
    lines = []
    for name in figures:
        values = np.array([row[name] for row in rows if row.get(name) is not None], dtype=np.float64)
        low, quarter, middle, three, high = np.percentile(values, (0, 25, 50, 75, 100)).tolist()
        lines.append(
            {
                "figure": title_of(name),
                "images": int(values.size),
                "mean": float(values.mean()),
                "lowest": low,
                "25 %": quarter,
                "median": middle,
                "75 %": three,
                "highest": high,
            }
        )
    return table_of(lines, "Figures over images", sortable=False)


def _spread_table(pooled: CrossValidation) -> Table:
    spreads = pooled.figures().items()
    rows = [
        {"figure": title_of(name), "mean": s.mean, "standard deviation": s.std, "pooled": s.pooled}
        for name, s in spreads
    ]
    return table_of(rows, "Figures over runs", sortable=False)
