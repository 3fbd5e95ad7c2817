"""Int8 graphs for OpenVINO: what is slow there is found, and replaced by what answers like the graph itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper

from model.agreement import agreement
from model.normalization import fit
from model.openvino_int8 import rewrite
from model.package import ZOO, read_package
from model.session import Backend, SessionOptions, open_session

NUCLEI = read_package(ZOO / "nuclei")


@dataclass(frozen=True, slots=True)
class Found:
    """How many of each were found, and put into the form that is fast."""

    up_convolutions: int
    concatenations: int
    crops: int


NOTHING = Found(up_convolutions=0, concatenations=0, crops=0)


def rewritten(net: Any) -> Found:
    """Rewrite a graph, and see in it of what there is more or less than before."""

    def counted() -> Found:
        nodes = net.get_ordered_ops()
        kinds = [node.get_type_name() for node in nodes]
        joined = [node for node in nodes if node.get_type_name() == "Concat"]
        readers = [reader.get_node() for node in joined for reader in node.output(0).get_target_inputs()]
        quantised = [node for node in readers if node.get_type_name() == "FakeQuantize"]
        crops = [node for node in nodes if node.get_type_name() == "Slice" and node.input_value(4).get_shape() == [2]]
        return Found(kinds.count("ConvolutionBackpropData"), len(quantised), len(crops))

    before = counted()
    rewrite(net)
    after = counted()
    return Found(
        up_convolutions=after.up_convolutions - before.up_convolutions,
        concatenations=before.concatenations - after.concatenations,
        crops=after.crops - before.crops,
    )


def test_everything_of_an_int8_graph_is_found_once() -> None:
    net = ov.Core().read_model(NUCLEI.weights("int8"))
    assert rewritten(net) == Found(up_convolutions=4, concatenations=4, crops=4)
    assert rewritten(net) == NOTHING
    kinds = [node.get_type_name() for node in net.get_ordered_ops()]
    assert kinds.count("ConvolutionBackpropData") == kinds.count("Slice") == 4
    assert "Transpose" not in kinds


def test_openvino_answers_like_onnx_runtime_which_runs_the_graph_as_it_is() -> None:
    image, _ = NUCLEI.golden_pair()
    tile = fit(NUCLEI.spec.normalization, image[0].transpose(1, 2, 0)).apply(image[0].transpose(1, 2, 0))[np.newaxis]
    backends: tuple[Backend, ...] = ("openvino", "cpu")
    answers = [open_session(NUCLEI, SessionOptions(backend, "int8")).run(tile) for backend in backends]
    found = agreement(*answers)
    assert found.other_class < 0.001  # rounded once where ONNX Runtime rounds twice
    assert np.abs(answers[0] - answers[1]).mean() < 1e-3


_STEP = 0.03
"""Of what is concatenated."""


class Graph:
    """ONNX of an up-convolution beside a cropped skip, concatenated, written and quantised as our int8 graphs are."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, value: Any, kind: Any = np.int64) -> str:
        name = f"constant{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.array(value, dtype=kind), name)
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{kind}{len(self.nodes)}"], **attributes))
        return str(self.nodes[-1].output[0])

    def turned_back(self, integers: Any, kind: Any, scale: Any, zero: Any = None) -> str:
        nothing = np.zeros_like(scale, dtype=kind) if zero is None else zero
        given = self.constant(integers, kind), self.constant(scale, np.float32), self.constant(nothing, kind)
        return self.add("DequantizeLinear", *given, axis=0)

    def rounded(self, name: str, scale: float, zero: int = 128) -> str:
        given = self.constant(scale, np.float32), self.constant(zero, np.uint8)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", name, *given), *given)

    def bytes(self, output: str, channels: int) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [
                helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 8, 6, 8]),
                helper.make_tensor_value_info("skip", TensorProto.FLOAT, [1, 4, 20, 24]),
            ],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, channels, "y", "x"])],
            list(self.constants.values()),
        )
        net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.checker.check_model(net, full_check=True)
        return bytes(net.SerializeToString())


