"""What speed and mixed load are measured with: turns, children, rivals; never how fast anything is."""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from benchmarks import rivals
from benchmarks.halo_package import with_halo
from benchmarks.mixed_load import Load, mega, report, round_of
from benchmarks.padded_unet import PaddedUNet
from benchmarks.rivals import classic_size, legal_edge
from benchmarks.serving import Row, row
from benchmarks.speed import Measured, lines
from benchmarks.turns import Ratio, median_s, orders, ratio, take_turns
from benchmarks.worker import LeftOut, working
from model.normalization import fit
from model.package import ZOO, Package, read_package
from model.session import SessionOptions, open_session
from model.stitching import predict_tiled
from model.tiling import plan_whole, valid_unet_geometry
from model.unet import UNet
from service.bench import blobs
from tests.packages import write_tiny_package


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_everyone_comes_first_as_often_and_runs_once_in_each_turn(count: int) -> None:
    names = [f"n{index}" for index in range(count)]
    found = list(orders(names, 2 * count))
    assert all(sorted(order) == names for order in found)
    assert Counter(order[0] for order in found) == dict.fromkeys(names, 2)


def test_three_come_after_each_other() -> None:
    pairs = {pair for order in orders("abc", 6) for pair in pairwise(order)}
    assert pairs == {(one, other) for one in "abc" for other in "abc" if one != other}


def test_ratios_are_taken_turn_by_turn() -> None:
    # the machine halves its speed in the second turn, and both feel it
    turns = [{"ours": 1.0, "theirs": 3.0}, {"ours": 2.0, "theirs": 6.0}, {"ours": 1.0, "theirs": 4.0}]
    assert ratio(turns, "theirs", "ours") == Ratio(3.0, 3.0, 4.0)
    assert median_s(turns, "ours") == 1.0


def test_each_turn_asks_everyone_once() -> None:
    asked: list[str] = []

    def run(name: str, seconds: float) -> float:
        asked.append(name)
        return seconds

    turns = take_turns({"a": lambda: run("a", 1.0), "b": lambda: run("b", 2.0)}, 2)
    assert turns == [{"a": 1.0, "b": 2.0}] * 2
    assert asked == ["a", "b", "b", "a"]


def test_a_table_names_ratios_of_every_service_to_every_rival() -> None:
    services = [Measured("cpu:fp32", "4 tiles", lambda: 0.0)]
    others = [Measured(name, name, lambda: 0.0) for name in ("plain", "monai")]
    table = lines(services, others, [{"cpu:fp32": 2.0, "plain": 3.0, "monai": 9.0}])
    assert table[0].split() == ["seconds", "plain", "takes", "monai", "takes"]
    assert table[1].split() == ["cpu:fp32", "2.000", "1.50x", "(1.50-1.50)", "4.50x", "(4.50-4.50)", "4", "tiles"]
    assert [line.split() for line in table[2:]] == [["plain", "3.000"], ["monai", "9.000"]]
    assert lines([], [], []) == ["nothing is left to measure"]


def test_a_row_is_a_backend_and_a_precision() -> None:
    assert row("openvino:int8") == Row("openvino", "int8")
    for text in ("openvino", "openvino:", ":int8"):
        with pytest.raises(argparse.ArgumentTypeError, match="backend:precision"):
            row(text)


def test_a_round_has_few_large_images_and_many_small_ones() -> None:
    assert Counter(round_of([2048, 256, 1024, 512])) == {256: 8, 512: 4, 1024: 2, 2048: 1}
    assert round_of([300, 1000, 1000]) == [300, 300, 300, 1000]
    assert mega([1000, 2000]) == 5.0


def test_a_report_of_load() -> None:
    load = Load(10.0, [(1000, 4.0), (2000, 8.0), (1000, 2.0)], Counter({503: 2}))
    assert load.mpx_per_s == pytest.approx(0.6)
    assert load.percentiles_ms()[0] == 4000
    assert load.percentiles_ms(1000)[0] == 3000
    text = "\n".join(report(load, 0.5, 0.7))
    assert "ratio    1.000 (1.200 and 0.857)" in text
    assert "2 with status 503" in text
    assert "2 of 1000 px, 1 of 2000 px" in text


