"""A graph that reduces its own output gives the numbers that the CPU would, bit for bit."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import model
from model import backends
from model.half import half_graph
from model.label_rule import LabelRule
from model.labels import evidence_of
from model.package import Package, read_package
from model.reduced import EVIDENCE, with_evidence
from model.session import Precision, SessionOptions, gpu_count, open_session
from tests.packages import write_tiny_package

PACKAGES = sorted(path.parent for path in (Path(model.__file__).parent / "zoo").glob("*/rdf.yaml"))
RULES = (
    LabelRule(foreground=(1,)),
    LabelRule(foreground=(0,)),
    LabelRule(foreground=(2, 1, 0)),
    LabelRule(method="watershed", foreground=(1, 2), seeds=(1,), seed_threshold=0.3),
    LabelRule(method="watershed", foreground=(1, 2), seeds=(2, 1), seed_threshold=0.5),
    LabelRule(method="watershed", foreground=(0,), seeds=(0,), boundary=(2, 1), seed_threshold=0.2),
)


def identity(opset: int = 17, data_type: int = TensorProto.FLOAT, rank: int = 4) -> bytes:
    """A graph that returns its input, called "probabilities"."""
    kinds = [helper.make_tensor_value_info(name, data_type, [None] * rank) for name in ("image", "probabilities")]
    nodes = [helper.make_node("Identity", ["image"], ["probabilities"])]
    graph = helper.make_graph(nodes, "net", kinds[:1], kinds[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(made.SerializeToString())


def outputs(graph: bytes, image: NDArray[np.float32], *names: str) -> list[NDArray[np.float32]]:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run(names, {session.get_inputs()[0].name: image})
    return found


def on_the_cpu(probabilities: NDArray[np.float32], rule: LabelRule) -> NDArray[np.float32]:
    return np.stack([evidence_of(one, rule)[np.newaxis] for one in probabilities])


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("opset", [9, 17])
def test_evidence_is_that_of_the_cpu(rule: LabelRule, opset: int) -> None:
    probabilities = np.random.default_rng(0).dirichlet([0.3] * 3, size=(2, 40, 50)).astype(np.float32)
    probabilities = np.moveaxis(probabilities, -1, 1).copy()
    probabilities[0, :, 0, 0] = (1, 0, 0)
    reduced = with_evidence(identity(opset), "probabilities", 3, rule)
    assert reduced is not None
    whole, evidence = outputs(reduced, probabilities, "probabilities", EVIDENCE)
    np.testing.assert_array_equal(whole, probabilities)
    np.testing.assert_array_equal(evidence, on_the_cpu(probabilities, rule))
    assert np.array_equal(np.signbit(evidence), np.signbit(on_the_cpu(probabilities, rule)))
    assert evidence.shape == (2, 1, 40, 50)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_evidence_is_broken_where_any_channel_is(rule: LabelRule, broken: float, channel: int) -> None:
    probabilities = np.full((1, 3, 4, 5), 0.25, dtype=np.float32)
    probabilities[0, channel, 1, 2] = broken
    for opset in (9, 17):
        reduced = with_evidence(identity(opset), "probabilities", 3, rule)
        assert reduced is not None
        (evidence,) = outputs(reduced, probabilities, EVIDENCE)
        assert np.argwhere(~np.isfinite(evidence)).tolist() == [[0, 0, 1, 2]]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.name)
def test_evidence_of_a_shipped_net_is_that_of_its_probabilities(path: Path, precision: str) -> None:
    package = read_package(path)
    spec = package.spec
    graph = half_graph(package.weights()) if precision == "fp16" else package.weights()
    reduced = with_evidence(graph, spec.output_name, len(spec.classes), spec.label_rule)
    assert reduced is not None
    tile, _ = package.golden_pair()
    tile = (tile - tile.mean()) / tile.std()
    probabilities, evidence = outputs(reduced, tile, spec.output_name, EVIDENCE)
    np.testing.assert_array_equal(evidence, on_the_cpu(probabilities, spec.label_rule))
    assert (evidence > 0).any()
    assert (evidence < 0).any() == (spec.label_rule.method == "watershed")


@pytest.mark.skipif(gpu_count() == 0, reason="needs a GPU")
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.name)
def test_a_gpu_reduces_to_the_bits_of_the_cpu(path: Path, precision: Precision) -> None:
    package = read_package(path)
    session = open_session(package, SessionOptions("cuda", precision))
    assert isinstance(session, backends.OnnxRuntimeSession)
    assert session.evidence is not None
    tile, _ = package.golden_pair()
    feeds = {package.spec.input_name: (tile - tile.mean()) / tile.std()}
    probabilities, evidence = session.runtime.run([package.spec.output_name, EVIDENCE], feeds)
    np.testing.assert_array_equal(evidence, on_the_cpu(probabilities, package.spec.label_rule))


@pytest.mark.parametrize(
    "graph",
    [identity(data_type=TensorProto.FLOAT16), identity(rank=3), identity(opset=8)],
    ids=["half precision", "three axes", "an operator set without Where"],
)
def test_what_cannot_be_reduced_is_left_to_the_cpu(graph: bytes) -> None:
    assert with_evidence(graph, "probabilities", 2, LabelRule()) is None


def test_an_output_of_another_name_is_left_to_the_cpu() -> None:
    assert with_evidence(identity(), "somewhere", 2, LabelRule()) is None


def test_without_onnx_it_is_left_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert with_evidence(identity(), "probabilities", 2, LabelRule()) is None


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A package that is opened on the CPU as if that were a GPU."""
    monkeypatch.setattr(backends, "GPU_BACKENDS", frozenset({"cpu"}))
    monkeypatch.setattr(backends, "provider_options", lambda *_: {})
    return write_tiny_package(tmp_path)


def test_a_session_on_a_gpu_reduces_each_batch(tiny: Package) -> None:
    session = open_session(tiny, SessionOptions("cpu"))
    tiles = np.random.default_rng(1).random((3, 1, 20, 36), dtype=np.float32)
    assert session.evidence is not None
    probabilities = session.run(tiles)
    assert probabilities.shape == (3, 2, 4, 20)
    np.testing.assert_array_equal(session.evidence(tiles), on_the_cpu(probabilities, tiny.spec.label_rule))


def test_what_a_package_leaves_to_be_done_after_its_graph_is_not_left_out(tiny: Package) -> None:
    package = Package(tiny.path, tiny.spec.model_copy(update={"activation": "softmax"}))
    assert open_session(package, SessionOptions("cpu")).evidence is None


def test_two_calls_at_a_time_are_on_a_gpu(tiny: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(tiny, SessionOptions("cpu"))
    assert isinstance(session, backends.OnnxRuntimeSession)
    together, lock, seen, in_work = threading.Barrier(2), threading.Lock(), [], 0
    run = session.runtime.run

    def watched(*arguments: object) -> object:
        nonlocal in_work
        with lock:
            in_work += 1
            seen.append(in_work)
        together.wait(timeout=30)  # goes on as soon as there are two
        answer = run(*arguments)
        with lock:
            in_work -= 1
        return answer

    monkeypatch.setattr(session.runtime, "run", watched)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(session.run, [np.zeros((1, 1, 20, 20), dtype=np.float32)] * 12))
    assert len(seen) == 12
    assert max(seen) == 2
