"""A real cluster of one node for tests, and its custom metrics API in place of the Prometheus adapter.

The node has to be this machine: pods are reached by their addresses and take their image from this machine's engine.
"""

from __future__ import annotations

import csv
import http.server
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx

from tests.docker.load import Tally

METRIC = "unet_backlog_seconds"
_GROUP = "custom.metrics.k8s.io"
_SELECTOR = "app.kubernetes.io/name=unet"


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

    def pods(self) -> list[dict[str, Any]]:
        """All replicas, whatever their state."""
        return list(self.get("pods", f"--selector={_SELECTOR}")["items"])

    def ready(self) -> list[dict[str, Any]]:
        """Replicas that get requests."""
        return [pod for pod in self.pods() if _is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]

    def apply(self, objects: list[dict[str, Any]]) -> None:
        """Create or change objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "--filename=-", given=json.dumps(items))

    def backlog(self) -> dict[str, float]:
        """Seconds of work that wait, by replica, as each tells itself."""
        found = {}
        for pod in self.ready():
            try:
                text = httpx.get(f"http://{pod['status']['podIP']}:8000/metrics", timeout=5).text
            except httpx.TransportError:
                continue  # it has just gone
            line = next(line for line in text.splitlines() if line.startswith(f"{METRIC} "))
            found[pod["metadata"]["name"]] = float(line.split()[1])
        return found


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


@dataclass(frozen=True, slots=True)
class Look:
    """The cluster at one moment, its columns those of a trace for ``benchmarks.fleet``."""

    t_s: float
    replicas: int
    backlog_s: float
    """Mean over the replicas that are ready."""
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

    def add(self, backlog: dict[str, float]) -> None:
        """Note what is seen now."""
        mean, sent = sum(backlog.values()) / max(1, len(backlog)), self.sent
        seconds = time.monotonic() - self.started
        self.lines.append(Look(seconds, len(backlog), mean, sent.sent, sent.waits, sent.sent_px / 1e6))

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


@contextmanager
def metrics_api(cluster: Cluster, folder: Path, address: str) -> Iterator[Trace]:
    """Serve the custom metrics API at this address of the machine, and register it; gives what it has told.

    Parameters
    ----------
    cluster
        Where it is registered, and whose replicas are asked.
    folder
        Where its certificate goes.
    address
        Address that the API server reaches; loopback is not allowed by Kubernetes.

    """
    trace = Trace()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if f"/pods/*/{METRIC}" in unquote(self.path):
                backlog = cluster.backlog()
                trace.add(backlog)
                self._answer(_values(backlog))
            else:
                self._answer(_DISCOVERY)

        def _answer(self, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name it has there
            """Say nothing."""

    certificate, key = folder / "certificate.pem", folder / "key.pem"
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=metrics"]
    subprocess.run([*openssl, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    # shaking hands in the thread of each request, so that nobody who connects and says nothing holds up the others
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        cluster.apply(_registration(address, server.server_port))
        yield trace
    finally:
        cluster.kubectl("delete", "apiservice", f"v1beta1.{_GROUP}", "--ignore-not-found")
        server.shutdown()
        thread.join()
        server.server_close()


_DISCOVERY = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": f"{_GROUP}/v1beta1",
    "resources": [
        {"name": f"pods/{METRIC}", "singularName": "", "namespaced": True, "kind": "MetricValueList", "verbs": ["get"]}
    ],
}


def _values(backlog: dict[str, float]) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    items = [
        {
            "describedObject": {"kind": "Pod", "namespace": "unet", "name": name, "apiVersion": "/v1"},
            "metricName": METRIC,
            "timestamp": now,
            "value": f"{seconds * 1000:.0f}m",
        }
        for name, seconds in backlog.items()
    ]
    return {"kind": "MetricValueList", "apiVersion": f"{_GROUP}/v1beta1", "metadata": {}, "items": items}


def _registration(address: str, port: int) -> list[dict[str, Any]]:
    place = {"name": "metrics", "namespace": "unet"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": place,
            "spec": {"ports": [{"port": 443, "targetPort": port}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": place,
            "subsets": [{"addresses": [{"ip": address}], "ports": [{"port": port}]}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"v1beta1.{_GROUP}"},
            "spec": {
                "group": _GROUP,
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {**place, "port": 443},
            },
        },
    ]
