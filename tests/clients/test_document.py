"""Every example of ``docs/clients.md``, run as it stands there; only the service's address is another."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.clients.conftest import CLIENTS, Cells, Program, installed
from tests.live import LiveServer

DOCUMENT = CLIENTS.parent / "docs" / "clients.md"
EXAMPLES = re.findall(r"^```(sh|python|matlab|java|csharp)\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
# a compiler that few have: run where it is
RUN = [(language, code) for language, code in EXAMPLES if language != "csharp" or shutil.which("mcs")]
COMPILED = 'printf %s "$0" > Segment.cs; mcs -r:System.Net.Http.dll Segment.cs; mono Segment.exe'


def command(language: str, code: str) -> tuple[str, ...]:
    """How an example is run, or a skip where its program is missing."""
    if language == "python":
        return (sys.executable, "-c")
    if language == "matlab":
        installed("octave-cli", "curl")
        return ("octave-cli", "--norc", "--quiet", "--path", str(CLIENTS / "matlab"), "--eval")
    if language == "java":  # Groovy compiles it where there is no javac
        installed("groovy")
        return ("groovy", "-e")
    if language == "csharp":
        return ("bash", "-ec", COMPILED)
    program = code.split(maxsplit=1)[0]
    if program in {"imagej", "groovy"}:
        installed(program, "imagej", "xvfb-run", "curl")
        return ("xvfb-run", "-a", "bash", "-ec")
    installed("curl")
    return ("bash", "-ec")


@pytest.mark.parametrize(("language", "code"), RUN, ids=[f"{kind}-{code.split()[0]}" for kind, code in RUN])
def test_the_example_finds_the_objects(
    language: str, code: str, server: LiveServer, cells: Cells, tmp_path: Path
) -> None:
    shutil.copy(cells.path, tmp_path / "cells.tif")
    (tmp_path / "images").mkdir()
    shutil.copy(cells.path, tmp_path / "images" / "day 1.tif")
    (tmp_path / "clients").symlink_to(CLIENTS)
    here = code.replace("http://127.0.0.1:8000", server.url)
    assert here != code
    done = Program(command(language, code), tmp_path).run(here)
    ends_with = 1 if "imagej -b" in code else 0  # Debian's imagej ends with 1 whatever happened
    assert done.returncode == ends_with, done.stdout + done.stderr
    if (tmp_path / "labels.tif").exists():
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "labels.tif"), cells.labels)
    elif masks := list((tmp_path / "images").glob("*-mask.png")):
        np.testing.assert_array_equal(np.asarray(Image.open(masks[0])) > 0, cells.labels > 0)
    else:
        assert "24 objects" in done.stdout


def test_the_document_has_an_example_for_each_program() -> None:
    shown = " ".join(code for _, code in EXAMPLES)
    assert {language for language, _ in EXAMPLES} == {"sh", "python", "matlab", "java", "csharp"}
    assert all(word in shown for word in ("curl", "httpx", "urllib", "Client", "imagej", "groovy", "segment_unet("))
