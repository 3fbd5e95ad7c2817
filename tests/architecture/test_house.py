"""What holds for the house as a whole: who imports what at run time, and what documents promise exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
MARKDOWN = sorted(
    path
    for place in ("", "docs/**/", "docker/**/", "clients/**/", "model/zoo/*/")
    for path in PROJECT.glob(f"{place}*.md")
)


def modules_loaded_by(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PROJECT)
    return set(done.stdout.split())


COMMANDS = "from service.commands import bench, check, models, plan, segment, serve"


@pytest.mark.parametrize("statement", [COMMANDS, "import service.app", "import training.synthetic"])
def test_the_service_and_the_demo_load_no_training_library(statement: str) -> None:
    assert not modules_loaded_by(statement) & {"torch", "onnx", "onnxscript", "bioimageio", "tensorboard"}


@pytest.mark.parametrize("program", ["service", "training"])
def test_help_comes_before_what_takes_seconds_to_load(program: str) -> None:
    said = f"import contextlib, sys; sys.argv = ['x', '--help']; from {program}.__main__ import main"
    loaded = modules_loaded_by(f"{said}\nwith contextlib.suppress(SystemExit): main()\npass")
    assert not loaded & {"numpy", "torch", "fastapi", "pydantic", "httpx"}


def test_the_settings_are_not_read_at_import() -> None:
    program = "import os; os.environ['UNET_PORT'] = 'nonsense'; import service.app; " + COMMANDS
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=PROJECT).returncode == 0


@pytest.mark.parametrize("document", MARKDOWN, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_inside_the_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", document.read_text())
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing


def anchors(document: Path) -> set[str]:
    """Of the headings, as GitHub makes them, and those that the document names itself."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line) for line in re.findall(r"^#+ (.*)", text, re.MULTILINE)]
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)"', text))


@pytest.mark.parametrize("document", MARKDOWN, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_to_a_part_of_a_document_find_it(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)#([^)\s]+)\)", document.read_text())
    targets = [(document.parent / file if file else document, part) for file, part in links]
    missing = [part for target, part in targets if target.suffix == ".md" and part not in anchors(target)]
    assert not missing


@pytest.mark.parametrize("document", MARKDOWN, ids=lambda path: str(path.relative_to(PROJECT)))
def test_make_targets_named_in_documents_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", document.read_text(), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("package", ["model", "service", "training"])
def test_no_file_is_longer_than_one_sitting(package: str) -> None:
    long = {
        str(path.relative_to(PROJECT)): lines
        for path in (PROJECT / package).rglob("*.py")
        if (lines := path.read_text().count("\n")) > 300
    }
    assert not long


def test_no_committed_weights_are_larger_than_a_package_may_be() -> None:
    weights = list((PROJECT / "model" / "zoo").rglob("*.onnx"))
    assert all(path.stat().st_size <= 32 << 20 for path in weights)
