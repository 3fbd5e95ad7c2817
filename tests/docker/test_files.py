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
    "service-cpu.txt": ("cpu", "openvino", "zarr"),
    "service-gpu.txt": ("gpu", "zarr"),
    "training.txt": ("cpu", "training"),
    "constraints.txt": ("cpu", "openvino", "zarr", "training", "dev"),
}
DOCKERFILES = sorted(path.name for path in (PROJECT / "docker").glob("*.Dockerfile"))
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
    assert {"torch", "onnxscript", "bioimageio-core", "bioimageio-spec", "tensorboard"}.isdisjoint(pins(name))
    assert ("onnx" in pins(name)) == ("gpu" in name)  # which rewrites graphs in fp16, for GPUs alone


@pytest.mark.parametrize("name", [*HASHED, "constraints.txt"])
def test_locks_name_no_index(name: str) -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links", lock_text(name))


def test_only_one_package_owns_the_runtime() -> None:
    assert "onnxruntime-gpu" not in pins("service-cpu.txt")
    assert "onnxruntime" not in pins("service-gpu.txt")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_variables_of_the_images_are_settings(name: str) -> None:
    text = (PROJECT / "docker" / name).read_text()
    assert set(re.findall(r"\b(UNET_\w+)=", text)) <= SETTINGS


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_image_says_its_version_and_revision(name: str) -> None:
    text = (PROJECT / "docker" / name).read_text()
    for label in ("version", "revision"):
        assert f'org.opencontainers.image.{label}="${{{label.upper()}}}"' in text
    built = {image["build"]["dockerfile"]: image["build"] for image in services().values() if "build" in image}
    assert built[f"docker/{name}"]["args"].keys() == {"VERSION", "REVISION"}


def services() -> dict[str, Any]:
    return dict(yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"])


def test_variables_of_the_composition_are_settings() -> None:
    own = [service for service in services().values() if service["image"].startswith("unet-service:")]
    assert len(own) == 2
    assert {name for service in own for name in service["environment"]} <= SETTINGS


def test_everything_that_runs_on_is_hardened() -> None:
    for name, service in services().items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert name == "training" or service["mem_limit"], name


def test_replicas_share_a_folder_of_jobs_that_their_user_may_write() -> None:
    for name in ("service", "service-gpu"):
        folder = services()[name]["environment"]["UNET_JOBS_DIR"]
        assert services()[name]["volumes"] == [f"jobs:{folder}"]
        # a new volume takes owner and mode of what lies there in the image
        dockerfile = (PROJECT / "docker" / "service.Dockerfile").read_text()
        assert f"install --directory --mode=0700 --owner=10001 --group=10001 {folder}\n" in dockerfile
    assert "jobs" in yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["volumes"]


def test_the_proxy_is_more_patient_than_the_service() -> None:
    text = (PROJECT / "docker" / "haproxy" / "haproxy.cfg").read_text()
    times = {name: int(seconds) for name, seconds in re.findall(r"timeout (client|server) +(\d+)s", text)}
    assert min(times["client"], times["server"]) > Settings().deadline_s
    assert int(services()["proxy"]["stop_grace_period"].removesuffix("s")) > times["server"]


def test_replicas_answer_until_the_proxy_has_noticed_that_they_leave() -> None:
    text = (PROJECT / "docker" / "haproxy" / "haproxy.cfg").read_text()
    (inter, fast, fall) = map(
        int, re.findall(r"check inter (\d+)ms fastinter (\d+)ms downinter \d+ms fall (\d+)", text)[0]
    )
    noticed_s = (inter + (fall - 1) * fast) / 1000
    assert noticed_s < 1
    assert services()["service"]["environment"]["UNET_DRAIN_DELAY_S"] > 2 * noticed_s + 1


def test_the_composition_waits_longer_than_the_service_may_take_to_stop() -> None:
    delay = services()["service"]["environment"]["UNET_DRAIN_DELAY_S"]
    grace = services()["service"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > delay + Settings().shutdown_grace_s
