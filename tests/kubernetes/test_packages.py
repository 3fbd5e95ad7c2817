"""docker/kubernetes/packages: what docs/operations.md has one add to an overlay mounts own packages and serves them."""

from __future__ import annotations

import shutil
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

LINE = "components: [../../packages]"


@pytest.fixture(params=SERVING)
def overlay(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """An overlay's name, and what becomes of it with the line that the documentation names."""
    assert f"`{LINE}`" in (PROJECT / "docs" / "operations.md").read_text()
    copy = Path(shutil.copytree(FOLDER, tmp_path / "kubernetes")) / "overlays" / str(request.param)
    shutil.copytree(PROJECT / "docker" / "monitoring", tmp_path / "monitoring")
    with (copy / "kustomization.yaml").open("a") as file:
        file.write(f"{LINE}\n")
    return str(request.param), kustomized(copy)


def by_kind(manifests: str) -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in yaml.safe_load_all(manifests)}


def test_packages_are_mounted_read_only_and_served_beside_those_that_ship(overlay: tuple[str, str]) -> None:
    found = by_kind(overlay[1])
    pod = found["Deployment"]["spec"]["template"]["spec"]
    claim = {"claimName": "unet-packages", "readOnly": True}
    (container,) = pod["containers"]
    assert {"name": "packages", "persistentVolumeClaim": claim} in pod["volumes"]
    assert {"name": "packages", "mountPath": "/packages", "readOnly": True} in container["volumeMounts"]
    data = found["ConfigMap"]["data"]
    assert load_settings({"models_dir": data["UNET_MODELS_DIR"]}).models_dir == (Path("/packages"), ZOO)
    assert container["envFrom"] == [{"configMapRef": {"name": found["ConfigMap"]["metadata"]["name"]}}]


def test_nothing_else_of_the_overlay_changes(overlay: tuple[str, str]) -> None:
    name, manifests = overlay
    with_packages, without = by_kind(manifests), by_kind(text(name))
    pod = with_packages["Deployment"]["spec"]["template"]["spec"]
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] != "packages"]
    (container,) = pod["containers"]
    container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "packages"]
    assert with_packages["ConfigMap"]["data"].pop("UNET_MODELS_DIR")
    # its name is a hash of its content
    configured = with_packages["ConfigMap"]["metadata"]["name"]
    assert configured != without["ConfigMap"]["metadata"]["name"]
    without["ConfigMap"]["metadata"]["name"] = configured
    (plain,) = without["Deployment"]["spec"]["template"]["spec"]["containers"]
    plain["envFrom"] = [{"configMapRef": {"name": configured}}]
    assert with_packages == without


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_kubernetes_expects(overlay: tuple[str, str], version: str, tmp_path: Path) -> None:
    assert not complaints_of_kubernetes(overlay[1], version, tmp_path)


def test_checkov_finds_nothing(overlay: tuple[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    (folder / "objects.yaml").write_text(overlay[1])
    assert not complaints_of_checkov(folder)
