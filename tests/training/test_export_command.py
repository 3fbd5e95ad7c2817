"""unet-train export refuses what cannot become a package before the net is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.exporting import LIBRARY_WARNINGS
from training.cli import main
from training.recipe import Recipe
from training.runs.checkpoint import Checkpoint, build_net

pytestmark = [pytest.mark.slow, LIBRARY_WARNINGS]


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of fresh weights, of which nothing may be computed."""
    for step in ("score", "golden_image", "export_package"):
        monkeypatch.setattr(f"training.commands.export.{step}", lambda *_, **__: pytest.fail("work was done"))
    recipe, split = tiny_recipe.model_dump(mode="json"), {"training": ["a"], "validation": ["b"]}
    Checkpoint(recipe, 1, 1.0, build_net(tiny_recipe).state_dict(), None, None, split).save(tmp_path / "run/best.pt")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("more", "newer", "reason"),
    [
        (["--channels", "red", "green"], "", "2 different names of channels (red, green), but the net takes 1"),
        (["--version", "a b"], "", "a package cannot hold version 'a b'"),
        ([], f'name = "{"n" * 101}"', "a package cannot hold name 'nnn"),
        ([], 'name = "mine"\ncard = { license = "mine" }', "'mine' is no SPDX identifier of a licence"),
        (
            ["--data", "/nowhere"],
            """
name = "boundary"
targets = { scheme = "boundary", classes = ["background", "interior", "boundary"] }
labels = { foreground = [1, 2] }
""",
            "newer.toml for the net of {run}: recipe: Value error, labels names channel 2, the net has 2: 0 to 1",
        ),
        (["--out", "{run}"], "", "{run} is the folder of something else: it has no rdf.yaml, but 1 other entries"),
    ],
    ids=["channels", "version", "name", "license", "labels", "out"],
)
def test_what_cannot_be_exported_is_said_in_one_line_before_any_work(
    run: Path, capsys: pytest.CaptureFixture[str], more: list[str], newer: str, reason: str
) -> None:
    arguments = ["export", str(run), "--out", str(run.parent / "package"), *(part.format(run=run) for part in more)]
    if newer:
        (run.parent / "newer.toml").write_text(newer)
        arguments += ["--recipe", str(run.parent / "newer.toml")]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert reason.format(run=run) in message
    assert message.count("\n") == 1
    assert not (run.parent / "package").exists()
    assert [entry.name for entry in run.iterdir()] == ["best.pt"]
