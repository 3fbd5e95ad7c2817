"""``scale=auto``: the ratio of pixel sizes, in whatever way it is asked for; refused where one of them is not known."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.package import read_package
from service.cli import main
from service.settings import Settings
from tests.app_client import AppClient, ready_app
from tests.images import disc, npy, tiff
from tests.packages import edit, write_tiny_package
from tests.problems import assert_problem

IMAGE = np.tile(disc(48, 48, 9), (2, 3))
TRAINED_UM = 0.5


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny``, trained on pixels of 0.5 um, and ``unsized``, which says neither on which nor on what objects."""
    folder = tmp_path_factory.mktemp("packages")

    def without_size(rdf: dict[str, Any]) -> None:
        for axis in (*rdf["inputs"][0]["axes"], *rdf["outputs"][0]["axes"]):
            axis.pop("unit", None)
            axis.pop("scale", None)
        del rdf["config"]["unet_service"]["object_diameter_px"]

    write_tiny_package(folder)
    edit(write_tiny_package(folder, name="unsized"), without_size)
    assert read_package(folder / "unsized").spec.pixel_size_um is None
    return folder


@pytest.fixture(scope="module")
def client(packages: Path) -> Iterator[AppClient]:
    with ready_app(Settings(models_dir=str(packages), backend="cpu", threads=1, default_model="tiny")) as running:
        yield running


def answered(client: AppClient, image: bytes, **query: object) -> tuple[bytes, dict[str, Any]]:
    answer = client.segment(image, params={"format": "npy", **query})
    assert answer.status_code == 200, answer.text
    return answer.content, json.loads(answer.headers["x-unet-receipt"])


@pytest.mark.parametrize("output", ["mask", "labels", "probabilities"])
@settings(max_examples=8, deadline=None)
@given(height_um=st.floats(0.1, 3), width_um=st.floats(0.1, 3))
def test_auto_is_the_ratio_of_pixel_sizes_byte_for_byte(
    client: AppClient, output: str, height_um: float, width_um: float
) -> None:
    size = {"pixel_size": f"{height_um!r},{width_um!r}"}
    found, receipt = answered(client, npy(IMAGE), output=output, scale="auto", **size)
    scale = receipt["output"]["scale"]
    assert scale == pytest.approx((height_um * width_um) ** 0.5 / TRAINED_UM, rel=1e-3)
    assert answered(client, npy(IMAGE), output=output, scale=scale, **size)[0] == found
    (note,) = [note for note in receipt["input"]["notes"] if note.startswith("scale=auto took ")]
    assert note.endswith("um, those that tiny@1.0.0 was trained on of 0.5 x 0.5 um")


def test_the_files_own_pixel_size_is_taken_and_the_parameter_replaces_it(client: AppClient) -> None:
    image = tiff(IMAGE, imagej=True, resolution=(4.0, 4.0), metadata={"unit": "um"})
    assert answered(client, image, scale="auto")[1]["output"]["scale"] == 0.5
    assert answered(client, image, scale="auto", pixel_size="1")[1]["output"]["scale"] == 2
    assert "scale" not in answered(client, image)[1]["output"], "nothing is scaled unasked"


@pytest.mark.parametrize("auto", ["AUTO", "Auto"])
def test_auto_may_be_written_in_any_case(client: AppClient, auto: str) -> None:
    asked = {"scale": auto, "pixel_size": "0.25"}
    assert answered(client, npy(IMAGE), **asked)[1]["output"]["scale"] == 0.5
    assert client.get("/plan", params={"size": "96x144", **asked}).status_code == 200
    tensor = {"name": "image", "shape": list(IMAGE.shape), "datatype": "UINT8", "data": IMAGE.ravel().tolist()}
    answer = client.request("POST", "/v2/models/tiny/infer", json={"inputs": [tensor], "parameters": asked})
    assert answer.status_code == 200, answer.text


