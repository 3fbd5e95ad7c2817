"""Graphs as others export them: one tile at a time, further inputs, operators that no runtime knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from model.backends import InferenceSession
from model.errors import InvalidPackage, UnsupportedPackage
from model.package import Package, write_package
from model.session import Backend, SessionOptions, open_session
from tests.packages import threshold_net, write_tiny_package

BACKENDS: list[Backend] = ["cpu", "openvino"]


def with_graph(folder: Path, change: Callable[[onnx.GraphProto], None]) -> Package:
    """Return the tiny package with a changed graph."""
    net = onnx.load_from_string(threshold_net())
    change(net.graph)
    tiny = write_tiny_package(folder)
    return write_package(tiny.path, tiny.spec, {**tiny.own_files(), "weights.onnx": net.SerializeToString()})


def opened(package: Package, backend: Backend) -> InferenceSession:
    return open_session(package, SessionOptions(backend=backend, threads=1))


def batch_of(count: int) -> Callable[[onnx.GraphProto], None]:
    def change(graph: onnx.GraphProto) -> None:
        for tensor in (graph.input[0], graph.output[0]):
            tensor.type.tensor_type.shape.dim[0].dim_value = count

    return change


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_for_single_tiles_gets_them_one_by_one(tmp_path: Path, backend: Backend) -> None:
    tiles = np.random.default_rng(0).random((3, 1, 20, 26), dtype=np.float32)
    single, free = opened(with_graph(tmp_path, batch_of(1)), backend), opened(write_tiny_package(tmp_path), backend)
    np.testing.assert_array_equal(single.run(tiles), free.run(tiles))
    np.testing.assert_array_equal(single.run(tiles[:1]), free.run(tiles[:1]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_for_a_fixed_number_of_several_is_refused(tmp_path: Path, backend: Backend) -> None:
    with pytest.raises(UnsupportedPackage, match="takes batches of 2 tiles alone; export it with a free batch"):
        opened(with_graph(tmp_path, batch_of(2)), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_with_a_second_input_is_refused_and_not_fed_with_what_lies_in_memory(
    tmp_path: Path, backend: Backend
) -> None:
    def add_input(graph: onnx.GraphProto) -> None:
        graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, ["b", 2, "v", "u"]))
        graph.node.append(helper.make_node("Add", ["probabilities", "extra"], ["sum"]))
        graph.output[0].name = "sum"

    with pytest.raises(UnsupportedPackage, match=r"takes 2 tensors \(image, extra\), 1 is fed"):
        opened(with_graph(tmp_path, add_input), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_reason_is_given_and_not_a_place_in_a_runtimes_sources(tmp_path: Path, backend: Backend) -> None:
    def make_foreign(graph: onnx.GraphProto) -> None:
        graph.node[2].op_type, graph.node[2].domain = "Evil", "org.evil"

    with pytest.raises(InvalidPackage, match="cannot load the weights") as caught:
        opened(with_graph(tmp_path, make_foreign), backend)
    assert "Evil" in str(caught.value)
    assert "Exception from" not in str(caught.value)


def test_a_mismatch_of_channels_is_told_by_openvino_too(tmp_path: Path) -> None:
    def widen(graph: onnx.GraphProto) -> None:
        graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3

    with pytest.raises(InvalidPackage, match="channel count"):
        opened(with_graph(tmp_path, widen), "openvino")
