"""docker-compose.yml: valid with every profile, and working as it is."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from tests.docker.containers import Container, docker
from tests.images import disc, png

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def project(image: str) -> Iterator[tuple[str, ...]]:
    """``docker compose up`` with nothing but a free port, until healthy; the command that speaks to it."""
    compose = ("compose", f"--project-name=unet-test-{os.getpid()}")
    try:
        docker(*compose, "up", "--build", "--wait", "--wait-timeout=120", UNET_PORT="0")
        yield compose
    finally:
        docker(*compose, "down", "--volumes", "--timeout=10")


@pytest.mark.parametrize("profile", ["", "gpu", "training"])
def test_the_file_is_valid(engine: None, profile: str) -> None:
    docker("compose", "config", "--quiet", COMPOSE_PROFILES=profile)


def test_the_service_alone_starts(project: tuple[str, ...]) -> None:
    assert docker(*project, "ps", "--services").split() == ["service"]


def test_it_is_hardened(project: tuple[str, ...]) -> None:
    host = Container(docker(*project, "ps", "--quiet", "service")).inspect()["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] == 4 << 30
    assert {binding["HostIp"] for bindings in host["PortBindings"].values() for binding in bindings} == {"127.0.0.1"}


def test_it_segments_on_the_package_that_ships(project: tuple[str, ...]) -> None:
    url = f"http://{docker(*project, 'port', 'service', '8000')}"
    answer = httpx.post(f"{url}/segment", content=png(disc(300, 200)), timeout=60)
    assert answer.status_code == 200, answer.text
    assert Image.open(io.BytesIO(answer.content)).size == (200, 300)


def test_stopping_it_ends_with_0(project: tuple[str, ...]) -> None:
    container = Container(docker(*project, "ps", "--quiet", "service"))
    docker(*project, "stop")
    assert container.inspect()["State"]["ExitCode"] == 0
