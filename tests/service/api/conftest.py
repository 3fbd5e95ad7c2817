"""One application for all tests of the HTTP face that do not need settings of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import Settings, load_settings
from tests.app_client import AppClient, ready_app
from tests.packages import write_tiny_package


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with package ``tiny`` (grey, two versions), ``colour`` (three channels) and one that is damaged."""
    folder = tmp_path_factory.mktemp("packages")
    write_tiny_package(folder / "1", version="1.0.0")
    write_tiny_package(folder / "2", version="1.10.0")
    write_tiny_package(folder, name="colour", channels=("red", "green", "blue"))
    for number in ("1", "2"):
        (folder / number / "tiny").rename(folder / f"tiny-{number}")
        (folder / number).rmdir()
    damaged = write_tiny_package(folder, name="damaged").path
    (damaged / "weights.onnx").write_bytes(b"not what the hash says")
    return folder


@pytest.fixture(scope="session")
def settings(packages: Path) -> Settings:
    """Settings of the shared application: small limits, so that tests can exceed them."""
    return load_settings(
        {
            "models_dir": packages,
            "default_model": "tiny",
            "backend": "cpu",
            "threads": 1,
            "max_body_mb": 2,
            "max_pixels": 4_000_000,
            "spool_mb": 0,
            "deadline_s": 60,
        }
    )


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[AppClient]:
    """The shared application, ready."""
    with ready_app(settings) as running:
        yield running
