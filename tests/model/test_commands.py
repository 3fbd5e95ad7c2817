"""Programs of several commands."""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

import pytest

from model.commands import add_commands

ADDS = """
import gc
found = gc.isenabled()
def declare(parser):
    parser.set_defaults(collected=(found, gc.isenabled()))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a package with the commands ``add`` and ``fail``."""
    folder = tmp_path / f"commands_{tmp_path.name}"
    folder.mkdir()
    (folder / "add.py").write_text(ADDS)
    (folder / "fail.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def parsed(package: str, name: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_commands(parser, package, {"add": "", "fail": ""}, [name])
    return parser.parse_args([name])


def test_the_garbage_collector_rests_while_a_command_is_imported(package: str) -> None:
    assert parsed(package, "add").collected == (False, True)


def test_it_runs_again_after_an_interrupt(package: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        parsed(package, "fail")
    assert gc.isenabled()


@pytest.mark.usefixtures("no_collector")
def test_where_it_is_switched_off_it_stays_so(package: str) -> None:
    assert parsed(package, "add").collected == (False, False)
