"""Another scale for the net: objects are found that are too large for it, in the image's own pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.label_rule import LabelRule
from model.normalization import ScaleRange, fit
from service.engine.images.scaling import scaled_back, scaled_image, scaled_size, scaling_work_bytes
from service.engine.images.spool import Spool, SpooledArray
from service.engine.stages.forecast import imagined
from service.settings import Settings
from tests.app_client import AppClient, ready_app
from tests.images import disc, npy, tiff
from tests.packages import write_tiny_package
from training.synthetic import NucleiScene, render_nuclei

IMAGE = np.tile(disc(64, 64), (2, 3))  # 6 discs


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    folder = tmp_path_factory.mktemp("packages")
    write_tiny_package(folder, label_rule=LabelRule(min_area_px=300))
    settings = Settings(models_dir=str(folder), backend="cpu", threads=1, max_pixels=16_000_000, memory_budget_mb=192)
    with ready_app(settings) as running:
        yield running


def array(client: AppClient, image: NDArray[Any], **options: object) -> NDArray[Any]:
    answer = client.segment(npy(image), params={"format": "npy", **options})
    assert answer.status_code == 200, answer.text
    found: NDArray[Any] = np.load(io.BytesIO(answer.content))
    return found


@pytest.mark.parametrize("output", ["mask", "labels", "probabilities"])
@pytest.mark.parametrize("scale", [0.37, 0.5, 2.0])
def test_a_result_has_the_image_size_and_its_objects_at_any_scale(client: AppClient, output: str, scale: float) -> None:
    image = IMAGE[:-5, :-3]
    own, scaled = (array(client, image, output=output, scale=factor, min_area=100) for factor in (1, scale))
    assert (scaled.shape, scaled.dtype) == (own.shape, own.dtype)
    if output == "probabilities":
        assert np.abs(scaled - own).mean() < 0.03
    else:
        assert np.mean((scaled > 0) != (own > 0)) < 0.03
    if output == "labels":
        assert scaled.max() == own.max() == 6


def test_the_scale_one_is_the_images_own_and_stands_in_no_receipt(client: AppClient) -> None:
    plain, one = (client.segment(npy(IMAGE), params=params) for params in ({}, {"scale": "1"}))
    assert plain.content == one.content
    assert "scale" not in one.headers["X-UNet-Receipt"]


def test_least_areas_of_the_package_are_pixels_of_its_net_and_those_asked_for_of_the_image(client: AppClient) -> None:
    large = np.kron(IMAGE, np.ones((2, 2), dtype=IMAGE.dtype))  # discs of four times the area
    small = np.kron(disc(16, 16, 5), np.ones((2, 2), dtype=IMAGE.dtype))  # some 310 px, 78 for the net
    large[: small.shape[0], : small.shape[1]] = np.maximum(large[: small.shape[0], : small.shape[1]], small)
    assert array(client, large, output="labels").max() == 7
    assert array(client, large, output="labels", scale=0.5).max() == 6
    assert array(client, large, output="labels", scale=0.5, min_area=100).max() == 7


def test_a_plan_and_the_receipt_say_the_scale(client: AppClient) -> None:
    half, own = (
        client.get("/plan", params={"size": "800x600", "output": "labels", "scale": scale}).json() for scale in (0.5, 1)
    )
    assert half["size_yx"] == own["size_yx"] == [800, 600]
    assert half["compute_seconds"] < own["compute_seconds"]
    assert half["memory_bytes"] > own["memory_bytes"]
    receipt = client.segment(npy(IMAGE), params={"format": "rle", "scale": 0.5}).json()["receipt"]
    assert receipt["output"]["scale"] == 0.5
    assert receipt["input"]["size_yx"] == list(IMAGE.shape)


@pytest.mark.parametrize(
    ("scale", "status", "said"),
    [
        (0.01, 422, "scale is '0.01'"),
        (17, 422, "scale is '17'"),
        ("nan", 422, "scale is 'nan'"),
        (16, 422, "scale 16 makes 3072 x 6144 = 18874368 pixels of the image, the limit is 16000000"),
    ],
)
def test_an_impossible_scale_is_explained(client: AppClient, scale: object, status: int, said: str) -> None:
    answer = client.segment(
        npy(np.tile(IMAGE, (1, 1)) if scale != 16 else np.zeros((192, 384), np.uint8)), params={"scale": str(scale)}
    )
    assert answer.status_code == status
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("output", ["mask", "labels", "probabilities"])
def test_beyond_memory_it_goes_through_files_to_the_same_answer(client: AppClient, output: str) -> None:
    params = {"format": "npy", "output": output, "scale": 0.625}
    tile = disc(64, 64)
    answers = []
    for repeated, on_disk in (((10, 11), False), ((60, 62), True)):
        height, width = (64 * count for count in repeated)
        plan = client.get("/plan", params={"size": f"{height}x{width}", "output": output, "scale": 0.625}).json()
        assert bool(plan["disk_bytes"]) == on_disk
        image = tiff(np.tile(tile, repeated), tile=(256, 256), compression="zlib")
        answer = client.segment(image, params=params)
        assert answer.status_code == 200, answer.text
        answers.append(np.load(io.BytesIO(answer.content)))
    small, large = (found > 0 if output == "labels" else found.astype(float) for found in answers)
    corner = (..., slice(0, 500), slice(0, 500))
    np.testing.assert_allclose(large[corner], small[corner], atol=1e-3)


def test_what_scaling_takes_too_much_for_is_told_to_scale_less(client: AppClient) -> None:
    params = {"output": "probabilities", "scale": "16", "format": "npy"}
    plan = client.get("/plan", params={"size": "62x1000", "output": "probabilities", "scale": "16"}).json()
    answer = client.segment(npy(np.zeros((62, 1000), np.uint16)), params=params)
    assert answer.status_code == plan["refusal"]["status"] == 413
    for problem in (answer.json(), plan["refusal"]):
        assert problem["detail"].endswith("or send the image in parts, or ask for a scale nearer to 1 than 16")
    plain = client.get("/plan", params={"size": "62x1000", "output": "probabilities"}).json()
    assert plain["refusal"] is None


def test_a_band_is_charged_for_channels_on_the_way_to_the_net_and_for_classes_back() -> None:
    grey, colour = (imagined((8192, 8192), 1, channels) for channels in (1, 3))
    assert scaling_work_bytes(grey, 1 / 16, 2) == scaling_work_bytes(grey, 1 / 16, 1)
    assert scaling_work_bytes(colour, 1 / 16, 2) == 3 * scaling_work_bytes(grey, 1 / 16, 2)
    assert scaling_work_bytes(colour, 16, 1) == scaling_work_bytes(grey, 16, 1)
    assert scaling_work_bytes(grey, 16, 2) == 2 * scaling_work_bytes(grey, 16, 1)


def resampled(planes_cyx: NDArray[Any], size_yx: tuple[int, int]) -> NDArray[np.float32]:
    result = np.empty((len(planes_cyx), *size_yx), dtype=np.float32)
    scaled_back(planes_cyx, lambda band_cyx: band_cyx, result)
    return result


def test_planes_are_resampled_about_their_centres_and_keep_their_mean() -> None:
    ramp = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    np.testing.assert_allclose(resampled(ramp, (3, 4)), ramp)
    doubled = resampled(ramp, (6, 8))
    np.testing.assert_allclose(doubled[0, 2, 2:6], [3.75, 4.25, 4.75, 5.25])
    assert resampled(np.kron(ramp, np.ones((1, 5, 5))), (3, 4)).mean() == pytest.approx(ramp.mean())
    assert np.ptp(resampled(np.full((2, 5, 7), 0.3), (50, 3))) < 1e-6
    assert [scaled_size((1, 1000), scale) for scale in (None, 0.0625, 1.5)] == [(1, 1000), (1, 62), (2, 1500)]


@pytest.mark.parametrize("size_yx", [(300, 200), (37, 41), (1, 1), (1300, 7), (217, 1000)])
def test_bands_are_those_of_the_whole(size_yx: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    plane = np.random.default_rng(0).random((217, 133)).astype(np.float32)
    whole = np.asarray(Image.fromarray(plane).resize(size_yx[::-1], Image.Resampling.BILINEAR))
    for band_px in (1, 1000, 1 << 20):
        monkeypatch.setattr("service.engine.images.scaling._BAND_PX", band_px)
        np.testing.assert_allclose(resampled(plane[np.newaxis], size_yx)[0], whole, atol=1e-6)


@pytest.mark.slow
def test_nuclei_six_times_too_large_are_found_at_their_scale() -> None:
    scene = NucleiScene(size_yx=(160, 160), bit_depth=16)
    image, labels = render_nuclei(scene, 3)
    large = np.round(resampled(image[np.newaxis].astype(np.float32), (960, 960))[0]).astype(np.uint16)
    settings = Settings(backend="cpu", threads=1, default_model="nuclei", cache_dir="none")
    with ready_app(settings) as running:
        expected = array(running, image, output="labels")
        scaled = array(running, large, output="labels", scale=1 / 6)
    assert expected.max() == pytest.approx(labels.max(), abs=3)
    assert scaled.max() == pytest.approx(expected.max(), abs=1)
    foreground = np.kron(expected > 0, np.ones((6, 6), dtype=bool))
    assert np.mean((scaled > 0) == foreground) > 0.97


def test_a_part_is_scaled_as_if_it_were_the_whole_and_is_read_from_a_file_by_bands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size, part = 1500, (slice(20, 1470), slice(300, 1300))
    image = np.random.default_rng(0).integers(0, 60_000, (size, size, 1)).astype(np.uint16)
    normalization = fit((ScaleRange(),), image)
    spooled = Spool(None).array(image.shape, image.dtype)
    spooled[:] = image
    touched: list[int] = []
    real = SpooledArray._touch

    def touch(self: SpooledArray, read: NDArray[Any]) -> None:
        touched.append(len(read))
        real(self, read)

    monkeypatch.setattr(SpooledArray, "_touch", touch)
    whole, parted = (np.zeros((90, 62, 1), np.float32) for _ in range(2))
    scaled_image(image[part], normalization, whole)
    scaled_image(spooled, normalization, parted, part)
    assert np.array_equal(whole, parted)
    assert whole.any()
    assert max(touched) < 150
    assert sum(touched) >= 1450
