"""What the container files say, held against the settings and the dependencies; no engine needed."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.settings import PREFIX, Settings
from tests.docker.containers import PROJECT

LOCKS = {
    "service-cpu.txt": ("cpu", "openvino"),
    "service-gpu.txt": ("gpu",),
    "training.txt": ("cpu", "training"),
    "constraints.txt": ("cpu", "openvino", "training", "dev"),
}
HASHED = ["service-cpu.txt", "service-gpu.txt", "training.txt", "build.txt"]
SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}


@cache
def lock_text(name: str) -> str:
    return (PROJECT / "requirements" / name).read_text()


@cache
def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ \n]+)", lock_text(name), re.MULTILINE))


@cache
def project() -> dict[str, Any]:
    return dict(tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"])


@pytest.mark.parametrize("name", LOCKS)
def test_every_declared_dependency_is_pinned_within_its_range(name: str) -> None:
    declared = [*project()["dependencies"]]
    for extra in LOCKS[name]:
        declared += project()["optional-dependencies"][extra]
    requirements = [Requirement(text) for text in declared]
    missing = [r.name for r in requirements if canonicalize_name(r.name) not in pins(name)]
    assert not missing, "run `make lock`"
    assert [str(r) for r in requirements if pins(name)[canonicalize_name(r.name)] not in r.specifier] == []


@pytest.mark.parametrize("name", HASHED)
def test_every_pin_has_hashes(name: str) -> None:
    entries = [entry for entry in re.split(r"\n(?=[a-z0-9])", lock_text(name)) if not entry.startswith("#")]
    assert len(entries) == len(pins(name)) > 0
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", HASHED)
def test_images_install_what_the_tests_ran_with(name: str) -> None:
    tested = pins("constraints.txt")
    assert {p: v for p, v in pins(name).items() if tested.get(p, v) != v} == {}


@pytest.mark.parametrize("name", ["service-cpu.txt", "service-gpu.txt"])
def test_the_service_installs_nothing_of_training(name: str) -> None:
    assert {"torch", "onnx", "onnxscript", "bioimageio-core", "bioimageio-spec", "tensorboard"}.isdisjoint(pins(name))


@pytest.mark.parametrize("name", [*HASHED, "constraints.txt"])
def test_locks_name_no_index(name: str) -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links", lock_text(name))


def test_only_one_package_owns_the_runtime() -> None:
    assert "onnxruntime-gpu" not in pins("service-cpu.txt")
    assert "onnxruntime" not in pins("service-gpu.txt")


@pytest.mark.parametrize("name", ["service.Dockerfile", "training.Dockerfile"])
def test_variables_of_the_images_are_settings(name: str) -> None:
    text = (PROJECT / "docker" / name).read_text()
    assert set(re.findall(r"\b(UNET_\w+)=", text)) <= SETTINGS


def test_variables_of_the_composition_are_settings() -> None:
    services = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
    assert {name for service in services.values() for name in service.get("environment", {})} <= SETTINGS


def test_the_composition_waits_longer_than_the_service_may_take_to_stop() -> None:
    services = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
    settings = Settings()
    grace = services["service"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > settings.drain_delay_s + settings.shutdown_grace_s
