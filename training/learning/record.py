"""What a run leaves in its folder, and when: the best net, the newest state, the log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.data.datasets import AnnotatedImage
from training.evaluation.evaluate import Evaluation, score
from training.evaluation.prediction import net_predictor
from training.learning.progress import Progress
from training.recipe import Recipe
from training.report.cases import show_case, worst_rows
from training.report.pictures import Picture
from training.runs.checkpoint import Provenance
from training.runs.run_folder import Journal, RunFiles
from training.runs.state import TrainingState

_LOG_EVERY = 100  # steps


@dataclass(frozen=True, slots=True)
class Record:
    """What the first process of a run writes to its folder."""

    recipe: Recipe
    provenance: Provenance
    validation: list[AnnotatedImage]
    files: RunFiles
    journal: Journal
    progress: Progress

    def save(self, state: TrainingState, path: Path) -> None:
        """Write a checkpoint; what nobody will resume from has no optimiser."""
        state.checkpoint(self.recipe, self.provenance, resumable=path == self.files.last).save(path)

    def step(self, state: TrainingState, rate: float, *, done: bool) -> None:
        """Now and then: whole images as served; the best net, the log and, last of all, the state to resume from."""
        schedule = self.recipe.schedule
        validated = bool(self.validation) and (done or state.step % schedule.validate_every == 0)
        if validated:
            improved, evaluation = validate(state, self.validation, self.recipe)
            self.progress.validated(state.step, state.figures)
            if self.journal.shows_pictures:
                self.journal.show(state.step, self._worst(state, evaluation))
            if improved and schedule.keep == "best":
                self.save(state, self.files.best)
        if validated or done or state.step % _LOG_EVERY == 0:
            self.journal.write(state, rate, validated=validated)
        if done or state.step % schedule.checkpoint_every == 0:
            self.save(state, self.files.last)

    def _worst(self, state: TrainingState, evaluation: Evaluation) -> Picture:
        (row,) = worst_rows(evaluation, 1)
        image = next(image for image in self.validation if image.stem == row.stem)
        predictor = net_predictor(state.scored_net, self.recipe)
        return show_case(image, row, predictor, instances=self.recipe.data.kind == "instances").overlay

    def close(self, state: TrainingState) -> None:
        """Keep the last net as the best one where no validation image shall choose or can."""
        if not self.validation or self.recipe.schedule.keep == "last":
            self.save(state, self.files.best)
        self.journal.close()
        self.progress.close()


def validate(state: TrainingState, images: list[AnnotatedImage], recipe: Recipe) -> tuple[bool, Evaluation]:
    """Score the net on whole images as served; returns whether it is the best so far, and the figures of each image."""
    evaluation = score(net_predictor(state.scored_net, recipe), recipe, images)
    state.figures = evaluation.means()
    improved = evaluation.score() > state.best_score
    state.best_score = max(state.best_score, evaluation.score())
    return improved, evaluation
