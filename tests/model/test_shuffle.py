"""Shuffles of pixels in int8 graphs: found where they are, replaced by what answers like the graph itself."""

from __future__ import annotations

import numpy as np
import openvino as ov

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


def test_other_graphs_are_left_alone() -> None:
    net = ov.Core().read_model(NUCLEI.weights())
    before = [node.get_type_name() for node in net.get_ordered_ops()]
    assert with_depth_to_space(net) == 0
    assert [node.get_type_name() for node in net.get_ordered_ops()] == before
