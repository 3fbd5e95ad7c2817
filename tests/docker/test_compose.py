"""docker-compose.yml: valid with every profile, and working as it is."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from tests.docker.containers import PROJECT, Container, docker
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


@pytest.mark.parametrize("profile", ["", "gpu", "monitoring", "training"])
def test_the_file_is_valid(engine: None, profile: str) -> None:
    docker("compose", "config", "--quiet", COMPOSE_PROFILES=profile)


@pytest.mark.parametrize(
    ("service", "start"), [("service", "up --detach"), ("service-gpu", "--profile gpu up --detach proxy-gpu")]
)
def test_an_update_of_nothing_says_how_to_start_it(engine: None, service: str, start: str) -> None:
    done = subprocess.run(
        [PROJECT / "docker" / "update.sh", service],
        env={**os.environ, "COMPOSE_PROJECT_NAME": f"unet-none-{os.getpid()}"},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"no replica of {service} runs; start it with: docker compose {start}\n"


def replicas(project: tuple[str, ...]) -> list[Container]:
    return [Container(name) for name in docker(*project, "ps", "--quiet", "service").split()]


def test_the_proxy_and_two_replicas_start(project: tuple[str, ...]) -> None:
    assert sorted(docker(*project, "ps", "--format={{.Service}}").split()) == ["proxy", "service", "service"]


def test_all_are_hardened_and_the_proxy_alone_is_published(project: tuple[str, ...]) -> None:
    proxy = Container(docker(*project, "ps", "--quiet", "proxy"))
    for container, memory in ((proxy, 1 << 30), *((replica, 4 << 30) for replica in replicas(project))):
        host = container.inspect()["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["Memory"] == memory
        published = {binding["HostIp"] for bindings in host["PortBindings"].values() for binding in bindings}
        assert published == ({"127.0.0.1"} if container is proxy else set())
        uid = container.run("sh", "-c", "sed -n 's/^Uid:.//p' /proc/1/status").split()
        assert uid == ["10001"] * 4


def test_replicas_reach_nobody(project: tuple[str, ...]) -> None:
    script = "import socket; socket.create_connection(('192.0.2.1', 80), 2)"
    with pytest.raises(AssertionError, match="unreachable"):
        replicas(project)[0].run("python", "-c", script)


def test_it_segments_on_the_package_that_ships(project: tuple[str, ...]) -> None:
    url = f"http://{docker(*project, 'port', 'proxy', '8000')}"
    answer = httpx.post(f"{url}/segment", content=png(disc(300, 200)), timeout=60)
    assert answer.status_code == 200, answer.text
    assert Image.open(io.BytesIO(answer.content)).size == (200, 300)


def test_any_replica_answers_for_a_job(project: tuple[str, ...]) -> None:
    url = f"http://{docker(*project, 'port', 'proxy', '8000')}"
    accepted = httpx.post(
        f"{url}/segment", content=png(disc(300, 200)), headers={"Prefer": "respond-async"}, timeout=60
    )
    assert accepted.status_code == 202, accepted.text
    place = accepted.headers["location"]
    assert httpx.get(f"{url}{place}/result", params={"wait": 50}, timeout=60).status_code == 200
    ask = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000{place}').status)"
    assert [replica.run("python", "-c", ask).strip() for replica in replicas(project)] == ["200"] * 2


def test_stopping_it_ends_with_0(project: tuple[str, ...]) -> None:
    containers = [Container(name) for name in docker(*project, "ps", "--quiet").split()]
    docker(*project, "stop")
    assert [container.inspect()["State"]["ExitCode"] for container in containers] == [0] * 3
