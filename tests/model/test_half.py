"""Half precision: the same weights in a graph of fp16, close to fp32, and never where it was not asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from model.errors import BackendUnavailable, UnsupportedPackage
from model.half import half_graph
from model.package import ZOO, Package, read_package
from model.precision import open_checked
from model.session import SessionOptions, gpu_count, open_session, self_test
from model.spec import PackageFile
from tests.packages import threshold_net, write_tiny_package

HALF = SessionOptions(backend="cpu", precision="fp16", threads=1)


@pytest.mark.parametrize("name", ["nuclei", "phase-t98g"])
def test_shipped_packages_agree_in_fp16(name: str) -> None:
    opened = open_checked(read_package(ZOO / name), HALF)
    assert opened.session.precision == "fp16"
    assert opened.agreement is not None
    # a mantissa of ten bits: not the same as fp32, and much nearer than bf16 with seven
    assert 0 < opened.agreement.largest_difference < 0.02
    assert opened.agreement.other_class < 0.0005


def test_convolutions_compute_in_fp16_and_input_output_and_softmax_in_fp32() -> None:
    weights = read_package(ZOO / "nuclei").weights()
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(half_graph(weights))).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type in {"Conv", "ConvTranspose"}]
    assert len(convolutions) == 23
    for node in convolutions:
        assert {kinds[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}
    (softmax,) = (node for node in graph.node if node.op_type == "Softmax")
    assert kinds[softmax.input[0]] == TensorProto.FLOAT
    assert [kinds[value.name] for value in (*graph.input, *graph.output)] == [TensorProto.FLOAT] * 2
    # nothing is rounded once more: the stored weights were fp16
    stored = {t.name: t for t in onnx.load_from_string(weights).graph.initializer if t.data_type == TensorProto.FLOAT16}
    arrays = {onnx.numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer}
    assert all(onnx.numpy_helper.to_array(tensor).tobytes() in arrays for tensor in stored.values())


def test_a_graph_with_fp32_weights_is_rewritten_too(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    opened = open_checked(package, HALF)
    assert opened.agreement is not None
    assert opened.agreement.largest_difference < 0.01


def test_a_net_whose_values_fp16_cannot_hold_is_refused(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    graph = onnx.load_from_string(threshold_net())
    weight, bias = (next(t for t in graph.graph.initializer if t.name == name) for name in ("weight", "bias"))
    # the same answer by way of numbers beyond 65,504
    for tensor in (weight, bias):
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1e5), tensor.name))
    scale = onnx.numpy_helper.from_array(np.array([1e-5], dtype=np.float32), "scale")
    graph.graph.initializer.append(scale)
    softmax = graph.graph.node.pop()
    graph.graph.node.append(onnx.helper.make_node("Mul", ["logits", "scale"], ["small"]))
    softmax.input[0] = "small"
    graph.graph.node.append(softmax)
    (package.path / "weights.onnx").write_bytes(graph.SerializeToString())
    spec = package.spec.model_copy(update={"weights": PackageFile(source="weights.onnx")})
    package = Package(package.path, spec)
    assert open_checked(package, SessionOptions("cpu", "fp32")).session.precision == "fp32"
    with pytest.raises(UnsupportedPackage, match="fp16 does not agree with fp32"):
        open_checked(package, HALF)


def test_stored_integers_stay_what_they_are(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    graph = onnx.load_from_string(threshold_net())
    starts = next(tensor for tensor in graph.graph.initializer if tensor.name == "starts")
    starts.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(starts).astype(np.int32), "stored"))
    graph.graph.node.insert(0, onnx.helper.make_node("Cast", ["stored"], ["starts"], to=TensorProto.INT64))
    (package.path / "half.onnx").write_bytes(half_graph(graph.SerializeToString()))
    spec = package.spec.model_copy(update={"weights": PackageFile(source="half.onnx")})
    assert self_test(open_session(Package(package.path, spec), SessionOptions("cpu")), package) < 0.01


def test_what_is_no_graph_cannot_be_rewritten() -> None:
    with pytest.raises(UnsupportedPackage, match="precision fp16: the graph cannot be rewritten"):
        half_graph(b"not a graph")


def test_openvino_has_none_and_says_who_has(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="fp16: backend openvino has none, cuda, tensorrt and cpu have"):
        open_session(write_tiny_package(tmp_path), SessionOptions("openvino", "fp16"))


def test_auto_takes_none_on_a_cpu() -> None:
    assert open_checked(read_package(ZOO / "nuclei"), SessionOptions("cpu", "auto")).session.precision != "fp16"


@pytest.mark.skipif(gpu_count() == 0, reason="needs a GPU")
@pytest.mark.gpu
@pytest.mark.parametrize("name", ["nuclei", "phase-t98g"])
def test_auto_takes_fp16_on_a_gpu(name: str) -> None:
    opened = open_checked(read_package(ZOO / name), SessionOptions("cuda", "auto"))
    assert opened.session.precision == "fp16"
