"""Small real packages for tests: an ONNX net whose answer is known for every pixel."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.agreement import LIMIT, Agreement
from model.label_rule import LabelRule
from model.normalization import ScaleRange, Step, fit
from model.package import RDF_NAME, Package, tensor_bytes, write_package
from model.spec import ModelSpec, PackageFile, Person, Variant
from model.tiling import Geometry, valid_unet_geometry

GAIN = 20.0


def threshold_net(channels: int = 1, shrink: int = 16, gain: float = GAIN) -> bytes:
    """ONNX of a net that crops its margin and returns softmax of [0, gain * (mean over channels - 0.5)]."""
    half = shrink // 2
    weight = np.zeros((2, channels, 1, 1), dtype=np.float32)
    weight[1] = gain / channels
    constants = {
        "weight": weight,
        "bias": np.array([0.0, -gain / 2], dtype=np.float32),
        "starts": np.array([half, half], dtype=np.int64),
        "ends": np.array([-half if half else 2**31, -half if half else 2**31], dtype=np.int64),
        "axes": np.array([2, 3], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Slice", ["image", "starts", "ends", "axes"], ["cropped"]),
        helper.make_node("Conv", ["cropped", "weight", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "threshold",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", channels, "y", "x"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["b", 2, "v", "u"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(net, full_check=True)
    return bytes(net.SerializeToString())


def expected_foreground(normalised_cyx: NDArray[np.float32], gain: float = GAIN) -> NDArray[np.float64]:
    """Foreground probability (y, x) that :func:`threshold_net` gives."""
    mean_yx: NDArray[np.float64] = normalised_cyx.mean(axis=0, dtype=np.float64)
    return 1 / (1 + np.exp(-gain * (mean_yx - 0.5)))


def write_tiny_package(
    folder: Path,
    *,
    name: str = "tiny",
    version: str = "1.0.0",
    channels: tuple[str, ...] = ("grey",),
    normalization: tuple[Step, ...] = (ScaleRange(),),
    label_rule: LabelRule | None = None,
    geometry: Geometry | None = None,
) -> Package:
    """Write a package with :func:`threshold_net` to ``folder / name``: foreground is what exceeds half the range."""
    geometry = geometry or valid_unet_geometry(1)
    raw_yxc = np.random.default_rng(0).random((34, 42, len(channels)), dtype=np.float32)
    normalised = fit(normalization, raw_yxc).apply(raw_yxc)
    half = geometry.y.shrink // 2
    cropped = normalised[:, half : 34 - half, half : 42 - half]
    foreground = expected_foreground(cropped)
    golden = np.stack([1 - foreground, foreground])[np.newaxis].astype(np.float32)
    spec = ModelSpec(
        name=name,
        version=version,
        title="Tiny threshold net",
        description="Foreground is what exceeds half the range.",
        license="MIT",
        authors=(Person(name="The tests"),),
        channels=channels,
        classes=("background", "object"),
        normalization=normalization,
        geometry=geometry,
        label_rule=label_rule or LabelRule(),
        pixel_size_um=(0.5, 0.5),
        object_diameter_px=(4.0, 10.0, 20.0),
        activation_bytes_per_pixel=16,
        weights=PackageFile(source="weights.onnx"),
        opset=18,
        test_input=PackageFile(source="test_input.npy"),
        test_output=PackageFile(source="test_output.npy"),
        documentation=PackageFile(source="README.md"),
        facts={"purpose": "tests"},
    )
    files = {
        "weights.onnx": threshold_net(len(channels), geometry.y.shrink),
        "test_input.npy": tensor_bytes(np.moveaxis(raw_yxc, -1, 0)[np.newaxis]),
        "test_output.npy": tensor_bytes(golden),
        "README.md": b"# Tiny\n",
    }
    return write_package(folder / name, spec, files)


def never_ending(weights: bytes) -> bytes:
    """Return a net that begins with a loop of 2 ** 62 turns."""
    net = onnx.load_from_string(weights)
    graph, (image,) = net.graph, net.graph.input
    turn = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("Neg", ["turned"], ["turned_back"])],
        "turn",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("turned", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("turned_back", TensorProto.FLOAT, None),
        ],
    )
    for node in graph.node:
        node.input[:] = ["looped" if name == image.name else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array(2**62, dtype=np.int64), "turns"))
    graph.initializer.append(numpy_helper.from_array(np.array(1, dtype=bool), "go"))
    graph.node.insert(0, helper.make_node("Loop", ["turns", "go", image.name], ["looped"], body=turn))
    onnx.checker.check_model(net)
    return bytes(net.SerializeToString())


def put_package(folder: Path, name: str = "tiny", version: str = "1.0.0", place: str | None = None) -> Path:
    """Put a tiny package to ``folder / place`` as exports do, by renaming; what was there before is taken away."""
    package = write_tiny_package(folder / ".draft", name=name, version=version).path
    target = folder / (place or name)
    if target.exists():
        target.rename(folder / ".former")
    package.rename(target)
    shutil.rmtree(folder / ".former", ignore_errors=True)
    return target


def with_variant(
    package: Package, gain: float = GAIN, limit: Agreement = LIMIT, weights: bytes | None = None
) -> Package:
    """Add a variant called int8 to a tiny package: :func:`threshold_net` in fp32, of another slope where wanted."""
    files = package.own_files()
    if weights is None:
        weights = threshold_net(len(package.spec.channels), package.spec.geometry.y.shrink, gain)
    files["int8.onnx"] = weights
    variant = Variant(
        precision="int8", weights=PackageFile(source="int8.onnx"), measured=Agreement(0.0, 0.01), images=3, limit=limit
    )
    return write_package(package.path, package.spec.model_copy(update={"variants": (variant,)}), files)


def edit(package: Package, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the description of a package on disk."""
    file = package.path / RDF_NAME
    rdf = yaml.safe_load(file.read_text())
    change(rdf)
    file.write_text(yaml.safe_dump(rdf))
    return package.path
