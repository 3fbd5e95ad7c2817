"""int8: the same net in integers, judged on images held out, written only where it agrees."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from benchmarks.random_package import passing_net
from model.agreement import Agreement
from model.normalization import FixedZeroMeanUnitVariance
from model.package import Package, read_package, write_package
from model.precision import open_checked
from model.session import Backend, SessionOptions
from model.tiling import valid_unet_geometry
from model.unet import UNet
from tests.training.exporting import LIBRARY_WARNINGS, export
from training.cli import main
from training.data.datasets import AnnotatedImage
from training.errors import ExportError, ForeignPackage, NothingToLearn
from training.packaging import variants
from training.packaging.judging import Judged
from training.packaging.quantize import pooled, quantise, shuffled
from training.packaging.variants import add_int8, calibration_tiles
from training.recipe import recipe_from

pytestmark = [pytest.mark.slow, LIBRARY_WARNINGS]
DARK, BRIGHT = 30, 220
BACKENDS: tuple[Backend, ...] = ("cpu", "openvino")
RECIPE = recipe_from({"name": "squares", "data": {"validation_fraction": 0.3}}, "squares")


def squares(count: int, dark: int = DARK, bright: int = BRIGHT) -> list[AnnotatedImage]:
    """Bright squares on dark ground, with their labels."""
    rng = np.random.default_rng(count)
    images = []
    for number in range(count):
        labels_yx = np.zeros((96, 112), dtype=np.int32)
        for label, (top, left) in enumerate(((10, 12), (40, 70), (66, 20)), start=1):
            labels_yx[top : top + 18, left : left + 22] = label
        levels = rng.integers(-8, 8, labels_yx.shape)
        image_yx = (np.where(labels_yx > 0, bright, dark) + levels).clip(0, 255).astype(np.uint8)
        images.append(AnnotatedImage(f"s{number}", image_yx[..., np.newaxis], labels_yx))
    return images


def write(folder: Path, gain: float = 30.0, downscale: int = 1) -> Package:
    # a constant of the package: the grey values of an image decide nothing
    rule = FixedZeroMeanUnitVariance(mean=(0.0,), std=(255.0,))
    image_yxc: NDArray[Any] = squares(1)[0].image_yxc
    net = passing_net(8, 2, gain, downscale=downscale)
    return export(net, folder, image_yxc, normalization=(rule,), pixel_size_um=None)[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return write(tmp_path_factory.mktemp("exported") / "squares")


@pytest.fixture
def package(exported: Package, tmp_path: Path) -> Package:
    """A copy to be changed."""
    return read_package(Path(shutil.copytree(exported.path, tmp_path / "squares")))


def test_a_shuffle_of_pixels_is_the_up_convolution() -> None:
    torch.manual_seed(0)
    net = UNet(base_width=4, depth=2, dropout=0.0).eval()
    image = torch.rand(1, 1, 60, 76)
    with torch.inference_mode():
        torch.testing.assert_close(shuffled(net)(image), net(image), rtol=1e-5, atol=1e-6)


def test_pixels_count_and_not_images() -> None:
    assert pooled([Agreement(0.4, 0.1), Agreement(0.0, 0.3)], [10, 30]) == Agreement(0.1, 0.3)


@pytest.fixture(scope="module", params=[1, 2])
def downscale(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def quantised(exported: Package, downscale: int) -> bytes:
    net = passing_net(8, 2, 30.0, downscale=downscale)
    return quantise(net, calibration_tiles(exported, squares(2))).weights


def test_batch_height_and_width_are_free(quantised: bytes, downscale: int) -> None:
    net = passing_net(8, 2, 30.0, downscale=downscale)
    axis = valid_unet_geometry(2, downscale).y
    session = ort.InferenceSession(quantised, providers=["CPUExecutionProvider"])
    for batch, steps_y, steps_x in ((1, 0, 0), (3, 1, 4), (2, 5, 0)):
        shape = (batch, 1, axis.minimum + axis.step * steps_y, axis.minimum + axis.step * steps_x)
        tiles = np.random.default_rng(0).choice(np.array([DARK, BRIGHT], dtype=np.float32) / 255, shape)
        with torch.inference_mode():
            expected = torch.softmax(net(torch.from_numpy(tiles)), dim=1).numpy()
        (output,) = session.run(None, {"image": tiles})
        np.testing.assert_allclose(output, expected, atol=0.1)


def test_all_but_the_first_and_the_last_convolution_are_integers(quantised: bytes, downscale: int) -> None:
    graph = onnx.load_from_string(quantised)
    convolutions = [node for node in graph.graph.node if node.op_type in {"Conv", "ConvTranspose"}]
    made_by = {output: node.op_type for node in graph.graph.node for output in node.output}
    integers = [made_by.get(node.input[1]) == "DequantizeLinear" for node in convolutions]
    kept = 1 if downscale == 1 else 2  # grey values to blocks, and the first that sees them
    assert integers == [False] * kept + [True] * (len(convolutions) - kept - 1) + [False]
    weights = [numpy_helper.to_array(tensor) for tensor in graph.graph.initializer if len(tensor.dims) == 4]
    assert {array.dtype for array in weights} == {np.dtype(np.int8), np.dtype(np.float32)}
    zero_points = {node.input[2] for node in graph.graph.node if node.op_type == "QuantizeLinear"}
    kinds = {tensor.data_type for tensor in graph.graph.initializer if tensor.name in zero_points}
    assert kinds == {TensorProto.UINT8}


def test_int8_is_added_measured_and_served(package: Package) -> None:
    before = package.weights()
    added, judged = add_int8(package, RECIPE, squares(4), squares(3))
    variant = added.spec.variant("int8")
    assert variant is not None
    assert (variant.images, variant.measured) == (3, judged.agreement)
    assert judged.agreement.other_class == 0
    assert 0 < judged.agreement.largest_difference < 0.1
    assert judged.lower["iou"] == judged.fp32["iou"] == 1
    assert added.weights() == before
    assert f"| iou | {judged.fp32['iou']:.4f} | {judged.lower['iou']:.4f} |" in added.readme()
    for backend in BACKENDS:
        opened = open_checked(added, SessionOptions(backend, "int8", threads=1))
        assert opened.agreement is not None
        assert opened.agreement.within(variant.limit)


def test_int8_that_does_not_agree_is_not_written(tmp_path: Path) -> None:
    package = write(tmp_path / "steep", gain=3000.0)
    names = sorted(file.name for file in package.path.iterdir())
    grey = squares(4, dark=127, bright=128)  # every pixel hangs on the last bit of a sum
    with pytest.raises(ExportError, match=r"4 held-out images: the class differs in .* of pixels, 0\.1% is the limit"):
        add_int8(package, RECIPE, squares(4), grey)
    assert read_package(package.path).spec == package.spec
    assert sorted(file.name for file in package.path.iterdir()) == names


@pytest.mark.parametrize(("training", "held_out"), [(0, 2), (2, 0)])
def test_without_images_on_either_side_nothing_is_made(package: Package, training: int, held_out: int) -> None:
    with pytest.raises(NothingToLearn, match=f"there are {training} and {held_out}"):
        add_int8(package, RECIPE, squares(training), squares(held_out))


def test_the_command_adds_it_again_and_again(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for image in squares(8):
        tifffile.imwrite(tmp_path / "images" / f"{image.stem}.tif", image.image_yxc[..., 0])
        tifffile.imwrite(tmp_path / "labels" / f"{image.stem}.tif", image.labels_yx.astype(np.uint16))
    call = ["quantize", str(package.path), "--data", str(tmp_path)]
    assert main(call) == 2
    assert "does not say how it was trained; name a recipe" in capsys.readouterr().err
    recipe = tmp_path / "squares.toml"
    recipe.write_text('name = "squares"\n[data]\nvalidation_fraction = 0.3\n')
    for _ in range(2):
        assert main([*call, "--recipe", str(recipe)]) == 0
        assert "held-out images: another class in 0.000% of pixels" in capsys.readouterr().out
    assert read_package(package.path).readme().count("## In 8-bit integers") == 1

    compare = ["compare", str(package.path), "--data", str(tmp_path), "--recipe", str(recipe), "--backend", "cpu"]
    assert main([*compare, "--precision", "int8"]) == 0
    assert "int8 against fp32 on cpu" in (said := capsys.readouterr().out)
    assert said.endswith("; within the limits\n")
    assert main([*compare, "--precision", "fp16", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["backend"], report["problem"], report["fp32"]["iou"], report["lower"]["iou"]) == ("cpu", None, 1, 1)
    assert 0 < report["images"] < 8
    assert main([*compare, "--precision", "bf16"]) == 2
    assert "backend cpu has none" in capsys.readouterr().err
    recipe.write_text('name = "squares"\n[data]\nvalidation_fraction = 0\n')
    assert main([*compare, "--precision", "int8"]) == 2
    remedy = f"no image of {tmp_path} is kept for validation; choose another --split"
    assert remedy in capsys.readouterr().err
    assert main([*compare, "--precision", "int8", "--split", "all"]) == 0
    assert "int8 against fp32 on cpu, 8 images: another class in" in capsys.readouterr().out


def test_a_loss_beyond_a_limit_is_named() -> None:
    """Each limit by itself; what is at the limit passes."""
    good = {"iou": 0.9, "pooled_iou": 0.9, "ap@0.5": 0.8}
    assert Judged(Agreement(0.001, 1.0), good, {"iou": 0.8981, "pooled_iou": 0.95, "ap@0.5": 0.7951}).problem() is None
    assert "0.110% of pixels" in str(Judged(Agreement(0.0011, 0.0), good, good).problem())
    for name, lower in (("iou", 0.8979), ("pooled_iou", 0.8979), ("ap@0.5", 0.7949)):
        problem = Judged(Agreement(0.0, 0.0), good, {**good, name: lower}).problem()
        assert problem is not None
        assert problem.startswith(f"{name} falls from {good[name]:.4f} to {lower:.4f}")
    classes = {"iou": 0.9, "iou@cell": 0.9, "iou@ring": 0.9, "dice": 0.9, "pooled_iou": 0.9}
    problem = Judged(Agreement(0.0, 0.0), classes, {**classes, "iou": 0.899, "iou@ring": 0.897}).problem()
    assert problem == "iou@ring falls from 0.9000 to 0.8970, by 0.002 at most is the limit"


def test_a_zip_and_a_folder_with_more_in_it_are_replaced_as_a_whole(package: Package, tmp_path: Path) -> None:
    readme = "# Squares\n\n## In 8-bit integers\n\nOld.\n\n## Contact\n\nKept.\n"
    files = {**package.own_files(), "README.md": readme.encode()}
    zipped = write_package(tmp_path / "squares.zip", package.spec, files)
    (package.path / "notes").mkdir()
    (package.path / "notes" / "mine.txt").write_text("mine")
    outside = tmp_path / "outside"
    outside.write_text("not the package's")
    (package.path / "weights_int8.onnx").symlink_to(outside)
    for target in (zipped, package):
        added, _ = add_int8(target, RECIPE, squares(2), squares(3))
        added.check_files()
        assert added.spec.variant("int8") is not None
    assert "Old." not in read_package(zipped.path).readme()
    assert read_package(zipped.path).readme().endswith("\n## Contact\n\nKept.\n")
    assert (package.path / "notes" / "mine.txt").read_text() == "mine"
    assert outside.read_text() == "not the package's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "squares", "squares.zip"]


def test_what_fails_at_the_end_leaves_the_package_as_it_was(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(variants, "validate", full)
    with pytest.raises(OSError, match="No space left"):
        add_int8(package, RECIPE, squares(2), squares(3))
    read_package(package.path).check_files()
    assert read_package(package.path).spec == package.spec
    assert [path.name for path in package.path.parent.iterdir()] == ["squares"]


def test_packages_that_are_not_ours_are_left_alone(package: Package) -> None:
    logits = Package(package.path, package.spec.model_copy(update={"activation": "softmax"}))
    with pytest.raises(ForeignPackage, match="its graph ends before the softmax"):
        add_int8(logits, RECIPE, squares(2), squares(3))
