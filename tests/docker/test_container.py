"""The image for CPUs, built and run hardened."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.docker.containers import HARDENED, Container, docker, started
from tests.images import disc, npy, png

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

MODELS_DIR = "--env=UNET_MODELS_DIR=/packages"
PUBLISHED = "--publish=127.0.0.1:0:8000"


@pytest.fixture(scope="module")
def service(image: str, packages: str) -> Iterator[Container]:
    """A healthy container; every upload goes through its temporary folder."""
    with started(image, *HARDENED, packages, MODELS_DIR, PUBLISHED, "--env=UNET_SPOOL_MB=0") as container:
        container.wait_for("healthy")
        yield container


def test_the_service_has_no_privileges(service: Container) -> None:
    status = dict(line.split(":\t") for line in service.run("cat", "/proc/1/status").splitlines())
    assert status["Uid"].split() == ["10001"] * 4
    assert status["Gid"].split() == ["10001"] * 4
    assert int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_its_root_file_system_cannot_be_written(service: Container) -> None:
    options = [
        line.split()[3].split(",")[0] for line in service.run("cat", "/proc/mounts").splitlines() if " / " in line
    ]
    assert options == ["ro"]


def test_an_image_comes_back_as_a_mask_of_its_size(service: Container) -> None:
    answer = httpx.post(f"{service.url}/segment", content=png(disc(97, 123)))
    assert answer.status_code == 200, answer.text
    mask = np.asarray(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(mask, np.where(disc(97, 123) > 110, 255, 0))


def test_openvino_serves_where_no_backend_is_named(service: Container) -> None:
    answer = httpx.post(f"{service.url}/segment", content=png(disc()))
    assert "OpenVINO" in answer.headers["X-UNet-Receipt"]


def test_nothing_needs_the_network(image: str, packages: str) -> None:
    with started(image, *HARDENED, packages, MODELS_DIR, "--network=none") as container:
        container.wait_for("healthy")


@pytest.mark.parametrize("backend", ["cpu", "openvino"])
def test_both_runtimes_pass_the_self_test(image: str, packages: str, backend: str) -> None:
    command = ("check", "/packages/tiny", "--backend", backend)
    assert "self-test" in docker("run", "--rm", *HARDENED, packages, image, *command)


def test_a_service_without_packages_is_unhealthy(image: str) -> None:
    probe = "--health-start-period=1ms", "--health-interval=1s", "--health-retries=1"
    with started(image, *HARDENED, "--tmpfs=/packages", MODELS_DIR, *probe) as container:
        container.wait_for("unhealthy")


def test_sigterm_answers_the_request_in_work_and_ends_with_0(image: str, packages: str) -> None:
    # one CPU thread works on these pixels for a second or so
    upload = npy(np.zeros((8000, 8000), np.uint8))
    with (
        started(image, *HARDENED, packages, MODELS_DIR, PUBLISHED, "--env=UNET_THREADS=1") as container,
        ThreadPoolExecutor() as pool,
    ):
        container.wait_for("healthy")
        url = container.url
        answer = pool.submit(httpx.post, f"{url}/segment", content=upload, timeout=120)
        while "unet_in_flight 1.0" not in httpx.get(f"{url}/metrics").text:
            assert not answer.done(), answer.result().text
            time.sleep(0.01)
        docker("stop", "--time=100", container.name)
        assert answer.result().status_code == 200
        assert container.inspect()["State"]["ExitCode"] == 0


@pytest.mark.parametrize("module", ["torch", "onnx", "bioimageio", "training", "pip", "pytest"])
def test_the_image_does_without(service: Container, module: str) -> None:
    service.run("python", "-c", f"import importlib.util as i, sys; sys.exit(i.find_spec({module!r}) is not None)")


@pytest.mark.parametrize("module", ["json", "service.app", "scipy.special", "model.session"])
def test_bytecode_is_in_the_image(service: Container, module: str) -> None:
    script = f"import importlib.util as i, os, sys; sys.exit(not os.path.exists(i.find_spec({module!r}).cached))"
    service.run("python", "-c", script)


def test_the_image_is_small_and_says_what_it_is(image: str) -> None:
    (facts,) = json.loads(docker("image", "inspect", image))
    assert facts["Size"] < 1_000_000_000
    labels = facts["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.revision"] == "abc"
