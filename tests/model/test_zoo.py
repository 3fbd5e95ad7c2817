"""The packages that ship: sound, fast to check, without seams on every backend that runs here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import model
from model.labels import instance_labels
from model.normalization import fit
from model.package import read_package
from model.session import Backend, SessionOptions, open_session, self_test
from model.stitching import predict_tiled
from model.tiling import plan_whole, plan_with_stride
from training.scene import NucleiScene
from training.synthetic import render_nuclei

ZOO = Path(model.__file__).parent / "zoo"
PACKAGES = sorted(path.parent for path in ZOO.glob("*/rdf.yaml"))


def test_a_package_ships() -> None:
    assert [path.name for path in PACKAGES] == ["nuclei"]


@pytest.fixture(scope="module", params=["cpu", "openvino"])
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.name)
def test_the_golden_pair_is_reproduced(path: Path, backend: Backend) -> None:
    package = read_package(path)
    assert self_test(open_session(package, SessionOptions(backend=backend)), package) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.name)
@pytest.mark.parametrize(("stride", "batch"), [((128, 128), 1), ((128, 128), 3), ((96, 208), 2), ((320, 64), 1)])
def test_tiled_is_bit_for_bit_untiled(path: Path, backend: Backend, stride: tuple[int, int], batch: int) -> None:
    package = read_package(path)
    session = open_session(package, SessionOptions(backend=backend))
    image_yx, _ = render_nuclei(NucleiScene(size_yx=(300, 330), bit_depth=16), seed=3)
    image_yxc = image_yx[..., np.newaxis]
    normalization = fit(package.spec.normalization, image_yxc)
    size_yx, geometry = (300, 330), package.spec.geometry
    whole = predict_tiled(image_yxc, normalization, plan_whole(size_yx, geometry), session.run)
    tiled = predict_tiled(image_yxc, normalization, plan_with_stride(size_yx, geometry, stride), session.run, batch)
    assert np.array_equal(tiled, whole)


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.name)
def test_the_card_says_what_a_card_must(path: Path) -> None:
    spec = read_package(path).spec
    assert spec.license
    assert spec.cite
    for fact in ("data", "images", "recipe", "command", "validation"):
        assert spec.facts[fact], f"the card of {spec.name} lacks {fact}"


def test_nuclei_finds_most_synthetic_nuclei() -> None:
    """Another kind of image than it was trained on: synthetic, 16 bit."""
    package = read_package(ZOO / "nuclei")
    session = open_session(package, SessionOptions(backend="cpu"))
    image_yx, truth = render_nuclei(NucleiScene(size_yx=(384, 384), bit_depth=16), seed=5)
    image_yxc = image_yx[..., np.newaxis]
    plan = plan_whole((384, 384), package.spec.geometry)
    probabilities = predict_tiled(image_yxc, fit(package.spec.normalization, image_yxc), plan, session.run)
    labels = instance_labels(probabilities, package.spec.label_rule)
    overlap = np.count_nonzero((labels > 0) & (truth > 0)) / np.count_nonzero((labels > 0) | (truth > 0))
    assert overlap > 0.8
    assert 0.7 < labels.max() / truth.max() < 1.3
