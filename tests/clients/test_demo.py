"""What `make demo` runs, on machines that are not as simple as ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clients.demo import client_of, running_service
from tests.packages import write_tiny_package

PROJECT = Path(__file__).resolve().parents[2]


def test_a_proxy_of_the_environment_does_not_stand_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_package(tmp_path)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with running_service(UNET_MODELS_DIR=str(tmp_path), UNET_BACKEND="cpu") as url, client_of(url) as client:
        assert client.get("/readyz").status_code == 200


def test_an_environment_that_was_broken_off_is_made_whole(tmp_path: Path) -> None:
    """As ``venv`` leaves it where it is interrupted, or where Debian's ``python3-venv`` is missing."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    given = [f"VENV={venv}", f"PYTHON={sys.executable}", "PIP=true", "COMPILE=true"]
    subprocess.run(["make", *given, str(venv / "service")], check=True, cwd=PROJECT)
    subprocess.run([venv / "bin" / "python", "-m", "pip", "--version"], check=True)
