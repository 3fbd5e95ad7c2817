"""The tutorial does what it says: its own commands, from eight images of a new kind to a served package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.live import live_server
from training.measures.objects import match_objects

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
STEPS = 200


def commands() -> list[str]:
    """Every command line of the tutorial, in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def run(command: str, folder: Path) -> str:
    """Run a command of the tutorial in ``folder`` and return what it prints."""
    installed = command.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    done = subprocess.run(
        ["bash", "-c", installed],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        # nets as small as this one are slower with more threads
        env={**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def turn_dark(folder: Path) -> None:
    """Make dark objects on a bright ground of what was rendered: a kind that no package of ours knows."""
    for path in [*(folder / "cells" / "images").glob("*.tif"), folder / "new.tif"]:
        image = tifffile.imread(path)
        tifffile.imwrite(path, np.iinfo(image.dtype).max - image)


@pytest.fixture
def lines() -> Iterator[str]:
    return iter(commands())


def test_the_commands_are_those_that_are_run_below() -> None:
    names = [re.findall(r"^(?:\.venv/bin/)?([\w-]+)(?: (-m [\w.]+|[a-z]+))?", command)[0] for command in commands()]
    assert names == [
        ("python", "-m training.synthetic"),
        ("python", "-m training.synthetic"),
        ("unet-train", "fit"),
        ("unet-train", "evaluate"),
        ("unet-train", "export"),
        ("unet-service", "check"),
        ("unet-service", "serve"),
        ("curl", ""),
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_eight_images_become_a_served_package(tmp_path: Path, lines: Iterator[str]) -> None:
    run(next(lines), tmp_path)
    run(next(lines), tmp_path)
    turn_dark(tmp_path)

    printed = run(f"{next(lines)} --steps {STEPS} --workers 0", tmp_path)
    assert "8 images, 160 x 160 px, 1 channel, uint16" in printed
    assert "scheme boundary, 1 px wide: 29% of the objects touch another" in printed
    assert f"{STEPS} steps in" in printed
    assert "mean over 1 image: " in run(next(lines), tmp_path)
    run(next(lines), tmp_path)
    card = (tmp_path / "packages" / "cells" / "README.md").read_text()
    assert "unet-train fit --data DIR --out runs/cells" in card
    run(next(lines), tmp_path)

    serve, folder = next(lines).rsplit(" ", 1)
    assert serve == ".venv/bin/unet-service serve --models-dir"
    with live_server(tmp_path, tmp_path / folder) as server:
        run(next(lines).replace("http://127.0.0.1:8000", server.url), tmp_path)
    found, drawn = (tifffile.imread(tmp_path / name) for name in ("labels.tif", "new-labels.tif"))
    (matches,) = match_objects(found, drawn, [0.5])
    assert matches.ap > 0.5
