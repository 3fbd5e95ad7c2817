"""One running service for the tests that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import LiveServer, live_server
from tests.packages import write_tiny_package


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with package ``tiny``."""
    folder = tmp_path_factory.mktemp("packages")
    write_tiny_package(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> Iterator[LiveServer]:
    """A service of default settings."""
    with live_server(tmp_path_factory.mktemp("server"), packages) as running:
        yield running