def test_pixels_of_the_size_that_the_package_knows_are_left_as_they_are(client: AppClient) -> None:
    found, receipt = answered(client, npy(IMAGE), scale="auto", pixel_size="0.5")
    assert receipt["output"]["scale"] == 1
    assert answered(client, npy(IMAGE))[0] == found


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            {"model": "unsized"},
            "scale=auto lacks the size of the image's pixels, and unsized@1.0.0 does not say how large the objects are "
            "that it knows; give scale as a number (0.5 where",
        ),
        (
            {"model": "unsized", "pixel_size": "1"},
            "scale=auto lacks the size of the pixels that unsized@1.0.0 was trained on, and unsized@1.0.0 does not say",
        ),
        ({"pixel_size": "0.01"}, "scale=auto would be 0.02, the limits are 0.0625 and 16: the image's pixels are of"),
        ({"pixel_size": "9"}, "scale=auto would be 18, the limits are"),
    ],
)
def test_what_tells_no_scale_is_refused_in_requests_and_plans(
    client: AppClient, query: dict[str, str], said: str
) -> None:
    for answer in (
        client.segment(npy(IMAGE), params={"scale": "auto", **query}),
        client.get("/plan", params={"size": "96x144", "scale": "auto", **query}),
    ):
        assert said in assert_problem(answer, 422, "invalid-parameter")["detail"]


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ({"size": "20000x20000"}, "invalid-parameter"),
        ({"size": "5000x5000", "pixel_size": "2"}, "too-large-for-memory"),
        ({"size": "400x400", "timeout": "0.000001"}, "deadline-exceeded"),
    ],
    ids=["pixels", "memory", "time"],
)
def test_what_is_refused_at_the_scale_taken_tells_it(packages: Path, query: dict[str, str], kind: str) -> None:
    """The number is not the caller's; a number of his gets no word on auto."""
    asked = {"pixel_size": "1", **query}
    scale = f"{float(asked['pixel_size']) / TRAINED_UM:g}"
    limits = Settings(
        models_dir=str(packages),
        backend="cpu",
        default_model="tiny",
        memory_budget_mb=512,
        spool_limit_mb=1,
        max_pixels=500_000_000,
    )
    with ready_app(limits) as running:
        for own, told in (("auto", 1), (scale, 0)):
            answer = running.get("/plan", params={**asked, "scale": own}).json()
            problem = answer.get("refusal", answer)
            assert problem["type"] == f"/problems/{kind}"
            assert problem["detail"].endswith(f"; scale=auto took {scale}, scale= with a number replaces it") == told
            assert problem["detail"].count("auto") == told


def test_a_plan_with_a_pixel_size_is_that_of_the_ratio(client: AppClient) -> None:
    def planned(**query: object) -> dict[str, Any]:
        plan: dict[str, Any] = client.get("/plan", params={"size": "900x1200", **query}).json()
        return {name: plan[name] for name in ("tiles", "input_yx", "stride_yx", "memory_bytes")}

    assert planned(scale="auto", pixel_size="0.25") == planned(scale="0.5") != planned()


def test_tensors_are_scaled_the_same_way(client: AppClient) -> None:
    parameters = {"scale": "auto", "pixel_size": "0.25"}
    tensor = {"name": "image", "shape": list(IMAGE.shape), "datatype": "UINT8", "data": IMAGE.ravel().tolist()}
    body = {"inputs": [tensor], "outputs": [{"name": "labels"}], "parameters": parameters}
    (found,) = client.request("POST", "/v2/models/tiny/infer", json=body).json()["outputs"]
    expected: NDArray[Any] = np.load(io.BytesIO(answered(client, npy(IMAGE), output="labels", **parameters)[0]))
    assert found["data"] == expected.ravel().tolist()


def test_a_batch_takes_the_scale_of_each_image(packages: Path, tmp_path: Path) -> None:
    for name, per_um in (("fine", 4.0), ("coarse", 2.0)):
        (tmp_path / f"{name}.tif").write_bytes(
            tiff(IMAGE, imagej=True, resolution=(per_um, per_um), metadata={"unit": "um"})
        )
    arguments = ["segment", str(tmp_path), "--out", str(tmp_path / "out"), "--models-dir", str(packages)]
    assert main([*arguments, "--model", "tiny", "--backend", "cpu", "--format", "rle", "--scale", "auto"]) == 0
    scales = {
        path.stem.removesuffix("_mask"): json.loads(path.read_text())["receipt"]["output"]["scale"]
        for path in (tmp_path / "out").glob("*_mask.json")
    }
    assert scales == {"fine": 0.5, "coarse": 1}
