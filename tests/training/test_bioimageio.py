"""bioimage.io's own software tests our packages, and gets from them what our service gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import model
from model.normalization import ScaleRange, Step, ZeroMeanUnitVariance, fit
from model.package import read_package
from model.session import SessionOptions, open_session
from model.unet import UNet
from tests.training.exporting import LIBRARY_WARNINGS, export
from training.scene import NucleiScene
from training.synthetic import render_nuclei

pytestmark = [pytest.mark.slow, LIBRARY_WARNINGS]

SHIPPED = sorted(path.parent for path in (Path(model.__file__).parent / "zoo").glob("*/rdf.yaml"))
EXPORTED: dict[str, tuple[Step, ...]] = {
    "exported-percentiles": (ScaleRange(min_percentile=1, max_percentile=99.8),),
    "exported-variance": (ZeroMeanUnitVariance(),),
}


def picture(size_yx: tuple[int, int], seed: int) -> NDArray[np.uint16]:
    """A synthetic image (y, x, 1), 16 bit."""
    image_yx, _ = render_nuclei(NucleiScene(size_yx=size_yx, bit_depth=16), seed=seed)
    return image_yx[..., np.newaxis].astype(np.uint16)


@pytest.fixture(scope="module", params=[*EXPORTED, *SHIPPED], ids=lambda param: getattr(param, "name", param))
def package_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if isinstance(request.param, Path):
        return request.param
    torch.manual_seed(0)
    package, _ = export(
        UNet(base_width=6, depth=3),
        tmp_path_factory.mktemp("package") / "exported",
        picture((200, 220), seed=1),
        normalization=EXPORTED[request.param],
    )
    return package.path


@pytest.mark.parametrize("package_path", EXPORTED, indirect=True)
def test_its_test_passes(package_path: Path) -> None:
    """As its command line does with those that ship."""
    from bioimageio.core import test_description

    summary = test_description(package_path, expected_type="model")
    assert summary.status == "passed", summary.format()


def test_it_predicts_what_we_predict(package_path: Path) -> None:
    from bioimageio.core import predict

    package = read_package(package_path)
    axis = package.spec.geometry.y
    image_yxc = picture((axis.minimum + 3 * axis.step, axis.minimum + 6 * axis.step), seed=2)
    golden_bcyx = np.load(package_path / "test_input.npy")
    session = open_session(package, SessionOptions(backend="cpu"))
    for input_yxc in (image_yxc, np.moveaxis(golden_bcyx[0], 0, -1)):
        tiles_bcyx = fit(package.spec.normalization, input_yxc).apply(input_yxc)[np.newaxis]
        ours = session.run(tiles_bcyx)
        inputs = np.moveaxis(input_yxc, -1, 0)[np.newaxis].astype(np.float32)
        theirs = predict(model=package_path, inputs=inputs).members["probabilities"].data.to_numpy()
        assert ours.std() > 1e-3, "a constant would agree with anything"
        np.testing.assert_allclose(theirs, ours, atol=1e-5)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_its_command_line_passes(path: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("bioimageio")), "test", str(path)]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=280, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
