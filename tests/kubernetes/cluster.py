"""A real cluster of one node for tests, and what was seen of it.

The node has to be this machine: pods are reached by their addresses and take their image from this machine's engine.
"""

from __future__ import annotations

import csv
import json
import subprocess
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tests.docker.load import Tally

SELECTOR = "app.kubernetes.io/name=unet"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What ``kubectl`` reaches with one configuration, in namespace ``unet``."""

    kubeconfig: str

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Run ``kubectl`` with this standard input; a failure shows its standard error."""
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout.strip()

    def get(self, *what: str) -> dict[str, Any]:
        """Objects of the namespace."""
        return dict(json.loads(self.kubectl("--namespace=unet", "get", *what, "--output=json")))

    def pods(self, selector: str = SELECTOR) -> list[dict[str, Any]]:
        """All replicas, whatever their state."""
        return list(self.get("pods", f"--selector={selector}")["items"])

    def ready(self) -> list[dict[str, Any]]:
        """Replicas that get requests."""
        return [pod for pod in self.pods() if is_ready(pod)]

    def apply(self, objects: list[dict[str, Any]]) -> None:
        """Create or change objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "--filename=-", given=json.dumps(items))


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod gets requests."""
    conditions = pod["status"].get("conditions", [])
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def names(pods: list[dict[str, Any]]) -> set[str]:
    """Names of pods."""
    return {pod["metadata"]["name"] for pod in pods}


@dataclass(frozen=True, slots=True)
class Look:
    """The cluster at one moment, its columns those of a trace for ``benchmarks.fleet``."""

    t_s: float
    replicas: int
    backlog_s: float
    """Mean over the replicas that are ready, as the last scrape had it."""
    accepted: int
    refused: int
    mpx: float
    """Size of all images accepted so far."""


@dataclass(slots=True)
class Trace:
    """What the autoscaler was told, and what clients had sent by then."""

    sent: Tally = field(default_factory=Tally)
    started: float = field(default_factory=time.monotonic)
    lines: list[Look] = field(default_factory=list)

    def add(self, ready: set[str], backlog: dict[str, float]) -> None:
        """Note which pods are ready now, and what the autoscaler is told of all."""
        told, sent = [backlog[name] for name in ready if name in backlog], self.sent
        mean = sum(told) / max(1, len(told))
        seconds = time.monotonic() - self.started
        self.lines.append(Look(seconds, len(ready), mean, sent.sent, sent.waits, sent.sent_px / 1e6))

    def write(self, path: Path) -> None:
        """Write a table that ``python -m benchmarks.fleet --trace`` reads."""
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, [column.name for column in fields(Look)], lineterminator="\n")
            table.writeheader()
            table.writerows({name: round(value, 3) for name, value in asdict(look).items()} for look in self.lines)

    def replicas(self) -> list[int]:
        """How many were ready, without repetitions."""
        counts = [look.replicas for look in self.lines]
        return [count for index, count in enumerate(counts) if not index or count != counts[index - 1]]

    def __str__(self) -> str:
        return "\n".join(
            f"{look.t_s:6.1f} s {look.replicas} ready {look.backlog_s:6.1f} s waiting in each" for look in self.lines
        )
