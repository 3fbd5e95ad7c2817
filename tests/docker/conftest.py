"""The engine, the image under test and a package for it, each made once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.docker.containers import docker
from tests.packages import write_tiny_package


@pytest.fixture(scope="session")
def engine() -> None:
    """Skip where no engine answers."""
    answer = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.skip(f"no Docker engine answers: {answer.stderr.strip()[-200:]}")


@pytest.fixture(scope="session")
def image(engine: None) -> str:
    """Tag of the image for CPUs, built from this tree."""
    tag = "unet-service:test"
    arguments = ("--build-arg=VERSION=1.2.3", "--build-arg=REVISION=abc", f"--tag={tag}")
    docker("build", "--file=docker/service.Dockerfile", *arguments, ".")
    return tag


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Options of ``docker run`` that serve one tiny package."""
    folder: Path = tmp_path_factory.mktemp("packages")
    folder.chmod(0o755)  # pytest's folders are for their owner alone, the container's user is another
    write_tiny_package(folder)
    return f"--volume={folder}:/packages:ro"
