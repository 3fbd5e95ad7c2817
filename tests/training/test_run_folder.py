"""Where nets lie that commands are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.package import ZOO, read_package
from training.cli import main
from training.run_folder import net_path


def test_a_package_that_ships_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_package(net_path("nuclei")).spec.name == "nuclei"
    (tmp_path / "nuclei").mkdir()
    assert net_path("nuclei") == Path("nuclei"), "what lies here is meant first"


@pytest.mark.parametrize("named", ["nowhere", "runs/nuclei", f"{ZOO}/nothing"])
@pytest.mark.parametrize(
    "command", [["evaluate"], ["report", "--out", "report.html"], ["fit", "--out", "run", "--from"]]
)
def test_what_is_not_there_is_said_with_what_would_be(
    command: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, named, "--data", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"there is no {named!r}; name the folder of a run, a .pt file, a package" in said
    assert "or one that ships: nuclei, phase-t98g" in said
