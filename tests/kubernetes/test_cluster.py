"""The manifests on a real node: the autoscaler follows the backlog up and down, and nothing accepted is lost.

``UNET_TEST_KUBECONFIG`` names the configuration of a cluster of one node, this machine, that may be used up: objects in
its namespace ``unet`` are replaced and removed. ``UNET_TEST_TRACE`` names a file for the run's trace, which
``python -m benchmarks.fleet --trace`` sets beside its simulation.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docker.containers import answers, docker
from tests.docker.load import LARGE, SMALL, load
from tests.docker.prometheus import ask, needs_prometheus
from tests.kubernetes.cluster import Cluster, Trace, names
from tests.kubernetes.custom_metrics import Adapter, adapter_rule, metrics_api, scraping
from tests.kubernetes.manifests import objects, the

KUBECONFIG = os.environ.get("UNET_TEST_KUBECONFIG", "")
TRACE = os.environ.get("UNET_TEST_TRACE", "")

pytestmark = [
    needs_prometheus,
    pytest.mark.cluster,
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not KUBECONFIG, reason="no cluster to use up: name its configuration in UNET_TEST_KUBECONFIG"),
]

MOST = 3
TARGET_S = 2
OLDER = {"policy/v1": "policy/v1beta1", "autoscaling/v2": "autoscaling/v2beta2"}
"""What a node of Kubernetes 1.20 calls them; the fields in use are the same."""


def adapted(version: str, image: str) -> list[dict[str, Any]]:
    """Overlay ``cpu`` and the autoscaler, for a machine with two busy cores: small replicas, short times."""
    scaler = the("monitoring", "HorizontalPodAutoscaler")
    found = [*objects("cpu"), scaler]
    scaler["spec"] |= {"minReplicas": 1, "maxReplicas": MOST}
    scaler["spec"]["metrics"][0]["pods"]["target"]["averageValue"] = str(TARGET_S)
    scaler["spec"]["behavior"]["scaleDown"] |= {
        "stabilizationWindowSeconds": 10,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 5}],
    }
    for item in found:
        if item["kind"] == "Deployment":
            (container,) = item["spec"]["template"]["spec"]["containers"]
            container["image"] = image
            amounts = {"cpu": "100m", "memory": "1Gi"}
            container["resources"] = {"requests": amounts, "limits": {**amounts, "cpu": "500m"}}
        if version.startswith("v1.20."):
            item["apiVersion"] = OLDER.get(item["apiVersion"], item["apiVersion"])
    return found


@pytest.fixture(scope="module")
def cluster(image: str) -> Iterator[Cluster]:
    """One ready replica and its autoscaler."""
    running = Cluster(KUBECONFIG)
    version = running.get("nodes")["items"][0]["status"]["nodeInfo"]["kubeletVersion"]
    manifests = adapted(version, image)
    # what a run before has left, or still removes, would stand in the way
    running.kubectl("delete", "namespace", "unet", "--ignore-not-found", "--timeout=180s")
    running.apply(manifests[:1])
    try:
        running.apply(manifests[1:])
        running.kubectl("--namespace=unet", "rollout", "status", "deployment/unet", "--timeout=180s")
        yield running
    finally:
        running.kubectl("delete", "namespace", "unet", "--wait=false")
        wait_until(lambda: not running.pods(), "replicas are left", 180)


def wait_until(holds: Callable[[], bool], otherwise: str, seconds: float = 240) -> float:
    """Look once a second; return the seconds that it took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() < started + seconds, f"after {seconds:.0f} s: {otherwise}"
        time.sleep(1)
    return time.monotonic() - started


def report(text: object) -> None:
    """Print a figure for docs/guarantees.md (``pytest -rP`` shows it)."""
    print(text)  # noqa: T201 - the figure is what the reader wants


def kill_one(cluster: Cluster) -> None:
    """Kill the process of a replica, as a lack of memory does."""
    (status,) = cluster.ready()[0]["status"]["containerStatuses"]
    docker("kill", status["containerID"].removeprefix("docker://"))


def most_that_keda_saw(prometheus: str) -> float:
    """Highest value of the trigger on the backlog, had KEDA asked every five seconds."""
    (backlog,) = [each for each in the("keda", "ScaledObject")["spec"]["triggers"] if each["name"] == "backlog"]
    (highest,) = ask(prometheus, f"max_over_time(({backlog['metadata']['query']})[15m:5s])")
    return float(highest["value"][1])


@contextmanager
def written(trace: Trace) -> Iterator[None]:
    """Leave the trace where it is asked for, of a run that failed too."""
    try:
        yield
    finally:
        if TRACE:
            trace.write(Path(TRACE))


def test_it_scales_by_the_backlog_and_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    url = f"http://{cluster.get('service', 'unet')['spec']['clusterIP']}"
    wait_until(lambda: answers(f"{url}/livez") and answers(f"{url}/readyz"), "the Service leads nowhere", 60)
    bridge = docker("network", "inspect", "bridge", "--format={{(index .IPAM.Config 0).Gateway}}")
    with (
        scraping(cluster, tmp_path) as prometheus,
        metrics_api(cluster, Adapter(prometheus, adapter_rule()), tmp_path, bridge) as trace,
        written(trace),
    ):
        wait_until(lambda: any(look.replicas for look in trace.lines), "the autoscaler has asked for nothing", 60)
        scale_up_and_update(cluster, url, trace)
        with load(url, SMALL, LARGE, LARGE, LARGE, patient=True, totals=trace.sent) as tally:
            tally.wait_for(3, 180)
            kill_one(cluster)
            tally.wait_for(6, 180)
        report(f"a replica killed: {tally}, {tally.waits} times asked again")
        assert tally.failed == []
        with load(url, SMALL, totals=trace.sent) as tally:
            seconds = wait_until(lambda: len(cluster.pods()) == 1, "more than one replica is left")
            tally.wait_for(3)
        report(f"{MOST} -> 1 replicas {seconds:.0f} s after the load: {tally}")
        assert tally.failed == []
        assert most_that_keda_saw(prometheus) > TARGET_S
    report(trace)
    assert trace.replicas()[0] == trace.replicas()[-1] == 1
    assert max(trace.replicas()) >= MOST


def scale_up_and_update(cluster: Cluster, url: str, trace: Trace) -> None:
    """More work than one replica holds, and a rolling update in the middle of it, for clients without patience."""
    before = names(cluster.pods())
    with load(url, SMALL, LARGE, LARGE, LARGE, totals=trace.sent) as tally:
        seconds = wait_until(lambda: len(cluster.ready()) >= MOST, f"fewer than {MOST} replicas, {trace}")
        report(f"1 -> {MOST} replicas ready after {seconds:.0f} s")
        assert max(look.backlog_s for look in trace.lines) > TARGET_S
        cluster.kubectl("--namespace=unet", "rollout", "restart", "deployment/unet")
        cluster.kubectl("--namespace=unet", "rollout", "status", "deployment/unet", "--timeout=240s")
        tally.wait_for(3, 180)
    assert before.isdisjoint(names(cluster.ready()))
    report(f"scaling up and rolling update: {tally}")
    assert tally.failed == []
