"""The Indexed Job and the SLURM script: as they are written, they do every image once."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.batch.shard import parse_shard
from service.cli import main
from tests.docker.containers import HARDENED, PROJECT, docker
from tests.images import disc, png
from tests.kubernetes.manifests import quantity
from tests.packages import write_tiny_package

IMAGES = 9
SBATCH = PROJECT / "docker" / "unet-batch.sbatch"


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    write_tiny_package(tmp_path / "packages")
    (tmp_path / "images").mkdir()
    (tmp_path / "results").mkdir()
    for index in range(IMAGES):
        (tmp_path / "images" / f"{index}.png").write_bytes(png(disc(60 + index)))
    return tmp_path


def job() -> dict[str, Any]:
    return dict(yaml.safe_load((PROJECT / "docker" / "kubernetes" / "batch" / "job.yaml").read_text()))


def container() -> dict[str, Any]:
    (found,) = job()["spec"]["template"]["spec"]["containers"]
    return dict(found)


def volumes() -> list[dict[str, Any]]:
    return list(job()["spec"]["template"]["spec"]["volumes"])


def test_kustomize_takes_the_job_as_it_is() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    folder = PROJECT / "docker" / "kubernetes" / "batch"
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["spec"] == job()["spec"]


def test_large_images_fit_into_the_jobs_temporary_folder() -> None:
    """Their files have no name, so that the kubelet may see them on the disk alone."""
    (room,) = [quantity(volume["emptyDir"]["sizeLimit"]) for volume in volumes() if "emptyDir" in volume]
    environment = {entry["name"]: entry["value"] for entry in container()["env"]}
    assert int(environment["UNET_SPOOL_LIMIT_MB"]) << 20 < room
    assert room < quantity(container()["resources"]["limits"]["ephemeral-storage"])


def test_the_job_has_a_pod_for_each_shard_and_its_options_are_known(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, args = job()["spec"], container()["args"]
    (shard,) = [text.removeprefix("--shard=") for text in args if text.startswith("--shard=")]
    assert spec["completionMode"] == "Indexed"
    last = parse_shard(shard, {"JOB_COMPLETION_INDEX": str(spec["completions"] - 1)})
    assert last.count == spec["completions"]
    places = {"/images/**/*.tif": f"{workplace}/images/**/*.png", "--out=/results": f"--out={workplace}/results"}
    monkeypatch.setenv("UNET_MODELS_DIR", str(workplace / "packages"))
    monkeypatch.setenv("UNET_BACKEND", "cpu")
    for index in range(spec["completions"]):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        assert main([places.get(text, text) for text in args]) == 0
    written = re.findall(r"wrote (\d+) results?", capsys.readouterr().out)
    assert sum(map(int, written)) == IMAGES
    assert len(list((workplace / "results").glob("*_labels.tif"))) == IMAGES


def test_the_slurm_script_takes_its_share_of_an_array(workplace: Path) -> None:
    first, last = map(int, re.findall(r"--array=(\d+)-(\d+)", SBATCH.read_text())[0])
    tools = Path(sys.executable).parent
    for task in (first, last):
        environment = {
            **{name: value for name, value in os.environ.items() if name != "USER"},  # as where --export says so
            "PATH": f"{tools}:{os.environ['PATH']}",
            "TMPDIR": str(workplace),
            "UNET_MODELS_DIR": str(workplace / "packages"),
            "UNET_BACKEND": "cpu",
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_MIN": str(first),
            "SLURM_ARRAY_TASK_COUNT": str(last + 1 - first),
            "SLURM_CPUS_PER_TASK": "1",
        }
        done = subprocess.run(
            [SBATCH, f"{workplace}/images/*.png", workplace / "results", "--format=npy"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"shard {task - first}/{last + 1 - first}: wrote ")


def test_the_slurm_script_says_what_it_needs() -> None:
    done = subprocess.run([SBATCH, "/data"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: sbatch unet-batch.sbatch IMAGES RESULTS")


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pod_of_the_job_runs_in_the_hardened_image(image: str, workplace: Path) -> None:
    for folder in (workplace, workplace / "results", workplace / "images", workplace / "packages"):
        folder.chmod(0o777)  # pytest's folders are for their owner alone, the container's user is another
    options = [f"--volume={workplace / name}:/{name}{mode}" for name, mode in (("images", ":ro"), ("results", ""))]
    args = [text.replace(".tif", ".png") if "images" in text else text for text in container()["args"]]
    said = []
    for index in range(job()["spec"]["completions"]):
        environment = [f"--env=JOB_COMPLETION_INDEX={index}", "--env=UNET_MODELS_DIR=/packages"]
        packages = f"--volume={workplace / 'packages'}:/packages:ro"
        said.append(docker("run", "--rm", "--network=none", *HARDENED, *options, packages, *environment, image, *args))
    assert sum(int(line.split("wrote ")[1].split()[0]) for line in said) == IMAGES
    receipt = next((workplace / "results" / ".unet" / "receipts").iterdir())
    assert json.loads(receipt.read_text())["receipt"]["model"]["name"] == "tiny"
