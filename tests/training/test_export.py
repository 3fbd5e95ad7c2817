"""Export: ONNX Runtime does what torch does, at every size; the package is valid and its weights are small."""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from PIL import Image

from model.agreement import Agreement
from model.backends import Backend
from model.label_rule import LabelRule
from model.package import Package, read_package
from model.rdf import to_rdf
from model.session import SessionOptions, open_session
from model.spec import Person
from model.unet import UNet
from tests.training.exporting import LIBRARY_WARNINGS, export
from training.errors import ExportError
from training.packaging.specification import validate
from training.scene import NucleiScene
from training.synthetic import render_nuclei

pytestmark = [pytest.mark.slow, LIBRARY_WARNINGS]


@pytest.fixture(scope="module", params=[(3, 1), (2, 2)], ids=["classic", "downscaled"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, UNet]:
    torch.manual_seed(0)
    depth, downscale = request.param
    net = UNet(base_width=8, depth=depth, downscale=downscale).eval()
    image_yx, _ = render_nuclei(NucleiScene(size_yx=(200, 230), bit_depth=16), seed=0)
    package, agreement = export(net, tmp_path_factory.mktemp("export") / "exported", image_yx[..., np.newaxis])
    assert agreement.largest_difference < 1e-4
    assert agreement.other_class < 1e-4
    return package, net


@pytest.mark.parametrize("backend", ["cpu", "openvino"])
@pytest.mark.parametrize(("batch", "steps_yx"), [(1, (0, 0)), (3, (1, 8)), (2, (14, 0))])
def test_batch_height_and_width_are_free(
    exported: tuple[Package, UNet], backend: Backend, batch: int, steps_yx: tuple[int, int]
) -> None:
    package, net = exported
    axis = package.spec.geometry.y
    shape = (batch, 1, axis.minimum + axis.step * steps_yx[0], axis.minimum + axis.step * steps_yx[1])
    tiles = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    output = open_session(package, SessionOptions(backend=backend)).run(tiles)
    with torch.inference_mode():
        half = copy.deepcopy(net)
        half.load_state_dict({name: value.half().float() for name, value in net.state_dict().items()})
        expected = torch.softmax(half(torch.from_numpy(tiles)), dim=1).numpy()
    np.testing.assert_allclose(output, expected, atol=1e-4)


@pytest.mark.parametrize("broken", [float("nan"), 65_520.0])
def test_a_net_that_is_not_finite_in_half_precision_leaves_no_package(broken: float, tmp_path: Path) -> None:
    net = UNet(base_width=4, depth=1)
    with torch.no_grad():
        next(net.parameters()).view(-1)[0] = broken
    with pytest.raises(ExportError, match=r"^1 of \d+ weights are not finite in half precision.* ends at 65504"):
        export(net, tmp_path / "broken", np.zeros((60, 60, 1), dtype=np.uint8))
    assert not (tmp_path / "broken").exists()


def test_weights_are_half_precision_and_nothing_of_the_exporter_is_left(exported: tuple[Package, UNet]) -> None:
    graph = onnx.load_from_string(exported[0].weights())
    large = [tensor for tensor in graph.graph.initializer if np.prod(tensor.dims) > 16]
    assert large
    assert all(tensor.data_type == TensorProto.FLOAT16 for tensor in large)
    assert not any(node.doc_string or node.metadata_props for node in graph.graph.node)
    assert not {node.op_type for node in graph.graph.node} & {"Shape", "Gather", "Loop", "If"}, "no shape arithmetic"


def test_the_package_reads_back_and_is_valid(
    exported: tuple[Package, UNet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    package = exported[0]
    spec = read_package(package.path).spec
    assert spec == package.spec
    assert spec.pixel_size_um == (0.65, 0.65)
    assert spec.object_diameter_px == (7.5, 20.5, 49.5)
    validate(package.path)
    assert not list(tmp_path.iterdir()), "covers that the specification draws are left behind"


def test_a_pixel_size_that_is_no_binary_fraction_can_be_written(exported: tuple[Package, UNet]) -> None:
    # bioimage.io takes n * size / size for the number of pixels; with 0.65 in double precision some are no integers
    spec = read_package(exported[0].path).spec
    assert spec.pixel_size_um == (0.65, 0.65)
    for size_um in (0.65, 0.1083, 0.227, 1.3, 0.3225, 13.0 / 60):
        axes = to_rdf(spec.model_copy(update={"pixel_size_um": (size_um, size_um)}))["inputs"][0]["axes"]
        sizes = np.arange(1, 5000)
        assert np.array_equal(sizes * axes[-1]["scale"] / axes[-1]["scale"], sizes)


def test_an_invalid_package_is_refused_in_the_words_of_the_specification(
    exported: tuple[Package, UNet], tmp_path: Path
) -> None:
    for file in exported[0].path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    rdf = tmp_path / "rdf.yaml"
    rdf.write_text(rdf.read_text().replace("license: MIT", "license: no-such-licence"))
    with pytest.raises(ExportError, match="license"):
        validate(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "a b"}, "a package cannot hold version 'a b': String should match pattern"),
        ({"version": "abc"}, "'abc' is no version that bioimage.io reads, such as 1.0.0; correct --version"),
        ({"name": "n" * 101}, f"a package cannot hold name '{'n' * 101}': String should match pattern"),
        ({"license": "My own terms"}, "'My own terms' is no SPDX identifier of a licence"),
        ({"title": "Cells: 20x"}, "takes no such description: title: Value error, 'Cells: 20x' is not restricted to"),
        ({"authors": (Person(name="A/B"),)}, "takes no such description: authors: Predicate"),
        ({"channels": ["red", "green"]}, "2 different names of channels (red, green), but the net takes 1 channels"),
        ({"channels": []}, "0 different names of channels (), but the net takes 1 channels"),
        (
            {"label_rule": LabelRule(foreground=(1, 2))},
            "such a description: Value error, the label rule names channel 2",
        ),
    ],
)
def test_what_no_package_can_say_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], reason: str
) -> None:
    monkeypatch.setattr("training.packaging.export.to_onnx", lambda *_: pytest.fail("the graph was made"))
    with pytest.raises(ExportError) as caught:
        export(UNet(base_width=2, depth=1), tmp_path / "package", np.zeros((60, 60, 1), dtype=np.uint8), **change)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_two_channels_of_one_name_are_refused(tmp_path: Path) -> None:
    net, image_yxc = UNet(base_width=2, depth=1, in_channels=2), np.zeros((60, 60, 2), dtype=np.uint8)
    with pytest.raises(ExportError, match=r"^1 different names of channels \(dye, dye\), but the net takes 2"):
        export(net, tmp_path / "package", image_yxc, channels=["dye", "dye"])


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        ("_compare", Agreement(other_class=0.0, largest_difference=2e-4)),
        ("validate", ExportError("0.0002; 1e-4 is the limit, or whatever bioimage.io says")),
    ],
)
def test_a_refused_export_leaves_what_was_there(
    exported: tuple[Package, UNet],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    outcome: Agreement | ExportError,
) -> None:
    package, net = exported
    there = read_package(Path(shutil.copytree(package.path, tmp_path / "there")))
    monkeypatch.setattr("training.packaging.export.to_onnx", lambda *_: package.weights())
    monkeypatch.setattr(f"training.packaging.export.{step}", Mock(side_effect=[outcome, outcome]))
    image_yxc = render_nuclei(NucleiScene(size_yx=(99, 99)), seed=1)[0][..., np.newaxis]
    for out in (there.path, tmp_path / "new"):
        with pytest.raises(ExportError, match=r"0\.0002; 1e-4 is the limit"):
            export(net, out, image_yxc)
    there.check_files()
    assert read_package(there.path).spec == package.spec
    assert [entry.name for entry in tmp_path.iterdir()] == ["there"]


@pytest.mark.data
def test_torch_and_onnx_runtime_agree_on_real_images(data_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = UNet(base_width=16, depth=4).eval()
    image_yxc = np.asarray(Image.open(min((data_root / "nuclei-dsb2018/images").glob("*.png"))))[..., np.newaxis]
    _, agreement = export(net, tmp_path / "real", image_yxc)
    assert agreement.largest_difference < 1e-4
    assert agreement.other_class < 1e-4
