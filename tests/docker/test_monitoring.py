"""Alert rules and dashboard: valid, tested, and asking for nothing that the service does not tell."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import generate_latest

from service.app import create_app
from service.settings import Settings
from service.telemetry import Metrics
from tests.docker.containers import PROJECT
from tests.docker.prometheus import ask, needs_prometheus, prometheus
from tests.images import disc, png
from tests.live import live_tiny

MONITORING = PROJECT / "docker" / "monitoring"
RUNBOOK = PROJECT / "docs" / "operations.md"
OF_PROMETHEUS = {"up"}  # written by Prometheus itself
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))

pytestmark = needs_prometheus


def configuration() -> dict[str, Any]:
    return dict(yaml.safe_load((MONITORING / "prometheus.yml").read_text()))


def rules() -> list[dict[str, Any]]:
    files = [yaml.safe_load((MONITORING / name).read_text()) for name in configuration()["rule_files"]]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def panels(file: Path) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(file.read_text())["panels"] if panel["type"] != "row"]


EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in rules()} | {
    f"{file.stem}/{panel['title']}/{target['refId']}": target["expr"]
    for file in DASHBOARDS
    for panel in panels(file)
    for target in panel["targets"]
}


@cache
def exposed() -> frozenset[str]:
    """Names of all series that the service may tell: samples of metrics without labels, and of one with each label."""
    metrics = Metrics()
    metrics.requests.labels("m", "png", "200")
    metrics.stage_seconds.labels("decode")
    metrics.pixels.labels("m")
    metrics.rejected.labels("overloaded")
    metrics.cancelled.labels("upload")
    metrics.job_ended("done", 200)
    metrics.jobs_kept({}, 0)
    label = {"name": "m", "version": "1", "sha256": "0", "backend": "cpu", "provider": "CPU", "precision": "fp32"}
    metrics.serve([label], refused=0)
    return frozenset(re.findall(r"^([a-z_]+)(?:[{ ])", told(metrics), re.MULTILINE))


def told(metrics: Metrics) -> str:
    text: bytes = generate_latest(metrics.registry)
    return text.decode()


def reasons(expressions: Iterable[str]) -> set[str]:
    """Reasons of refusals that expressions name."""
    named = re.findall(r'reason=~?"([^"]+)"', " ".join(expressions))
    return {reason for names in named for reason in names.split("|")}


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_and_every_rule_is_valid() -> None:
    run("promtool", "check", "config", "prometheus.yml")
    run("amtool", "check-config", "alertmanager.yml")


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    run("promtool", "test", "rules", "rules.test.yml")


@pytest.mark.parametrize("alert", [rule["alert"] for rule in rules()])
def test_every_alert_is_tested_both_ways_and_has_its_paragraph_in_the_runbook(alert: str) -> None:
    cases = [
        case
        for test in yaml.safe_load((MONITORING / "rules.test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == alert
    ]
    assert any(case.get("exp_alerts") for case in cases)
    assert any(not case.get("exp_alerts") for case in cases)
    (rule,) = (rule for rule in rules() if rule["alert"] == alert)
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{alert.lower()}"
    assert f"### {alert}\n" in RUNBOOK.read_text()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_series_that_is_asked_for_exists(name: str) -> None:
    asked = set(re.findall(r"\b(?:(?:unet|process|python)_[a-z_]+|up)\b", EXPRESSIONS[name]))
    assert asked
    assert asked <= exposed() | OF_PROMETHEUS


def test_reasons_that_alerts_name_are_problems_of_the_service() -> None:
    documented = set(re.findall(r"^\| \d{3} \| `([a-z-]+)`", (PROJECT / "docs" / "api.md").read_text(), re.MULTILINE))
    assert reasons(EXPRESSIONS.values()) <= documented


def test_reasons_that_alerts_name_are_counted_from_nought() -> None:
    app = create_app(Settings(backend="cpu"))
    counts = re.findall(r'^unet_rejected_total{reason="([a-z-]+)"} 0.0$', told(app.state.metrics), re.MULTILINE)
    assert reasons(EXPRESSIONS[rule["alert"]] for rule in rules()) <= set(counts)


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole_and_its_panels_lie_side_by_side(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    sources = yaml.safe_load((MONITORING / "grafana" / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels(file)} == {source["uid"] for source in sources}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert grid["x"] + grid["w"] <= 24
        assert taken.isdisjoint(cells), f"{panel['title']} covers another panel"
        taken |= cells


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real service."""
    with live_tiny(tmp_path_factory.mktemp("served")) as server:
        yield server.url


@pytest.fixture(scope="module")
def watching(served: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prometheus that watches the service, which has answered, refused and cancelled."""
    config = configuration()
    # in place of the proxy too, of which the rules ask no more than whether it answers
    targets = [{"targets": [served.removeprefix("http://")], "labels": {"service": "service"}}]
    jobs = [{"job_name": job["job_name"], "static_configs": targets} for job in config["scrape_configs"]]
    settings = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "scrape_configs": jobs}
    settings["rule_files"] = [str(MONITORING / name) for name in config["rule_files"]]
    with prometheus(tmp_path_factory.mktemp("prometheus"), settings) as url:
        _use(served)
        time.sleep(3)  # rates need two looks, a second apart
        _use(served)
        time.sleep(3)
        yield url


def _use(url: str) -> None:
    for _ in range(3):
        assert httpx.post(f"{url}/segment", content=png(disc())).status_code == 200
        assert httpx.post(f"{url}/segment", content=b"no image").status_code == 415
    with pytest.raises(ConnectionAbortedError):
        httpx.post(f"{url}/segment", content=_given_up())


def _given_up() -> Iterator[bytes]:
    yield png(disc())[:100]
    raise ConnectionAbortedError


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in EXPRESSIONS if "/" in name], ids=lambda name: re.sub(r"\W+", "-", name)
)
def test_every_panel_of_the_dashboard_shows_something(watching: str, served: str, name: str) -> None:
    until = time.monotonic() + 60  # on a busy machine scrapes come late
    while True:
        if ask(watching, EXPRESSIONS[name]):
            return
        assert time.monotonic() < until, f"{EXPRESSIONS[name]} finds nothing"
        _use(served)  # what is shown of the last minute may be older by now
        time.sleep(0.5)


@pytest.mark.slow
def test_the_rules_are_loaded_and_quiet_while_all_is_well(watching: str) -> None:
    groups = httpx.get(f"{watching}/api/v1/rules").json()["data"]["groups"]
    loaded = {rule["name"]: (rule["health"], rule["state"]) for group in groups for rule in group["rules"]}
    assert loaded == dict.fromkeys((rule["alert"] for rule in rules()), ("ok", "inactive"))
