"""TensorBoard's event files: TensorBoard itself reads them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.learning.trainer import train
from training.recipe import Recipe
from training.runs.run_folder import RunFiles

# libraries that TensorBoard brings, not ours
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


def test_tensorboard_reads_the_log_and_sees_the_worst_validation_image(
    tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny_recipe, nuclei_folder, tmp_path, workers=0, tensorboard=True)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    entries = [json.loads(line) for line in RunFiles(tmp_path).log.read_text().splitlines()]
    for name in ("loss", "lr"):
        logged = {event.step: event.value for event in events.Scalars(name)}
        assert logged == pytest.approx({entry["step"]: entry[name] for entry in entries}, rel=1e-6)
    ious = {event.step: event.value for event in events.Scalars("validation/iou")}
    assert ious == pytest.approx({entry["step"]: entry["validation"]["iou"] for entry in entries}, rel=1e-6)
    pictures = events.Images("validation/worst image")
    assert [picture.step for picture in pictures] == [3, 6]
    with Image.open(io.BytesIO(pictures[0].encoded_image_string)) as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert (colours.min(axis=1) < colours.max(axis=1)).any()  # outlines on a grey image


def test_without_tensorboard_no_event_file_is_written(tiny_recipe: Recipe, nuclei_folder: Path, tmp_path: Path) -> None:
    train(tiny_recipe, nuclei_folder, tmp_path, workers=0)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "last.pt", "best.pt", "log.jsonl"}
