"""docker/kubernetes: valid, and saying the same as settings, API, alert rules and composition."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.app import create_app
from service.settings import PREFIX, Settings, load_settings
from service.telemetry import Metrics
from tests.docker.containers import PROJECT
from tests.docker.prometheus import needs_prometheus
from tests.kubernetes.custom_metrics import adapter_rule
from tests.kubernetes.manifests import (
    OVERLAYS,
    SERVING,
    VERSIONS,
    complaints_of_checkov,
    complaints_of_kubernetes,
    container,
    objects,
    pod,
    quantity,
    text,
    the,
)

WITHOUT_SCHEMA = {"PrometheusRule", "ServiceMonitor", "ScaledObject"}
"""Kinds of operators, which Kubernetes itself has no schema for."""
LABEL = {"app.kubernetes.io/name": "unet"}


def settings(overlay: str) -> Settings:
    """The settings that a replica would read."""
    data: dict[str, str] = the(overlay, "ConfigMap")["data"]
    fields = {PREFIX + name.upper(): name for name in Settings.model_fields}
    assert data.keys() <= fields.keys(), "these are no settings"
    return load_settings({fields[name]: value for name, value in data.items()})


def values(node: Any, name: str) -> Iterator[Any]:
    """Everything of this name, however deep."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == name:
                yield value
            yield from values(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from values(value, name)


def test_every_overlay_is_known() -> None:
    assert OVERLAYS == ["cpu", "gpu", "keda", "monitoring"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_what_kubernetes_expects(overlay: str, version: str, tmp_path: Path) -> None:
    known = [item for item in objects(overlay) if item["kind"] not in WITHOUT_SCHEMA]
    if not known:
        assert overlay == "keda"
        return
    assert not complaints_of_kubernetes(yaml.safe_dump_all(known), version, tmp_path)


def test_checkov_finds_nothing(tmp_path: Path) -> None:
    for overlay in OVERLAYS:
        (tmp_path / f"{overlay}.yaml").write_text(text(overlay))
    assert not complaints_of_checkov(tmp_path)


def test_quantities_are_such() -> None:
    with pytest.raises(KeyError):
        quantity("256Mb")
    found = [amounts for overlay in SERVING for key in ("requests", "limits") for amounts in values(pod(overlay), key)]
    assert len(found) == 4
    assert all(quantity(amount) > 0 for amounts in found for amount in amounts.values())
    for overlay in SERVING:
        resources = container(overlay)["resources"]
        assert all(
            quantity(resources["limits"][name]) >= quantity(value) for name, value in resources["requests"].items()
        )


@pytest.mark.parametrize("overlay", SERVING)
def test_selectors_and_ports_meet(overlay: str) -> None:
    deployment, service = the(overlay, "Deployment"), the(overlay, "Service")
    (port,) = container(overlay)["ports"]
    assert deployment["spec"]["template"]["metadata"]["labels"] == LABEL
    assert deployment["spec"]["selector"]["matchLabels"] == LABEL
    assert service["spec"]["selector"] == LABEL
    assert the(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == LABEL
    assert the(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == LABEL
    spreads = pod(overlay)["topologySpreadConstraints"]
    assert [spread["labelSelector"]["matchLabels"] for spread in spreads] == [LABEL, LABEL]
    (served,) = service["spec"]["ports"]
    assert served["targetPort"] == port["name"]
    assert port["containerPort"] == Settings().port
    assert {probe["port"] for probe in values(pod(overlay), "httpGet")} == {port["name"]}
    assert list(values(the(overlay, "NetworkPolicy"), "port")) == [port["name"]]
    (behind,) = values(the(overlay, "Ingress"), "service")
    assert behind == {"name": service["metadata"]["name"], "port": {"name": served["name"]}}


def test_what_watches_and_scales_meets_what_serves() -> None:
    service, monitor = the("cpu", "Service"), the("monitoring", "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert endpoint["path"] in create_app(Settings()).openapi()["paths"]
    target = the("monitoring", "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", the("cpu", "Deployment")["metadata"]["name"])
    assert the("keda", "ScaledObject")["spec"]["scaleTargetRef"]["name"] == target["name"]
    assert {
        item["metadata"]["namespace"] for name in OVERLAYS for item in objects(name) if item["kind"] != "Namespace"
    } == {the("cpu", "Namespace")["metadata"]["name"]}


def test_the_alert_rules_are_those_of_the_composition_and_ask_for_this_service() -> None:
    rules = yaml.safe_load((PROJECT / "docker" / "monitoring" / "rules.yml").read_text())
    assert the("monitoring", "PrometheusRule")["spec"] == rules, "run `make alerts`"
    # the operator names a job for the service
    asked = {name for rule in rules["groups"][0]["rules"] for name in rule["expr"].split('job="')[1:]}
    assert {name.split('"')[0] for name in asked} == {the("cpu", "Service")["metadata"]["name"]}


@pytest.mark.parametrize("overlay", SERVING)
def test_probes_ask_for_what_the_service_answers(overlay: str) -> None:
    paths = create_app(Settings()).openapi()["paths"]
    probes = {
        name: container(overlay)[name]["httpGet"]["path"]
        for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert probes == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    assert set(probes.values()) <= paths.keys()


@pytest.mark.parametrize("overlay", SERVING)
def test_times_fit_together(overlay: str) -> None:
    chosen, probe = settings(overlay), container(overlay)["readinessProbe"]
    assert pod(overlay)["terminationGracePeriodSeconds"] > chosen.drain_delay_s + chosen.shutdown_grace_s
    assert chosen.shutdown_grace_s >= chosen.deadline_s, "what was accepted is answered"
    assert chosen.drain_delay_s > probe["periodSeconds"] * probe["failureThreshold"]
    notes = the(overlay, "Ingress")["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/proxy"
    assert min(int(notes[f"{prefix}-{way}-timeout"]) for way in ("read", "send")) > chosen.deadline_s
    assert notes[f"{prefix}-body-size"] == f"{chosen.max_body_mb}m"


@pytest.mark.parametrize("overlay", SERVING)
def test_uploads_and_large_images_fit_into_the_temporary_folder(overlay: str) -> None:
    chosen, (volume,) = settings(overlay), pod(overlay)["volumes"]
    room = quantity(volume["emptyDir"]["sizeLimit"])
    assert chosen.upload_limit_mb >= 2 * chosen.max_body_mb
    assert room > (chosen.spool_limit_mb + chosen.upload_limit_mb) << 20
    assert not chosen.jobs_mb, "another pod would know nothing of a job"
    assert quantity(container(overlay)["resources"]["limits"]["ephemeral-storage"]) > room


@pytest.mark.parametrize(("overlay", "service"), [("cpu", "service"), ("gpu", "service-gpu")])
def test_a_replica_is_that_of_the_composition(overlay: str, service: str) -> None:
    composed = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"][service]
    here = container(overlay)
    assert here["image"] == composed["image"]
    assert here["resources"]["limits"]["memory"] == composed["mem_limit"].upper() + "i"
    assert here["securityContext"]["readOnlyRootFilesystem"] == composed["read_only"]
    assert here["securityContext"]["capabilities"]["drop"] == composed["cap_drop"]
    assert not here["securityContext"]["allowPrivilegeEscalation"]
    assert pod(overlay)["securityContext"]["runAsUser"] == 10001
    assert the(overlay, "NetworkPolicy")["spec"]["egress"] == []


def test_a_gpu_is_asked_for_where_one_is_required() -> None:
    assert container("gpu")["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert settings("gpu").require_gpu
    assert "nvidia.com/gpu" not in container("cpu")["resources"]["limits"]
    assert not settings("cpu").require_gpu


def test_both_autoscalers_go_by_the_backlog_before_anybody_is_refused() -> None:
    scaler, keda = the("monitoring", "HorizontalPodAutoscaler")["spec"], the("keda", "ScaledObject")["spec"]
    (metric,) = scaler["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert name in {family.name for family in Metrics().registry.collect()}
    target = quantity(metric["pods"]["target"]["averageValue"])
    assert target < settings("cpu").max_backlog_s / 2
    backlog, _, demand = keda["triggers"]
    assert name in backlog["metadata"]["query"]
    assert quantity(backlog["metadata"]["threshold"]) == target
    # of `demand`, 1 divided by the threshold is the most that it asks for
    assert (demand["metricType"], demand["metadata"]["threshold"]) == ("AverageValue", "1")
    assert (keda["minReplicaCount"], scaler["minReplicas"]) == (0, 2)
    assert keda["maxReplicaCount"] == scaler["maxReplicas"]
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == scaler["behavior"]
    up, down = scaler["behavior"]["scaleUp"], scaler["behavior"]["scaleDown"]
    assert up["stabilizationWindowSeconds"] == 0
    assert down["stabilizationWindowSeconds"] >= 300
    assert "replicas" not in the("cpu", "Deployment")["spec"], "applying it would undo the autoscaler's number"


def test_the_adapter_offers_what_the_autoscaler_asks_for() -> None:
    rule = adapter_rule()
    (metric,) = the("monitoring", "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    assert rule["seriesQuery"].startswith(rule["name"]["as"] + "{")


@needs_prometheus
@pytest.mark.parametrize(
    ("series", "wakes"),
    [
        ({}, False),
        ({"503": "_x119 1x120"}, True),  # the first request ever, at 10 min
        ({"200": "7x240", "503": "2x119 3x120"}, True),
        ({"200": "7x240", "401": "0x119 1+1x120"}, False),  # who may not wakes nobody
        ({"200": "5x30 _x89 1x120"}, True),  # the ingress controller has been started anew
    ],
)
def test_a_request_wakes_a_replica_from_zero_for_two_minutes(
    tmp_path: Path, series: dict[str, str], wakes: bool
) -> None:
    """The first series would be new until 2 min."""
    (demand,) = [each for each in the("keda", "ScaledObject")["spec"]["triggers"] if each["name"] == "demand"]
    name = "nginx_ingress_controller_requests"
    inputs = [
        {"series": f'{name}{{exported_namespace="unet",exported_service="unet",status="{status}"}}', "values": values}
        for status, values in series.items()
    ]
    inputs.append({"series": f'{name}{{exported_namespace="other",exported_service="unet"}}', "values": "0+1x240"})
    expected = {"9m": 0, "10m5s": wakes, "11m50s": wakes, "12m30s": 0, "19m": 0}
    check_values(tmp_path, inputs, demand, expected)


@needs_prometheus
def test_jobs_that_are_not_done_keep_the_last_replica_and_ask_for_no_other(tmp_path: Path) -> None:
    backlog, jobs, _ = the("keda", "ScaledObject")["spec"]["triggers"]
    inputs = [
        {"series": f'unet_jobs_backlog_seconds{{namespace="{namespace}",pod="{pod}"}}', "values": values}
        for namespace, pod, values in (
            ("unet", "a", "_x20 900x20 0x20"),
            ("unet", "b", "_x20 0x40"),
            ("other", "c", "9x60"),
        )
    ]
    check_values(tmp_path, inputs, jobs, {"1m": 0, "2m": 1, "4m": 0})
    check_values(tmp_path, inputs, backlog, {"2m": 0})
    assert (jobs["metricType"], jobs["metadata"]["threshold"]) == ("AverageValue", "1")


def check_values(
    tmp_path: Path, inputs: list[dict[str, str]], trigger: dict[str, Any], expected: dict[str, int | bool]
) -> None:
    """Check what one of KEDA's triggers is at some times, on samples each 5 s in promtool's notation."""
    samples = [
        {
            "expr": trigger["metadata"]["query"],
            "eval_time": when,
            "exp_samples": [{"labels": "{}", "value": int(value)}],
        }
        for when, value in expected.items()
    ]
    file = tmp_path / "keda.test.yml"
    test = {"interval": "5s", "input_series": inputs, "promql_expr_test": samples}
    file.write_text(yaml.safe_dump({"evaluation_interval": "5s", "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
