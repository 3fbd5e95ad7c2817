"""docker-compose.yml with the override file that docs/operations.md shows, and with another address."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import PREFIX, Settings
from tests.docker.containers import PROJECT

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(shutil.which("docker") is None, reason="docker compose is not installed"),
]

PROFILES = "gpu,monitoring"


def composed(folder: Path, **environment: str) -> dict[str, Any]:
    """The services as ``docker compose`` understands the files of a folder; no engine is asked."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    done = subprocess.run(
        ["docker", "compose", "config", "--format=json"],
        cwd=folder,
        env={**kept, "COMPOSE_PROFILES": PROFILES, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["services"])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copy(PROJECT / "docker-compose.yml", tmp_path)
    return tmp_path


def documented_override(setting: str) -> str:
    """The YAML of the documentation that names a setting."""
    blocks = re.findall(r"```yaml\n(.*?)```", (PROJECT / "docs" / "operations.md").read_text(), re.DOTALL)
    (found,) = [block for block in blocks if setting in block]
    return str(found)


@pytest.mark.parametrize(
    ("setting", "source", "target"),
    [("UNET_MODELS_DIR", "packages", "/packages"), ("UNET_API_KEYS_FILE", "access", "/access")],
)
def test_settings_and_folders_of_the_override_reach_replicas_and_leave_the_rest_alone(
    project: Path, setting: str, source: str, target: str
) -> None:
    before = composed(project)["service"]
    override = documented_override(setting)
    (project / "docker-compose.override.yml").write_text(override)
    after = composed(project)["service"]
    added = yaml.safe_load(override)["services"]["service"]["environment"]
    assert {name.removeprefix(PREFIX).lower() for name in added} <= Settings.model_fields.keys()
    assert setting in added
    assert after.pop("environment") == {**before.pop("environment"), **added}
    kept = before.pop("volumes")
    (mount,) = [volume for volume in after["volumes"] if volume not in kept]
    assert [volume for volume in after.pop("volumes") if volume != mount] == kept
    assert (mount["source"], mount["target"], mount["read_only"]) == (str(project / source), target, True)
    assert not mount["bind"].get("create_host_path", False), "a misspelt folder is an error, not an empty one of root's"
    assert after == before


def test_variables_of_the_shell_are_no_settings_of_replicas(project: Path) -> None:
    assert composed(project, UNET_TILE_MS="100", UNET_MODELS_DIR="/packages") == composed(project)


@pytest.mark.parametrize("bind", [{}, {"UNET_BIND": ""}])
def test_everything_is_published_on_this_machine_alone(project: Path, bind: dict[str, str]) -> None:
    published = {name: service["ports"] for name, service in composed(project, **bind).items() if "ports" in service}
    assert published.keys() == {"proxy", "proxy-gpu", "prometheus", "alertmanager", "grafana"}
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.7", "[::1]"])  # noqa: S104 - what is asked for
def test_another_address_is_that_of_the_proxies_alone(project: Path, address: str) -> None:
    services = composed(project, UNET_BIND=address)
    found = {name: port["host_ip"] for name, service in services.items() for port in service.get("ports", ())}
    expected = dict.fromkeys(("prometheus", "alertmanager", "grafana"), "127.0.0.1")
    assert found == {**expected, "proxy": address.strip("[]"), "proxy-gpu": address.strip("[]")}
