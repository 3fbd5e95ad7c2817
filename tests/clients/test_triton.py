"""The example for Triton's clients of ``docs/clients.md``, in tritonclient itself, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import Cells, Program
from tests.clients.test_document import example
from tests.live import LiveServer

pytestmark = pytest.mark.program


def run(folder: Path, server: LiveServer, image: Path, *changes: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the example on an image in a folder, changed as a user would change it."""
    pytest.importorskip("tritonclient")
    shutil.copy(image, folder / "cells.tif")
    code = example("tritonclient")
    for old, new in (("127.0.0.1:8000", server.url.removeprefix("http://")), ('"nuclei"', '"tiny"'), *changes):
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    return Program((sys.executable, "-c"), folder).run(code)


def test_objects_are_those_of_the_file(server: LiveServer, cells: Cells, tmp_path: Path) -> None:
    found = run(tmp_path, server, cells.path, ("30", "3"))
    assert (found.stdout, found.stderr, found.returncode) == ("24 objects\n", "", 0)


def test_a_refusal_has_its_words(server: LiveServer, cells: Cells, tmp_path: Path) -> None:
    refused = run(tmp_path, server, cells.path, ("30", "-30"))
    assert refused.returncode == 1
    assert "InferenceServerException: [422] min_area is '-30'" in refused.stderr
