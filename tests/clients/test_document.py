"""Every example of ``docs/clients.md``, run as it stands there; only the service's address is another."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.clients.conftest import (
    CLIENTS,
    IMAGE,
    REFUSALS_TO_THE_END,
    Cells,
    Program,
    installed,
    losing_proxy,
    refusal,
)
from tests.live import LiveServer

DOCUMENT = CLIENTS.parent / "docs" / "clients.md"
EXAMPLES = re.findall(r"^```(sh|python|matlab|java|csharp)\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
# theirs are run where the program's tests are: it is not to be had everywhere
PROGRAMS = ("cellprofiler", "tritonclient")
RUN = [(language, code) for language, code in EXAMPLES if not any(program in code for program in PROGRAMS)]
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
        installed("mcs", "mono")
        return ("bash", "-ec", COMPILED)
    program = code.split(maxsplit=1)[0]
    if program in {"imagej", "groovy"}:
        installed(program, "imagej", "xvfb-run", "curl")
        return ("xvfb-run", "-a", "bash", "-ec")
    installed("curl")
    return ("bash", "-ec")


def example(word: str) -> str:
    """The example in whose code a word stands."""
    (code,) = [code for _, code in EXAMPLES if word in code]
    return str(code)


def through_a_folder(folder: Path, url: str, images: dict[str, Path]) -> subprocess.CompletedProcess[str]:
    """Run the loop through a folder of images, which have names."""
    installed("curl")
    (folder / "images").mkdir()
    for name, image in images.items():
        shutil.copy(image, folder / "images" / f"{name}.tif")
    return Program(("bash", "-ec"), folder).run(example("for image in").replace("http://127.0.0.1:8000", url))


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


@pytest.mark.parametrize("losses", [[refusal(503, "0"), refusal(504, "1")], ["half", "nothing"]], ids=["busy", "lost"])
def test_the_loop_through_a_folder_asks_again(
    losses: list[str | httpx.Response], server: LiveServer, cells: Cells, tmp_path: Path
) -> None:
    with losing_proxy(server, losses) as proxy:
        done = through_a_folder(tmp_path, proxy.url, {"day 1": cells.path})
    assert done.returncode == 0, done.stdout + done.stderr
    mask = np.asarray(Image.open(tmp_path / "images" / "day 1-mask.png"))
    np.testing.assert_array_equal(mask > 0, cells.labels > 0)
    assert len(proxy.asked) == 3


@pytest.mark.parametrize("losses", REFUSALS_TO_THE_END)
def test_the_loop_through_a_folder_shows_what_is_refused_and_goes_on(
    losses: list[httpx.Response], server: LiveServer, cells: Cells, tmp_path: Path
) -> None:
    with losing_proxy(server, losses) as proxy:
        done = through_a_folder(tmp_path, proxy.url, {"day 1": cells.path, "day 2": cells.path})
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("day 1.*it is refused", done.stdout)
    assert [path.name for path in (tmp_path / "images").glob("*.png")] == ["day 2-mask.png"]
    assert len(proxy.asked) == len(losses) + 1


def test_the_loop_through_a_folder_says_why_a_stack_has_no_mask(server: LiveServer, tmp_path: Path) -> None:
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, np.stack([IMAGE, IMAGE]), imagej=True, metadata={"axes": "ZYX"})
    done = through_a_folder(tmp_path, server.url, {"day 1": stack})
    assert "day 1.tif" in done.stdout
    assert "PNG holds one plane, the result is a stack" in done.stdout


@pytest.mark.parametrize(
    ("losses", "code"),
    [
        (["none", "early", "none"], "200"),
        (["nothing"], "unsent"),
        ([refusal(503)], "unsent"),
        (["none", "half"], "lost"),
    ],
    ids=["early", "no answer", "refused", "lost"],
)
def test_the_loop_for_a_job_ends(
    losses: list[str | httpx.Response], code: str, server: LiveServer, cells: Cells, tmp_path: Path
) -> None:
    installed("curl")
    shutil.copy(cells.path, tmp_path / "cells.tif")
    script = example("respond-async") + 'echo "the code is $code"\n'
    with losing_proxy(server, losses) as proxy:
        done = Program(("bash", "-ec"), tmp_path).run(script.replace("http://127.0.0.1:8000", proxy.url))
    assert done.stdout.endswith(f"the code is {code}\n"), done.stdout + done.stderr
    assert len(proxy.asked) == len(losses)


def test_the_document_has_an_example_for_each_program() -> None:
    shown = " ".join(code for _, code in EXAMPLES)
    assert {language for language, _ in EXAMPLES} == {"sh", "python", "matlab", "java", "csharp"}
    assert all(word in shown for word in ("curl", "httpx", "urllib", "Client", "imagej", "groovy", "segment_unet("))
