"""The service as a process of its own, spoken to over real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.packages import write_tiny_package


def wait_until(happened: Callable[[], bool]) -> None:
    """Look again and again, for half a minute at most."""
    until = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class LiveServer:
    """A running ``unet-service serve``."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def events(self) -> list[dict[str, Any]]:
        """Return all log events so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def live_server(
    folder: Path, packages: Path, *, terminal: int | None = None, **settings: object
) -> Iterator[LiveServer]:
    """Start the service on a free port, wait until it is ready, and end it afterwards.

    Its nets have one thread where a test asks for no other number: they are tiny, and those of more wait busily.

    Parameters
    ----------
    folder
        Where its log goes.
    packages
        What it serves.
    terminal
        Descriptor of the terminal that controls it; None for none.
    settings
        Further settings by field name.

    """
    given = {"port": 0, "models_dir": packages, "backend": "cpu", "threads": 1, **settings}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    log = folder / "service.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*(["setsid", "--ctty"] if terminal else []), sys.executable, "-m", "service.cli", "serve", *options],
            stdin=terminal,
            stderr=stream,
            start_new_session=terminal is None,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        )
    try:
        yield LiveServer(process, _wait_until_ready(process, log), log)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def live_tiny(folder: Path, **settings: Any) -> Iterator[LiveServer]:
    """Start the service with package ``tiny`` alone, as :func:`live_server` does; ``folder`` has the files of both."""
    write_tiny_package(folder / "packages")
    with live_server(folder, folder / "packages", **settings) as running:
        yield running


@contextmanager
def hang_up_means(action: signal.Handlers) -> Iterator[None]:
    """Say what a new process does at SIGHUP, which it inherits: whoever runs the tests may ignore it."""
    before = signal.signal(signal.SIGHUP, action)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        lines = log.read_text().splitlines()
        port = next((json.loads(line)["port"] for line in lines if '"listening' in line), None)
        if port and httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
            return f"http://127.0.0.1:{port}"
        time.sleep(0.05)
    raise RuntimeError(f"the service is not ready: {log.read_text()}")
