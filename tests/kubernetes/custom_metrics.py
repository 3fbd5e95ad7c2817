"""The custom metrics API of a cluster, answered by a real Prometheus through the rule of the manifests.

What the Prometheus operator and the Prometheus adapter do on a cluster that has them is done here by their rules:
targets are the endpoints that the ServiceMonitor chooses, with the operator's labels; values are the adapter's rule,
its template filled in as the adapter fills it.
"""

from __future__ import annotations

import http.server
import json
import re
import ssl
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import yaml

from tests.docker.prometheus import ask, prometheus
from tests.kubernetes.cluster import Cluster, Trace, is_ready, names
from tests.kubernetes.manifests import FOLDER, the

_GROUP = "custom.metrics.k8s.io"
_VALUES = re.compile(rf"/apis/{_GROUP}/v1beta1/namespaces/(?P<namespace>[^/]+)/pods/(\*|%2A)/(?P<metric>[^/]+)")


def adapter_rule() -> dict[str, Any]:
    """The one rule that the manifests give the Prometheus adapter."""
    text = (FOLDER / "overlays" / "monitoring" / "prometheus-adapter.yaml").read_text()
    (rule,) = yaml.safe_load(text)["rules"]["custom"]
    return dict(rule)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A rule of the Prometheus adapter over a Prometheus."""

    prometheus: str
    rule: dict[str, Any]

    def series(self) -> dict[str, str]:
        """Names of the metrics on offer, and of the series behind each: those that Prometheus has by now."""
        query = {"match[]": self.rule["seriesQuery"]}
        found = httpx.get(f"{self.prometheus}/api/v1/series", params=query, timeout=10).json()
        name = self.rule["name"]
        series = {labels["__name__"] for labels in found["data"]}
        return {re.sub(name["matches"], name["as"], each): each for each in series if re.search(name["matches"], each)}

    def values(self, metric: str, namespace: str, pods: set[str]) -> dict[str, float]:
        """Value of a metric for each of these pods that has one."""
        series = self.series().get(metric)
        if series is None:
            return {}
        label = {entry["resource"]: name for name, entry in self.rule["resources"]["overrides"].items()}
        chosen = f'{label["namespace"]}="{namespace}",{label["pod"]}=~"{"|".join(sorted(pods))}"'
        filled = {"<<.Series>>": series, "<<.LabelMatchers>>": chosen, "<<.GroupBy>>": label["pod"]}
        query = self.rule["metricsQuery"]
        for place, text in filled.items():
            query = query.replace(place, text)
        return {entry["metric"][label["pod"]]: float(entry["value"][1]) for entry in ask(self.prometheus, query)}


@contextmanager
def scraping(cluster: Cluster, folder: Path) -> Iterator[str]:
    """Run a Prometheus that scrapes what the ServiceMonitor says, as the operator would have it; gives its address."""
    monitor = the("monitoring", "ServiceMonitor")["spec"]
    (endpoint,) = monitor["endpoints"]
    targets = folder / "targets.json"
    job = {
        "job_name": "unet",
        "metrics_path": endpoint["path"],
        "scrape_interval": endpoint["interval"],
        "file_sd_configs": [{"files": [str(targets)]}],
    }
    selector = ",".join(f"{name}={value}" for name, value in monitor["selector"]["matchLabels"].items())
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(1):
            _write_targets(
                folder / "targets.json", cluster.get("endpoints", f"--selector={selector}"), endpoint["port"]
            )

    _write_targets(folder / "targets.json", {"items": []}, "")
    follower = threading.Thread(target=follow)
    follower.start()
    try:
        with prometheus(folder, {"scrape_configs": [job]}) as url:
            yield url
    finally:
        ended.set()
        follower.join()


def _write_targets(path: Path, endpoints: dict[str, Any], port: str) -> None:
    """Write the pods behind Services, ready or not, for Prometheus' file discovery."""
    found = [
        {
            "targets": [f"{address['ip']}:{entry['port']}"],
            "labels": {"namespace": item["metadata"]["namespace"], "pod": address["targetRef"]["name"]},
        }
        for item in endpoints["items"]
        for subset in item.get("subsets", [])
        for entry in subset["ports"]
        for address in [*subset.get("addresses", []), *subset.get("notReadyAddresses", [])]
        if entry.get("name") == port
    ]
    new = path.with_suffix(".new")
    new.write_text(json.dumps(found))
    new.rename(path)


@contextmanager
def metrics_api(cluster: Cluster, adapter: Adapter, folder: Path, address: str) -> Iterator[Trace]:
    """Serve the custom metrics API at this address of the machine, and register it; gives what it has told.

    Parameters
    ----------
    cluster
        Where it is registered, and whose pods are asked for.
    adapter
        Where the values come from.
    folder
        Where its certificate goes.
    address
        Address that the API server reaches; loopback is not allowed by Kubernetes.

    """
    trace = Trace()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            if (found := _VALUES.fullmatch(asked.path)) is None:
                self._answer(_discovery(adapter.series()))
                return
            pods = cluster.pods(parse_qs(asked.query)["labelSelector"][0])
            backlog = adapter.values(found["metric"], found["namespace"], names(pods))
            trace.add(names([pod for pod in pods if is_ready(pod)]), backlog)
            self._answer(_values(found["metric"], found["namespace"], backlog))

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


def _discovery(metrics: Iterable[str]) -> dict[str, Any]:
    kind = {"singularName": "", "namespaced": True, "kind": "MetricValueList", "verbs": ["get"]}
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{_GROUP}/v1beta1",
        "resources": [{"name": f"pods/{metric}", **kind} for metric in metrics],
    }


def _values(metric: str, namespace: str, values: dict[str, float]) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    items = [
        {
            "describedObject": {"kind": "Pod", "namespace": namespace, "name": name, "apiVersion": "/v1"},
            "metricName": metric,
            "timestamp": now,
            "value": f"{value * 1000:.0f}m",
        }
        for name, value in values.items()
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
