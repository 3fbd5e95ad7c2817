"""Where nets lie that commands are given."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from model.locks import NO_LOCKS
from model.package import ZOO, read_package
from training.cli import main
from training.errors import CheckpointError
from training.runs import run_folder
from training.runs.run_folder import RunFiles, net_path


def test_a_package_that_ships_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_package(net_path("nuclei")).spec.name == "nuclei"
    (tmp_path / "nuclei").mkdir()
    assert net_path("nuclei") == Path("nuclei"), "what lies here is meant first"


def test_a_folder_that_another_process_trains_into_is_not_called_one_to_resume(tmp_path: Path) -> None:
    files = RunFiles(tmp_path / "run")
    files.require(resume=False)
    with files.taken():
        files.last.touch()
        with pytest.raises(CheckpointError, match=r"another process trains into .*run; let it end"):
            files.require(resume=False)
        with pytest.raises(CheckpointError, match=r"last.pt is there already; resume it"):
            files.require(resume=False, held=True)
    with pytest.raises(CheckpointError, match=r"last.pt is there already; resume it"):
        files.require(resume=False)


@pytest.mark.parametrize("number", sorted(NO_LOCKS))
def test_where_there_are_no_locks_nobody_is_said_to_be_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with RunFiles(tmp_path).taken():
        assert not RunFiles(tmp_path).in_work()


@pytest.mark.parametrize("number", sorted(NO_LOCKS))
def test_a_folder_is_taken_without_a_lock_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with RunFiles(tmp_path / "run").taken(), RunFiles(tmp_path / "run").taken():
        assert (tmp_path / "run").is_dir()


def test_a_lock_that_somebody_else_has_made_is_taken_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "_PATIENCE_S", 0)
    open_file = os.open

    def readable(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_file(path, flags, mode)

    (tmp_path / ".lock").touch(0o444)
    monkeypatch.setattr("training.runs.run_folder.os.open", readable)
    files = RunFiles(tmp_path)
    with files.taken(), pytest.raises(CheckpointError, match="another process"), files.taken():
        pytest.fail("taken twice")


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