def test_a_rival_answers_whenever_it_is_asked(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    with rivals.starting("plain", package.path, 64, [32]) as worker:
        assert "ONNX Runtime" in worker.what
        assert all(worker.run() > 0 for _ in range(2))


def test_a_rival_that_cannot_run_is_left_out_with_its_reason(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)  # a net without a 3x3 convolution has no width
    with (
        pytest.raises(LeftOut, match=r"no 3x3 convolution|not installed"),
        rivals.starting("monai", package.path, 64, [32]),
    ):
        pass


def test_a_child_that_ends_early_is_left_out_with_its_exit_code() -> None:
    with pytest.raises(LeftOut, match="exit code 1"), working("benchmarks.no_such_module", [], {}):
        pass


def test_padded_net_equals_the_classic_one_inside() -> None:
    torch.manual_seed(0)
    net = UNet(base_width=4, depth=2).eval()
    image = torch.rand(1, 1, 128, 128)
    margin = valid_unet_geometry(2).y.margin
    start, stop = 10, 118  # two rows less are pooled in fours: there the poolings of both lie on one grid
    with torch.inference_mode():
        classic = net(image[..., start:stop, start:stop])
        padded = PaddedUNet(net)(image)
    assert padded.shape == (1, 2, 128, 128)
    inner = slice(start + margin, stop - margin)
    torch.testing.assert_close(padded[..., inner, inner], classic)


def test_the_padded_output_of_a_package_is_its_own_amid_zeros(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    other = with_halo(package, tmp_path / "halo")
    axis = other.spec.geometry.y
    assert (axis.shrink, axis.halo) == (0, package.spec.geometry.y.margin)
    assert read_package(other.path).spec.geometry == other.spec.geometry
    assert with_halo(other, tmp_path / "again") is other
    tile = np.random.default_rng(0).random((1, 1, 34, 42), dtype=np.float32)
    ours, theirs = (
        ort.InferenceSession(found.weights(), providers=["CPUExecutionProvider"]).run(None, {"image": tile})[0]
        for found in (package, other)
    )
    np.testing.assert_array_equal(theirs, np.pad(ours, ((0, 0), (0, 0), (axis.halo,) * 2, (axis.halo,) * 2)))


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::UserWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
def test_bioimageio_does_the_same_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bioimageio.core import PredictionPipeline

    package = write_tiny_package(tmp_path)
    image_yxc = blobs(100)[..., np.newaxis]
    seen = []
    predict = PredictionPipeline.predict_sample_with_fixed_blocking

    def watched(*args: object, **kwargs: object) -> object:
        seen.append(predict(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(PredictionPipeline, "predict_sample_with_fixed_blocking", watched)
    job = rivals.bioimageio(rivals.Task(package, image_yxc, (34, 50, 4000)))
    assert sorted(job.facts["tried_s"]) == [34, 50]
    job.run()
    theirs = seen[-1].members["probabilities"].data.to_numpy()[0]
    np.testing.assert_allclose(inside(theirs), inside(prediction(package, image_yxc)), atol=1e-5)


def inside(plane_cyx: np.ndarray) -> np.ndarray:
    """Without the border, which bioimageio.core mirrors in another way."""
    return plane_cyx[:, 8:-8, 8:-8]


def prediction(package: Package, image_yxc: np.ndarray) -> np.ndarray:
    plan = plan_whole((image_yxc.shape[0], image_yxc.shape[1]), package.spec.geometry)
    session = open_session(package, SessionOptions(backend="cpu"))
    return predict_tiled(image_yxc, fit(package.spec.normalization, image_yxc), plan, session.run)


def test_width_and_depth_are_read_off_a_shipped_package() -> None:
    assert classic_size(read_package(ZOO / "nuclei").weights()) == (32, 4)


def test_the_paper_s_tile_is_legal_for_its_net_and_near_it_for_others() -> None:
    assert legal_edge(valid_unet_geometry(4).y, 572) == 572
    assert legal_edge(valid_unet_geometry(4, 2).y, 572) == 568
    assert legal_edge(valid_unet_geometry(4).y, 100) == 188
