"""One application for all tests of the HTTP face that do not need settings of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.engine.stages.encoding import write_body
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


@pytest.fixture(scope="module")
def keyed(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    """A service with the users alice and bob."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("alice:alice-key-0123456789\nbob:bob-key-0123456789\n")
    with ready_app(settings.model_copy(update={"api_keys_file": keys})) as client:
        yield client


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What a job waits for before it writes its result."""
    opened = threading.Event()

    def held(*arguments: Any) -> Any:
        opened.wait(30)
        return write_body(*arguments)

    monkeypatch.setattr("service.engine.stages.encoding.write_body", held)
    yield opened
    opened.set()
