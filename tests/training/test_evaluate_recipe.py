"""A named recipe says how a folder is read and what is measured; the net is run as it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.random_package import passing_net
from model.normalization import ScaleRange
from tests.packages import write_tiny_package
from training.cli import main
from training.evaluation.targets import open_predictor
from training.recipe import recipe_from
from training.report.content import ScoredRun
from training.report.run_log import RunLog
from training.runs.checkpoint import Checkpoint

OWN: dict[str, Any] = {"name": "own", "tile_output_px": 60, "net": {"base_width": 8, "depth": 2}}
OTHER = """
name = "other"
data = { validation_fraction = 0.5 }
net = { base_width = 4, depth = 3, downscale = 2 }
tile_output_px = 120
targets = { scheme = "boundary", classes = ["background", "interior", "boundary"] }
normalization = [{ id = "scale_linear", gain = [-0.001], offset = [0.0] }]
labels = { method = "watershed", foreground = [1, 2], threshold = 0.9, min_area_px = 500 }
schedule = { precision = "bf16" }
scoring = { measures = ["foreground"] }
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose net takes for foreground what is bright."""
    folder = tmp_path / "own"
    state = passing_net(8, 2, 30.0).state_dict()
    recipe = recipe_from(OWN, "own").model_dump(mode="json")
    Checkpoint(recipe, 1, 1.0, state, None, None, {"training": [], "validation": []}).save(folder / "best.pt")
    return folder


def named(tmp_path: Path, text: str) -> str:
    path = tmp_path / "other.toml"
    path.write_text(text)
    return str(path)


def rows(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["rows"]
    return found


def test_a_run_is_scored_by_its_own_normalisation_rule_and_geometry(
    run: Path, nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["evaluate", str(run), "--data", str(nuclei_folder), "--split"]
    own = rows([*call, "all"], capsys)
    other = rows([*call, "all", "--recipe", named(tmp_path, OTHER)], capsys)
    assert max(row["iou"] for row in own) > 0.5, "its own normalisation serves"
    assert [(row["stem"], row["iou"]) for row in other] == [(row["stem"], row["iou"]) for row in own]
    assert {row["ap"] for row in other} == {None}, "measured as the named recipe says"
    held_out = [len(rows([*call, "validation", *more], capsys)) for more in ([], ["--recipe", named(tmp_path, OTHER)])]
    assert held_out[0] < held_out[1], "and split as it says"


def test_the_predictor_keeps_what_the_run_was_trained_by(run: Path, tmp_path: Path) -> None:
    own, other = (open_predictor(run, name, "cpu") for name in (None, named(tmp_path, OTHER)))
    assert (other[0].label_rule, other[0].geometry) == (own[0].label_rule, own[0].geometry)
    assert other[0].normalization == (ScaleRange(min_percentile=1.0, max_percentile=99.8),)
    assert (own[1].name, other[1].name) == ("own", "other")


def test_a_report_scores_as_evaluate_does(
    run: Path,
    nuclei_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown: list[ScoredRun] = []

    def keep(runs: list[ScoredRun], *_: object) -> dict[str, Any]:
        shown.extend(runs)
        return {}

    monkeypatch.setattr("training.commands.report.read_log", lambda _: RunLog())
    monkeypatch.setattr("training.commands.report.report_values", keep)
    monkeypatch.setattr("training.commands.report.write_page", lambda *_, **__: None)
    arguments = [str(run), "--data", str(nuclei_folder), "--split", "all", "--recipe", named(tmp_path, OTHER)]
    assert main(["report", *arguments, "--out", str(tmp_path / "report.html")]) == 0
    scored = {row.stem: row.iou for row in shown[0].evaluation.rows}
    assert scored == {row["stem"]: row["iou"] for row in rows(["evaluate", *arguments], capsys)}
    assert max(scored.values()) > 0.5


MISFITS = {
    'name = "three"\nnet = { in_channels = 3 }\n': (
        "recipe three reads images of 3 channels (net.in_channels), the net of {} takes 1; name a recipe that reads 1"
    ),
    """
name = "four"
data = { kind = "semantic" }
targets = { scheme = "classes", classes = ["background", "a", "b", "c"] }
""": "recipe four reads masks of 4 classes (targets.classes), the net of {} tells 2 apart; name a recipe",
}


@pytest.mark.parametrize("text", list(MISFITS), ids=["channels", "classes"])
@pytest.mark.parametrize("command", ["evaluate", "report", "compare", "quantize"])
def test_a_recipe_that_does_not_fit_the_net_is_refused_before_an_image_is_read(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, text: str
) -> None:
    target = run if command in {"evaluate", "report"} else write_tiny_package(tmp_path / "package").path
    more = {"report": ["--out", str(tmp_path / "x.html")], "compare": ["--precision", "fp16"]}.get(command, [])
    arguments = [command, str(target), "--data", "/nowhere", "--recipe", named(tmp_path, text), *more]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert MISFITS[text].format(target) in message
    assert message.count("\n") == 1


def test_a_net_whose_boundary_only_parts_objects_is_scored_on_masks_of_foreground(
    tmp_path: Path, nuclei_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, masks = tmp_path / "boundary", tmp_path / "data" / "labels"
    classes = {"scheme": "boundary", "classes": ["background", "interior", "boundary"]}
    recipe = recipe_from({**OWN, "targets": classes, "labels": {"foreground": [1, 2]}}, "own")
    state = passing_net(8, 2, 30.0).state_dict()
    for name in ("head.weight", "head.bias"):  # a third class that is never likely
        third = np.full_like(state[name][:1].numpy(), 0.0 if name == "head.weight" else -100.0)
        state[name] = state[name].new_tensor(np.concatenate([state[name].numpy(), third]))
    split: dict[str, list[str]] = {"training": [], "validation": []}
    Checkpoint(recipe.model_dump(mode="json"), 1, 1.0, state, None, None, split).save(folder / "best.pt")
    masks.mkdir(parents=True)
    (masks.parent / "images").symlink_to(nuclei_folder / "images")
    for path in (nuclei_folder / "labels").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(masks / path.name)
    semantic = named(tmp_path, 'name = "semantic"\ndata = { kind = "semantic" }\n')
    call = ["evaluate", str(folder), "--data", str(masks.parent), "--split", "all", "--recipe", semantic]
    assert max(row["iou"] for row in rows(call, capsys)) > 0.5
