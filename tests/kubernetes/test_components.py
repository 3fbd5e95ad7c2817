"""docker/kubernetes/packages and jobs: what docs/operations.md has one add to an overlay does what it says."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.package import ZOO
from service.settings import load_settings
from tests.docker.containers import PROJECT
from tests.kubernetes.manifests import (
    FOLDER,
    SERVING,
    VERSIONS,
    complaints_of_checkov,
    complaints_of_kubernetes,
    kustomized,
    text,
)

SETTINGS = {"packages": {"UNET_MODELS_DIR"}, "jobs": {"UNET_JOBS_DIR", "UNET_JOBS_MB"}}
"""What each component sets."""


@dataclass(frozen=True, slots=True)
class Overlaid:
    """An overlay, and what becomes of it with the line that the documentation names for a component."""

    component: str
    name: str
    manifests: str


OVERLAYS = [(component, name) for component in SETTINGS for name in SERVING]


@pytest.fixture(params=OVERLAYS, ids="-".join)
def overlay(request: pytest.FixtureRequest, tmp_path: Path) -> Overlaid:
    component, name = request.param
    return overlaid(component, name, tmp_path)


def overlaid(component: str, name: str, tmp_path: Path) -> Overlaid:
    line = f"components: [../../{component}]"
    assert f"`{line}`" in (PROJECT / "docs" / "operations.md").read_text()
    copy = Path(shutil.copytree(FOLDER, tmp_path / "kubernetes")) / "overlays" / name
    shutil.copytree(PROJECT / "docker" / "monitoring", tmp_path / "monitoring")
    with (copy / "kustomization.yaml").open("a") as file:
        file.write(f"{line}\n")
    return Overlaid(component, name, kustomized(copy))


def by_kind(manifests: str) -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in yaml.safe_load_all(manifests)}


@pytest.mark.parametrize("name", SERVING)
def test_packages_are_mounted_read_only_and_served_beside_those_that_ship(name: str, tmp_path: Path) -> None:
    found = by_kind(overlaid("packages", name, tmp_path).manifests)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    claim = {"claimName": "unet-packages", "readOnly": True}
    (container,) = pod["containers"]
    assert {"name": "packages", "persistentVolumeClaim": claim} in pod["volumes"]
    assert {"name": "packages", "mountPath": "/packages", "readOnly": True} in container["volumeMounts"]
    data = found["ConfigMap"]["data"]
    assert load_settings({"models_dir": data["UNET_MODELS_DIR"]}).models_dir == (Path("/packages"), ZOO)
    assert container["envFrom"] == [{"configMapRef": {"name": found["ConfigMap"]["metadata"]["name"]}}]


@pytest.mark.parametrize("name", SERVING)
def test_jobs_are_kept_where_every_pod_can_write(name: str, tmp_path: Path) -> None:
    found = by_kind(overlaid("jobs", name, tmp_path).manifests)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {"name": "jobs", "persistentVolumeClaim": {"claimName": "unet-jobs"}} in pod["volumes"]
    assert {"name": "jobs", "mountPath": "/jobs"} in container["volumeMounts"]
    data = found["ConfigMap"]["data"]
    settings = load_settings({"jobs_dir": data["UNET_JOBS_DIR"], "jobs_mb": data["UNET_JOBS_MB"]})
    assert settings.jobs_dir == Path("/jobs")
    assert settings.jobs_mb > 0


def test_nothing_else_of_the_overlay_changes(overlay: Overlaid) -> None:
    changed, without = by_kind(overlay.manifests), by_kind(text(overlay.name))
    pod = changed["Deployment"]["spec"]["template"]["spec"]
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] != overlay.component]
    (container,) = pod["containers"]
    container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != overlay.component]
    for name in SETTINGS[overlay.component]:
        assert changed["ConfigMap"]["data"].pop(name)
        without["ConfigMap"]["data"].pop(name, None)
    # its name is a hash of its content
    configured = changed["ConfigMap"]["metadata"]["name"]
    assert configured != without["ConfigMap"]["metadata"]["name"]
    without["ConfigMap"]["metadata"]["name"] = configured
    (plain,) = without["Deployment"]["spec"]["template"]["spec"]["containers"]
    plain["envFrom"] = [{"configMapRef": {"name": configured}}]
    assert changed == without


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_kubernetes_expects(overlay: Overlaid, version: str, tmp_path: Path) -> None:
    assert not complaints_of_kubernetes(overlay.manifests, version, tmp_path)


def test_checkov_finds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    for component, name in OVERLAYS:
        manifests = overlaid(component, name, tmp_path / component / name).manifests
        (folder / f"{component}-{name}.yaml").write_text(manifests)
    assert not complaints_of_checkov(folder)
