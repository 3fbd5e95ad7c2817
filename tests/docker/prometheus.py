"""A real Prometheus for tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

needs_prometheus = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("promtool", "amtool", "prometheus")),
    reason="Prometheus is not installed: apt-get install prometheus prometheus-alertmanager",
)


@contextmanager
def prometheus(folder: Path, settings: dict[str, Any]) -> Iterator[str]:
    """Run Prometheus with these settings, its files in a folder; gives its address.

    Raises
    ------
    AssertionError
        Where it does not listen within a minute; with what it logged.

    """
    config, logged = folder / "prometheus.yml", folder / "prometheus.log"
    config.write_text(yaml.safe_dump(settings))
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    with logged.open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        yield _address(logged)
    finally:
        process.terminate()
        process.wait(30)


def ask(url: str, query: str) -> list[dict[str, Any]]:
    """Result of an instant query: of each series its labels (``metric``) and its time and value (``value``)."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=10).json()
    assert answer["status"] == "success", answer
    return list(answer["data"]["result"])


def _address(log: Path) -> str:
    until = time.monotonic() + 60
    while not (found := re.search(r'msg="Listening on" address=(\S+)', log.read_text())):
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)
    return f"http://{found[1]}"