def up_path(
    *,
    side: int = 2,
    factor: float = 1.0,
    stride: int = 1,
    zero: int = 0,
    bias: bool = True,
    uneven_bias: bool = False,
    float_weights: bool = False,
    axis: int = 1,
    read_twice: bool = False,
    crop_axes: tuple[int, ...] = (2, 3),
) -> bytes:
    """Weights have a scale for each of the four positions of an output, as ONNX Runtime's quantiser gives them."""
    random = np.random.default_rng(1)
    graph, channels, step = Graph(), 4, 0.02
    outputs = side * side * channels
    scales = random.uniform(0.5, 1.0, outputs) * 0.001
    integers = random.integers(-63, 64, (outputs, 8, 1, 1))  # more would saturate without VNNI: two products in 16 bits
    if float_weights:
        weights = graph.constant(integers * scales.reshape(-1, 1, 1, 1), np.float32)
    else:
        weights = graph.turned_back(integers, np.int8, scales, np.full(outputs, zero, dtype=np.int8))
    offsets = random.uniform(-1, 1, outputs) if uneven_bias else np.tile(random.uniform(-1, 1, channels), side * side)
    offset = [graph.turned_back(np.rint(offsets / (step * scales)), np.int32, step * scales)] if bias else []
    image = graph.rounded("image", step)
    up = graph.add("Conv", image, weights, *offset, strides=[stride, stride])
    y, x = 6 // stride, 8 // stride
    up = graph.add("Transpose", graph.rounded(up, 0.02), perm=[0, 2, 3, 1])
    up = graph.add("Reshape", graph.rounded(up, 0.02), graph.constant([1, y, x, side, side * channels]))
    if factor != 1:
        up = graph.add("Mul", up, graph.constant(factor, np.float32))
    up = graph.add("Transpose", graph.rounded(up, 0.02), perm=[0, 1, 3, 2, 4])
    up = graph.add("Reshape", graph.rounded(up, 0.02), graph.constant([1, y * side, x * side, channels]))
    up = graph.rounded(graph.add("Transpose", graph.rounded(up, 0.02), perm=[0, 3, 1, 2]), 0.02)
    skip = graph.rounded("skip", 0.01, 0)
    wanted = {1: channels, 2: y * side, 3: x * side}
    for place in crop_axes:
        given = map(graph.constant, ([0], [wanted[place]], [place], [1]))
        skip = graph.rounded(graph.add("Slice", skip, *given), 0.01, 0)
    joined = graph.add("Concat", skip, up, axis=axis)
    answer = graph.rounded(joined, _STEP)
    if read_twice:
        answer = graph.add("Add", answer, joined)
    return graph.bytes(answer, 2 * channels if axis == 1 else channels)


ALL = Found(up_convolutions=1, concatenations=1, crops=1)


@pytest.mark.parametrize(
    ("alike", "found"),
    [
        ({}, ALL),
        ({"bias": False}, ALL),
        ({"side": 3}, replace(ALL, up_convolutions=0)),
        ({"factor": 3.0}, replace(ALL, up_convolutions=0)),
        ({"stride": 2}, replace(ALL, up_convolutions=0)),
        ({"zero": 3}, replace(ALL, up_convolutions=0)),
        ({"uneven_bias": True}, replace(ALL, up_convolutions=0)),
        ({"float_weights": True}, replace(ALL, up_convolutions=0)),
        ({"axis": 2}, replace(ALL, concatenations=0)),
        ({"read_twice": True}, replace(ALL, concatenations=0)),
        ({"crop_axes": (2, 2, 3)}, ALL),  # the last two
    ],
)
def test_what_is_rewritten_answers_the_same_and_what_only_looks_alike_is_left_alone(
    alike: dict[str, Any], found: Found
) -> None:
    weights = up_path(**alike)
    net = ov.Core().read_model(weights)
    assert rewritten(net) == found
    random = np.random.default_rng(0)
    tensors = {
        "image": random.uniform(-2, 2, (1, 8, 6, 8)).astype(np.float32),
        "skip": random.uniform(0, 2.5, (1, 4, 20, 24)).astype(np.float32),
    }
    exact = ort.SessionOptions()
    exact.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    (expected,) = ort.InferenceSession(weights, exact, providers=["CPUExecutionProvider"]).run(None, tensors)
    answer = ov.Core().compile_model(net, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(tensors)[0]
    assert answer.shape == expected.shape
    apart = np.abs(answer - expected)
    assert apart.max() < 2.01 * _STEP  # a step for the rounding that is saved, one more where it is added twice
    assert (apart > 0.01 * _STEP).mean() < 0.5


def test_other_graphs_are_left_alone() -> None:
    net = ov.Core().read_model(NUCLEI.weights())
    before = [node.get_type_name() for node in net.get_ordered_ops()]
    assert rewritten(net) == replace(NOTHING, crops=4)
    assert [node.get_type_name() for node in net.get_ordered_ops()].count("Slice") == before.count("Slice") - 4
