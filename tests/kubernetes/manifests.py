"""What ``kubectl kustomize`` makes of docker/kubernetes, as values."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docker.containers import PROJECT

FOLDER = PROJECT / "docker" / "kubernetes"
OVERLAYS = sorted(path.parent.name for path in FOLDER.glob("overlays/*/kustomization.yaml"))
SERVING = ("cpu", "gpu")
VERSIONS = ("1.32.0", "1.34.0")
UNHEEDED = {
    "CKV_K8S_15": "images of one's own may lie on the node alone, air-gapped",
    "CKV_K8S_43": "the digest is known to whoever pushes the image, who writes it into the overlay",
}
_FACTORS = {"": 1, "m": 0.001, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


@cache
def text(overlay: str) -> str:
    """Everything that ``kubectl apply -k`` would apply."""
    return kustomized(FOLDER / "overlays" / overlay)


def kustomized(folder: Path) -> str:
    """What ``kubectl kustomize`` makes of a folder."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl 1.27 or later is not installed")
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def complaints_of_kubernetes(manifests: str, version: str, folder: Path) -> str:
    """What the schemas of a version of Kubernetes have against objects; ``folder`` takes a file."""
    file = folder / "objects.yaml"
    file.write_text(manifests)
    program = Path(sys.executable).with_name("kubernetes-validate")
    command = [str(program), "--quiet", "--strict", "-k", version, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr + (f"exit status {done.returncode}" if done.returncode else "")


def complaints_of_checkov(folder: Path) -> str:
    """What checkov has against the objects in the files of a folder."""
    if shutil.which("checkov") is None:
        pytest.skip("checkov is not installed: pipx install checkov")
    command = ["checkov", "--skip-download", "--quiet", "--compact", "--framework=kubernetes", f"--directory={folder}"]
    done = subprocess.run([*command, f"--skip-check={','.join(UNHEEDED)}"], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def objects(overlay: str) -> list[dict[str, Any]]:
    """The objects of an overlay; copies, to be changed at will."""
    return [dict(item) for item in yaml.safe_load_all(text(overlay))]


def the(overlay: str, kind: str) -> dict[str, Any]:
    """The only object of this kind."""
    (found,) = [item for item in objects(overlay) if item["kind"] == kind]
    return found


def pod(overlay: str) -> dict[str, Any]:
    """The pod template's specification."""
    return dict(the(overlay, "Deployment")["spec"]["template"]["spec"])


def container(overlay: str) -> dict[str, Any]:
    """The service's container."""
    (found,) = pod(overlay)["containers"]
    return dict(found)


def quantity(value: str | int) -> float:
    """Number of a Kubernetes quantity; ``256Mb`` or ``4 Gi`` is a KeyError or a ValueError."""
    digits = str(value).rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return float(digits) * _FACTORS[str(value)[len(digits) :]]
