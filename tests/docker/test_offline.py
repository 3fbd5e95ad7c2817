"""Machines without a network: from a folder of wheels, and from a saved image, as docs/operations.md has it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.docker.containers import HARDENED, PROJECT, docker
from tests.images import disc, png
from tests.packages import write_tiny_package

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

PYTHON = "python:3.11-slim-bookworm"
SEGMENT = "segment /work/images -o /work/results"


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    for name in ("images", "results", "wheels"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)  # the container's user is another
    tmp_path.chmod(0o755)
    (tmp_path / "images" / "a.png").write_bytes(png(disc()))
    write_tiny_package(tmp_path / "packages")
    return tmp_path


def commands(heading: str) -> list[str]:
    """Commands of one section of the guide, continued lines joined."""
    guide = (PROJECT / "docs" / "operations.md").read_text()
    section = re.split(r"\n##+ ", guide.split(f"### {heading}\n")[1])[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines() if not line.startswith("#")]


def assert_segmented(workplace: Path) -> None:
    mask_yx = np.asarray(Image.open(workplace / "results" / "a_mask.png"))
    np.testing.assert_array_equal(mask_yx, np.where(disc() > 110, 255, 0))


def test_a_folder_of_wheels_is_enough(engine: None, workplace: Path) -> None:
    download, build, *install = commands("A folder of wheels")
    for command in (download, build):
        line = command.replace("wheels", str(workplace / "wheels")).replace("pip ", f"{sys.executable} -m pip -q ", 1)
        done = subprocess.run(line, shell=True, cwd=PROJECT, capture_output=True, text=True, check=False)  # noqa: S602
        assert done.returncode == 0, done.stderr[-2000:]
    script = " && ".join([*install, f"/opt/unet/bin/unet-service {SEGMENT}"])
    volumes = [f"--volume={workplace}:/work", f"--volume={workplace / 'packages'}:/packages:ro"]
    # bytecode would be written for one run alone
    environment = ["--env=UNET_MODELS_DIR=/packages", "--env=UNET_CACHE_DIR=none", "--env=PIP_COMPILE=no"]
    docker("run", "--rm", "--network=none", *volumes, *environment, "--workdir=/work", PYTHON, "sh", "-c", script)
    assert_segmented(workplace)


def test_a_saved_image_is_enough(image: str, workplace: Path) -> None:
    save, load = (
        command.replace("unet-service.tar", str(workplace / "image.tar")) for command in commands("A saved image")
    )
    docker("tag", image, "unet-service:saved")
    try:
        for command in (save.replace("unet-service:cpu", "unet-service:saved"), "docker rmi unet-service:saved", load):
            done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)  # noqa: S602
            assert done.returncode == 0, done.stderr
        volumes = [f"--volume={workplace}:/work", f"--volume={workplace / 'packages'}:/packages:ro"]
        options = ["--network=none", *HARDENED, *volumes, "--env=UNET_MODELS_DIR=/packages"]
        docker("run", "--rm", *options, "unet-service:saved", *SEGMENT.split())
    finally:
        docker("rmi", "--force", "unet-service:saved")
    assert_segmented(workplace)
