"""Containers for tests, by Docker's own command line."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

PROJECT = Path(__file__).resolve().parents[2]
HARDENED = (
    "--read-only",
    "--tmpfs=/tmp:size=512m,mode=1777",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=2g",
)


def docker(*arguments: str, **environment: str) -> str:
    """Run ``docker`` in the project's folder and return what it prints; a failure shows its standard error."""
    done = subprocess.run(
        ["docker", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Container:
    """A started container."""

    name: str

    def inspect(self) -> dict[str, Any]:
        """Return what the engine knows of it."""
        (state,) = json.loads(docker("inspect", self.name))
        return dict(state)

    @property
    def url(self) -> str:
        """Address of the published port."""
        return f"http://{docker('port', self.name, '8000')}"

    def run(self, *command: str) -> str:
        """Run a command inside."""
        return docker("exec", self.name, *command)

    def logs(self) -> str:
        """Both streams so far."""
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def wait_for(self, health: str, seconds: float = 60.0) -> None:
        """Wait until the engine reports this health."""
        until = time.monotonic() + seconds
        while (state := self.inspect()["State"])["Health"]["Status"] != health:
            assert state["Running"], f"{self.name} ended with {state['ExitCode']}\n{self.logs()}"
            assert time.monotonic() < until, f"{state['Health']}\n{self.logs()}"
            time.sleep(0.2)


def answers(url: str) -> bool:
    """Whether 200 comes back: before a service listens, and before a Service's address leads to it, nobody answers."""
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def started(image: str, *options: str, command: Sequence[str] = ()) -> Iterator[Container]:
    """Start a container in the background; remove it afterwards."""
    container = Container(docker("run", "--detach", *options, image, *command))
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container.name)
