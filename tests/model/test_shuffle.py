"""Shuffles of pixels in int8 graphs: found where they are, replaced by what answers like the graph itself."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper

from model.agreement import agreement
from model.normalization import fit
from model.package import read_package
from model.session import Backend, SessionOptions, open_session
from model.shuffle import with_depth_to_space
from service.engine.registry import ZOO

NUCLEI = read_package(ZOO / "nuclei")


def test_every_up_convolution_of_an_int8_graph_is_found() -> None:
    net = ov.Core().read_model(NUCLEI.weights("int8"))
    assert with_depth_to_space(net) == 4
    assert with_depth_to_space(net) == 0
    kinds = [node.get_type_name() for node in net.get_ordered_ops()]
    assert kinds.count("DepthToSpace") == 4
    assert "Transpose" not in kinds


def test_openvino_answers_like_onnx_runtime_which_runs_the_graph_as_it_is() -> None:
    image, _ = NUCLEI.golden_pair()
    tile = fit(NUCLEI.spec.normalization, image[0].transpose(1, 2, 0)).apply(image[0].transpose(1, 2, 0))[np.newaxis]
    backends: tuple[Backend, ...] = ("openvino", "cpu")
    answers = [open_session(NUCLEI, SessionOptions(backend, "int8")).run(tile) for backend in backends]
    found = agreement(*answers)
    assert found.other_class < 0.0005
    assert np.abs(answers[0] - answers[1]).mean() < 1e-3


def shuffle(side: int, factor: float | None = None) -> bytes:
    """ONNX of nothing but a shuffle of 4 channels or more to ``side`` times the height and width, written as ours."""
    shape = {
        "parted": [1, 6, 8, side, side],
        "whole": [1, 6 * side, 8 * side, 1],
    }
    steps = [
        ("Transpose", ["image"], {"perm": [0, 2, 3, 1]}),
        ("Reshape", ["0", "parted"], {}),
        *([("Mul", ["1", "factor"], {})] if factor else []),
        ("Transpose", None, {"perm": [0, 1, 3, 2, 4]}),
        ("Reshape", None, {}),
        ("Transpose", None, {"perm": [0, 3, 1, 2]}),
    ]
    nodes = []
    for number, (kind, inputs, attributes) in enumerate(steps):
        given = inputs or [str(number - 1), *(["whole"] if kind == "Reshape" else [])]
        nodes.append(helper.make_node(kind, given, [str(number)], **attributes))
    nodes[-1].output[0] = "out"
    constants = {name: np.array(value, dtype=np.int64) for name, value in shape.items()}
    constants |= {"factor": np.array([factor], dtype=np.float32)} if factor else {}
    graph = helper.make_graph(
        nodes,
        "shuffle",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, side * side, 6, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 1, 6 * side, 8 * side])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(net, full_check=True)
    return bytes(net.SerializeToString())


@pytest.mark.parametrize(("side", "factor", "found"), [(2, None, 1), (3, None, 0), (4, None, 0), (2, 3.0, 0)])
def test_what_only_looks_alike_is_left_alone(side: int, factor: float | None, found: int) -> None:
    graph = shuffle(side, factor)
    net = ov.Core().read_model(graph)
    assert with_depth_to_space(net) == found
    image = np.random.default_rng(0).random((1, side * side, 6, 8), dtype=np.float32)
    (expected,) = ort.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"image": image})
    compiled = ov.Core().compile_model(net, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_array_equal(compiled([image])[0], expected)


def test_other_graphs_are_left_alone() -> None:
    net = ov.Core().read_model(NUCLEI.weights())
    before = [node.get_type_name() for node in net.get_ordered_ops()]
    assert with_depth_to_space(net) == 0
    assert [node.get_type_name() for node in net.get_ordered_ops()] == before
