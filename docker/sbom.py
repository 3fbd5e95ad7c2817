"""Bill of materials of an image, CycloneDX 1.6 as JSON: Python packages, Debian packages, model packages.

    python -I sbom.py NAME VERSION FOLDER... > sbom.cdx.json

FOLDERs are virtual environments. Written while the image is built, from what is in it; the standard library suffices.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

_DPKG = Path("/var/lib/dpkg/status")


def python_packages(folder: Path) -> Iterator[dict[str, Any]]:
    """Components for what is installed in a virtual environment."""
    sites = [str(site) for site in folder.glob("lib/python3*/site-packages")]
    for found in distributions(path=sites):
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        yield {
            "type": "library",
            "name": name,
            "version": found.version,
            "purl": f"pkg:pypi/{name}@{quote(found.version)}",
            **_license(found),
        }


def _license(found: Distribution) -> dict[str, Any]:
    if expressions := found.metadata.get_all("License-Expression"):
        return {"licenses": [{"expression": expressions[0]}]}
    names = [line.rpartition(" :: ")[2] for line in found.metadata.get_all("Classifier", []) if "License ::" in line]
    return {"licenses": [{"license": {"name": name}} for name in names]} if names else {}


def debian_packages(status: Path = _DPKG) -> Iterator[dict[str, Any]]:
    """Components for what dpkg has installed."""
    for paragraph in status.read_text(encoding="utf-8").strip().split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        if fields["Status"] == "install ok installed":
            name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
            purl = f"pkg:deb/debian/{name}@{quote(version)}?arch={architecture}"
            yield {"type": "library", "name": name, "version": version, "purl": purl}


def model_packages(folder: Path) -> Iterator[dict[str, Any]]:
    """Components for the weights that ship, with the hash that every receipt names."""
    for weights in folder.glob("lib/python3*/site-packages/model/zoo/*/weights.onnx"):
        content = hashlib.sha256(weights.read_bytes()).hexdigest()
        yield {
            "type": "machine-learning-model",
            "name": weights.parent.name,
            "hashes": [{"alg": "SHA-256", "content": content}],
        }


def bill(name: str, version: str, folders: list[Path]) -> dict[str, Any]:
    """Return the whole document; the same image gives the same one."""
    components = [{"type": "platform", "name": "cpython", "version": platform.python_version()}]
    components += debian_packages()
    for folder in folders:
        components += [*python_packages(folder), *model_packages(folder)]
    for component in components:
        component["bom-ref"] = component.get("purl", f"{component['type']}:{component['name']}")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "version": version, "bom-ref": name}},
        "components": sorted(components, key=lambda component: str(component["bom-ref"])),
    }


if __name__ == "__main__":
    json.dump(bill(sys.argv[1], sys.argv[2], [Path(folder) for folder in sys.argv[3:]]), sys.stdout, indent=1)
