"""The client's folder, copied beside a script of somebody who has installed nothing of this project."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import service.client
from tests.images import disc, npy
from tests.live import live_server
from tests.packages import write_tiny_package

FOLDER = Path(service.client.__file__).parent
FILES = sorted(FOLDER.glob("*.py"))

SCRIPT = """
import sys

class Nothing:
    def find_spec(self, name, *_):
        if name.split(".")[0] in {"service", "model", "training"}:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Nothing())
sys.path.insert(0, sys.argv[1])

import numpy as np
from unet_client import Client

with Client(sys.argv[2]) as client:
    (labels,) = client.map([sys.argv[3]], output="labels")
print(int(labels.max()), "object")
"""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_it_imports_its_own_files_httpx_numpy_and_what_comes_with_python(file: Path) -> None:
    # 3.9's grammar; what its library lacks is found by running it
    tree = ast.parse(file.read_text(), feature_version=(3, 9))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "httpx", "numpy"}
    assert all(node.level < 2 for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))


def test_the_copied_folder_works_where_this_project_cannot_be_imported(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "beside" / "unet_client")
    (tmp_path / "a.npy").write_bytes(npy(disc()))
    write_tiny_package(tmp_path / "packages")
    with live_server(tmp_path, tmp_path / "packages") as server:
        command = [sys.executable, "-I", "-c", SCRIPT, str(tmp_path / "beside"), server.url, str(tmp_path / "a.npy")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("1 object\n", "")
