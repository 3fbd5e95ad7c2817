"""Padded nets of other people: the context they need is measured where their package does not say it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from model.errors import UnsupportedPackage
from model.halo import with_measured_halo
from model.normalization import fit
from model.package import Package
from model.stitching import predict_tiled
from model.tiling import AxisGeometry, Geometry, plan_whole, plan_with_stride
from tests.packages import write_tiny_package

PADDED = AxisGeometry(minimum=16, step=8, shrink=0, halo=0, grid=8)


@dataclass
class PaddedNet:
    """Pools 8 x 8 blocks, then averages ``2 * reach + 1`` blocks, with zeros beyond the border, as padded nets do."""

    reach: int
    backend: str = "numpy"
    provider: str = "numpy"
    precision: str = "fp32"
    evidence: None = None

    def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        b, c, y, x = tiles_bcyx.shape
        blocks = tiles_bcyx.reshape(b, c, y // 8, 8, x // 8, 8).max(axis=(3, 5))
        mean = uniform_filter(blocks, size=(1, 1, 2 * self.reach + 1, 2 * self.reach + 1), mode="constant")
        spread = mean.repeat(8, axis=2).repeat(8, axis=3)
        return np.concatenate([-spread, spread], axis=1).astype(np.float32)


def padded_package(folder: Path, axis: AxisGeometry = PADDED) -> Package:
    return write_tiny_package(folder, geometry=Geometry(axis, axis))


@pytest.mark.parametrize("reach", [0, 1, 3, 12])
def test_the_measured_halo_is_the_reach_of_the_net(tmp_path: Path, reach: int) -> None:
    measured = with_measured_halo(PaddedNet(reach), padded_package(tmp_path))
    assert measured.spec.geometry.y.halo == measured.spec.geometry.x.halo == 8 * reach


def test_with_the_measured_halo_there_are_no_seams(tmp_path: Path) -> None:
    net = PaddedNet(2)
    spec = with_measured_halo(net, padded_package(tmp_path)).spec
    image_yxc = np.random.default_rng(0).random((100, 130, 1), dtype=np.float32)
    normalization = fit(spec.normalization, image_yxc)
    whole = predict_tiled(image_yxc, normalization, plan_whole((100, 130), spec.geometry), net.run)
    tiled = predict_tiled(image_yxc, normalization, plan_with_stride((100, 130), spec.geometry, (32, 24)), net.run)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


def test_a_net_that_sees_everything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedPackage, match="declare the halo"):
        with_measured_halo(PaddedNet(80), padded_package(tmp_path))


def test_a_fixed_size_that_hides_the_reach_is_refused(tmp_path: Path) -> None:
    package = padded_package(tmp_path, AxisGeometry(minimum=256, step=0, shrink=0, halo=0, grid=8))
    with pytest.raises(UnsupportedPackage, match="128 px"):
        with_measured_halo(PaddedNet(20), package)


def test_a_declared_context_is_believed(tmp_path: Path) -> None:
    package = padded_package(tmp_path, AxisGeometry(minimum=32, step=8, shrink=0, halo=4, grid=8))
    assert with_measured_halo(PaddedNet(3), package) is package
