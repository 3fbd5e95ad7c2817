"""Replicas behind the proxy of docker-compose.yml: what clients see while replicas come, leave and die."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tests.docker.containers import PROJECT, Container, docker
from tests.docker.load import LARGE, SMALL, load
from tests.images import disc, npy
from tests.packages import write_tiny_package

EVER = datetime.min.replace(tzinfo=UTC)
QUICK = {"stop_grace_period": "8s", "healthcheck": {"interval": "1s", "timeout": "2s"}}
"""Of replicas one of which will hang: it is unhealthy after three checks, and takes all of its grace to stop."""

PROXY = f"unet-fleet-proxy:{os.getpid()}"

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The composition with a tiny package, on a free port."""

    environment: dict[str, str]

    def compose(self, *arguments: str, **environment: str) -> str:
        """Run ``docker compose``."""
        return docker("compose", *arguments, **self.environment, **environment)

    @property
    def url(self) -> str:
        """Address of the proxy."""
        return f"http://{self.compose('port', 'proxy', '8000')}"

    def replicas(self) -> list[Container]:
        """Those that run."""
        return [Container(name) for name in self.compose("ps", "--quiet", "service").split()]

    def scale(self, count: int) -> None:
        """Have so many replicas; return when they are healthy, or have drained and gone."""
        self.compose("up", "--detach", "--no-recreate", "--wait", f"--scale=service={count}", "service")

    def updating(self, settings: Path, **service: object) -> subprocess.Popen[str]:
        """Start ``docker/update.sh`` with further keys of the service, written to a file of their own."""
        settings.write_text(json.dumps({"services": {"service": service}}))
        files = f"{self.environment['COMPOSE_FILE']}:{settings}"
        return subprocess.Popen(
            [PROJECT / "docker" / "update.sh"],
            cwd=PROJECT,
            env={**os.environ, **self.environment, "COMPOSE_FILE": files},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def update(self, settings: Path, **service: object) -> tuple[int, str]:
        """Run it to its end; gives its exit status and what it wrote to standard error."""
        process = self.updating(settings, **service)
        said = process.communicate()[1]
        return process.returncode, said

    def usable(self) -> int:
        """Replicas that the proxy sends requests to."""
        script = "exec 3<>/dev/tcp/127.0.0.1/8404; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
        text = self.compose("exec", "-T", "proxy", "bash", "-c", script)
        name = 'haproxy_backend_active_servers{proxy="replicas"} '
        return int(next(line for line in text.splitlines() if line.startswith(name)).removeprefix(name))

    def wait_for_usable(self, count: int) -> float:
        """Wait until the proxy uses so many; return the seconds that it took."""
        started = time.monotonic()
        while (found := self.usable()) != count:
            assert time.monotonic() < started + 120, f"the proxy uses {found} replicas, not {count}"
            time.sleep(0.05)
        return time.monotonic() - started


@pytest.fixture(scope="module")
def fleet(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two replicas behind the proxy, healthy."""
    folder = tmp_path_factory.mktemp("fleet")
    folder.chmod(0o755)  # the containers' user is another
    write_tiny_package(folder)
    service = {
        "image": image,
        "volumes": [f"{folder}:/packages:ro"],
        "environment": {"UNET_MODELS_DIR": "/packages", "UNET_BACKEND": "cpu", "UNET_THREADS": "1"},
        "stop_grace_period": "60s",
    }
    override = folder / "override.json"
    override.write_text(json.dumps({"services": {"service": service, "proxy": {"image": PROXY}}}))
    running = Fleet(
        {
            "COMPOSE_PROJECT_NAME": f"unet-fleet-{os.getpid()}",
            "COMPOSE_FILE": f"{PROJECT / 'docker-compose.yml'}:{override}",
            "UNET_PORT": "0",
        }
    )
    try:
        running.compose("build", "--quiet", "proxy")
        running.compose("up", "--detach", "--wait", "--wait-timeout=300")
        running.wait_for_usable(2)
        yield running
    finally:
        running.compose("down", "--volumes", "--timeout=10")
        docker("image", "rm", "--force", PROXY)


def report(text: str) -> None:
    """Print a figure for docs/guarantees.md (``pytest -rP`` shows it)."""
    print(text)  # noqa: T201 - the figure is what the reader wants


def first_said(container: str, words: str, since: datetime = EVER) -> datetime:
    """When a container first logged a line with these words, by the engine's clock."""
    done = subprocess.run(["docker", "logs", "--timestamps", container], capture_output=True, text=True, check=True)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if words in line]
    said = [when for line in lines if (when := datetime.fromisoformat(line.split()[0])) > since]
    assert said, f"{container} has not logged {words!r} since {since}"
    return min(said)


def test_an_unready_replica_is_out_within_a_second(fleet: Fleet) -> None:
    leaving = fleet.replicas()[0]
    docker("kill", "--signal=TERM", leaving.name)
    fleet.wait_for_usable(1)
    assert leaving.inspect()["State"]["Running"], "it must be out before it leaves"
    unready = first_said(leaving.name, '"draining"')
    seconds = (first_said(fleet.compose("ps", "--quiet", "proxy"), " is DOWN", unready) - unready).total_seconds()
    report(f"an unready replica was out after {seconds:.2f} s")
    assert seconds < 1
    docker("wait", leaving.name)
    assert leaving.inspect()["State"]["ExitCode"] == 0
    fleet.scale(2)
    fleet.wait_for_usable(2)


def test_scaling_from_2_to_5_and_back_loses_nothing(fleet: Fleet) -> None:
    with load(fleet.url, SMALL, LARGE) as tally:
        tally.wait_for(5)
        fleet.scale(5)
        fleet.wait_for_usable(5)
        tally.wait_for(20)
        fleet.scale(2)
        fleet.wait_for_usable(2)
        tally.wait_for(5)
    report(f"scaling 2 -> 5 -> 2: {tally}")
    assert tally.failed == []


def test_a_rolling_update_loses_nothing(fleet: Fleet, tmp_path: Path) -> None:
    before = fleet.replicas()
    with load(fleet.url, SMALL, LARGE) as tally:
        tally.wait_for(5)
        status, said = fleet.update(tmp_path / "newer.json", environment={"UNET_LOG_LEVEL": "debug"})
        tally.wait_for(5)
    assert (status, "proxy runs" in said) == (0, False), said
    report(f"rolling update of 2 replicas: {tally}")
    assert tally.failed == []
    after = fleet.replicas()
    assert len(after) == 2
    assert {container.name for container in before}.isdisjoint(container.name for container in after)
    assert all("UNET_LOG_LEVEL=debug" in container.inspect()["Config"]["Env"] for container in after)


def test_an_update_says_that_the_proxy_has_an_older_image(fleet: Fleet, tmp_path: Path) -> None:
    docker("build", "--file=docker/haproxy.Dockerfile", f"--tag={PROXY}", "--label=newer=1", ".")
    try:
        status, said = fleet.update(tmp_path / "newer.json")
    finally:
        fleet.compose("build", "--quiet", "proxy")
    assert status == 0
    assert "proxy runs with an older image than there is" in said


def test_an_update_replaces_a_replica_that_was_killed_and_then_one_that_hangs(fleet: Fleet, tmp_path: Path) -> None:
    replaced_by_update(fleet, "KILL", tmp_path / "quick.json", "warning", **QUICK)
    replaced_by_update(fleet, "STOP", tmp_path / "newer.json", "error")


def replaced_by_update(fleet: Fleet, how: str, settings: Path, log_level: str, **service: object) -> None:
    """One of two replicas gets a signal; an update replaces both by healthy ones of this log level."""
    broken, _ = fleet.replicas()
    docker("kill", f"--signal={how}", broken.name)
    if how == "STOP":
        broken.wait_for("unhealthy", 90)
    status, said = fleet.update(settings, environment={"UNET_LOG_LEVEL": log_level}, **service)
    assert status == 0, said
    after = fleet.replicas()
    assert len(after) == 2
    assert all(f"UNET_LOG_LEVEL={log_level}" in container.inspect()["Config"]["Env"] for container in after)


def test_an_update_that_does_not_become_healthy_leaves_what_ran_before(fleet: Fleet, tmp_path: Path) -> None:
    before = {container.name for container in fleet.replicas()}
    status, said = fleet.update(tmp_path / "newer.json", environment={"UNET_PRECISION": "fp17"})
    assert status == 1
    assert "is not healthy" in said
    assert "was removed" in said
    assert {container.name for container in fleet.replicas()} == before
    fleet.wait_for_usable(2)


def test_an_update_that_is_broken_off_leaves_what_ran_before(fleet: Fleet, tmp_path: Path) -> None:
    """The new replica has no packages: it runs and does not become healthy."""
    before = {container.name for container in fleet.replicas()}
    process = fleet.updating(tmp_path / "newer.json", environment={"UNET_MODELS_DIR": "/nothing"})
    while len(fleet.replicas()) == len(before):
        assert process.poll() is None, process.communicate()
    process.terminate()
    said = process.communicate()[1]
    assert process.returncode == 143, said
    assert "was removed" in said
    assert set(fleet.compose("ps", "--all", "--quiet", "--no-trunc", "service").split()) == before


def test_a_killed_replica_costs_patient_clients_nothing(fleet: Fleet) -> None:
    """The proxy repeats what it still holds; larger uploads come back by themselves, as the documentation says."""
    slow = npy(np.pad(disc(64, 64), ((0, 2936), (0, 2936))))
    killed = fleet.replicas()[0]
    with load(fleet.url, SMALL, *[slow] * 6, patient=True) as tally:  # so many that no replica is ever idle
        tally.wait_for(5)
        docker("kill", killed.name)
        fleet.wait_for_usable(1)
        tally.wait_for(10)
    report(f"docker kill of one replica of 2: {tally}, {tally.waits} times asked again")
    assert tally.failed == []
    assert tally.waits, "nothing was in work on the killed replica: the test has shown nothing"
