"""Sessions: every backend gives the package's own answer or says why it cannot run."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from model import backends
from model.backends import OnnxRuntimeSession
from model.errors import BackendUnavailable, InferenceFailed, InvalidPackage, UnsupportedPackage
from model.package import RDF_NAME, ZOO, Package, read_package, tensor_bytes, write_package
from model.session import Backend, Precision, SessionOptions, gpu_count, open_session, resolve_backend, self_test
from tests.packages import expected_foreground, threshold_net, write_tiny_package

CPU_BACKENDS: list[Backend] = ["cpu", "openvino"]


@pytest.fixture
def tiny(tmp_path: Path) -> Package:
    return write_tiny_package(tmp_path)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_backend_computes_what_the_graph_says(tiny: Package, backend: Backend) -> None:
    session = open_session(tiny, SessionOptions(backend=backend, threads=1))
    assert session.backend == backend
    tiles = np.random.default_rng(0).random((3, 1, 20, 26), dtype=np.float32)
    output = session.run(tiles)
    assert output.dtype == np.float32
    assert output.shape == (3, 2, 4, 10)
    np.testing.assert_allclose(output[1, 1], expected_foreground(tiles[1, :, 8:-8, 8:-8]), atol=1e-5)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_the_golden_pair_is_reproduced(tiny: Package, backend: Backend) -> None:
    assert self_test(open_session(tiny, SessionOptions(backend=backend)), tiny) < 1e-5


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_weights_that_do_something_else_fail_the_self_test(tiny: Package, backend: Backend) -> None:
    files = {file.name: file.read_bytes() for file in tiny.path.iterdir() if file.name != RDF_NAME}
    files["weights.onnx"] = threshold_net(gain=19.0)
    package = write_package(tiny.path, tiny.spec, files)
    with pytest.raises(InvalidPackage, match="do not do what the package says"):
        self_test(open_session(package, SessionOptions(backend=backend)), package)


def test_a_golden_output_of_nan_fails_the_self_test(tiny: Package) -> None:
    files = {file.name: file.read_bytes() for file in tiny.path.iterdir() if file.name != RDF_NAME}
    files["test_output.npy"] = tensor_bytes(np.full_like(tiny.golden_pair()[1], np.nan))
    package = write_package(tiny.path, tiny.spec, files)
    with pytest.raises(InvalidPackage, match="values of the test output differ"):
        self_test(open_session(package, SessionOptions(backend="cpu")), package)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_weights_that_are_no_onnx_are_refused(tiny: Package, backend: Backend) -> None:
    files = {file.name: file.read_bytes() for file in tiny.path.iterdir() if file.name != RDF_NAME}
    files["weights.onnx"] = b"not a graph"
    package = write_package(tiny.path, tiny.spec, files)
    with pytest.raises(InvalidPackage, match="cannot load the weights"):
        open_session(package, SessionOptions(backend=backend))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_net_that_fails_in_its_graph_says_so_by_an_error_and_prints_nothing(
    backend: Backend, capfd: pytest.CaptureFixture[str]
) -> None:
    """The log is one JSON object a line."""
    session = open_session(read_package(ZOO / "nuclei"), SessionOptions(backend=backend, precision="fp32", threads=1))
    for size in (64, 252):
        with pytest.raises(InferenceFailed) if size == 64 else nullcontext():
            session.run(np.zeros((1, 1, size, size), dtype=np.float32))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_tile_of_wrong_channels_is_an_error_of_that_batch(tiny: Package, backend: Backend) -> None:
    session = open_session(tiny, SessionOptions(backend=backend))
    with pytest.raises(InferenceFailed, match=r"\(1, 3, 20, 20\)"):
        session.run(np.zeros((1, 3, 20, 20), dtype=np.float32))
    assert session.run(np.zeros((1, 1, 20, 20), dtype=np.float32)).shape == (1, 2, 4, 4)


@pytest.mark.skipif(gpu_count() > 0, reason="says what happens without a GPU")
@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "tensorrt"])
def test_without_a_gpu_a_gpu_backend_is_refused_and_not_replaced(tiny: Package, backend: Backend) -> None:
    with pytest.raises(BackendUnavailable, match="0 NVIDIA GPUs"):
        open_session(tiny, SessionOptions(backend=backend))


@pytest.mark.skipif(gpu_count() > 0, reason="says what happens without a GPU")
@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["auto", "cpu", "openvino"])
def test_a_required_gpu_that_is_missing_is_refused(backend: Backend) -> None:
    with pytest.raises(BackendUnavailable, match="a GPU is required"):
        resolve_backend(SessionOptions(backend=backend, require_gpu=True))


@pytest.mark.parametrize(
    ("gpus", "cuda", "backend", "remedy"),
    [
        (0, True, "auto", "start the container with --gpus all, or install NVIDIA's driver"),
        (1, False, "auto", "install onnxruntime-gpu in place of onnxruntime"),
        (1, True, "cpu", "choose backend cuda"),
        (
            0,
            False,
            "openvino",
            "start the container with --gpus all, or install NVIDIA's driver and install onnxruntime-gpu in place of "
            "onnxruntime and choose backend cuda",
        ),
    ],
)
def test_a_required_gpu_that_is_missing_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, gpus: int, cuda: bool, backend: Backend, remedy: str
) -> None:
    listed = [*(["CUDAExecutionProvider"] if cuda else []), "CPUExecutionProvider"]
    monkeypatch.setattr("model.session.gpu_count", lambda: gpus)
    monkeypatch.setattr("model.session._listed_providers", lambda: listed)
    with pytest.raises(BackendUnavailable) as refused:
        resolve_backend(SessionOptions(backend=backend, require_gpu=True))
    assert str(refused.value).endswith(f"; {remedy}; or set UNET_REQUIRE_GPU=false")


@pytest.mark.skipif(gpu_count() == 0, reason="needs a GPU")
@pytest.mark.gpu
def test_cuda_runs_on_cuda(tiny: Package) -> None:
    session = open_session(tiny, SessionOptions(backend="cuda", require_gpu=True))
    assert session.provider == "CUDAExecutionProvider"
    assert self_test(session, tiny) < 1e-3


@pytest.mark.skipif(gpu_count() == 0, reason="needs a GPU")
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("path", sorted(path.parent for path in ZOO.glob("*/rdf.yaml")), ids=lambda path: path.name)
def test_no_operator_of_a_shipped_net_stays_on_the_cpu(path: Path, precision: Precision) -> None:
    session = open_session(read_package(path), SessionOptions(backend="cuda", precision=precision))
    assert isinstance(session, OnnxRuntimeSession)
    assert session.elsewhere() == ()


def test_tensor_cores_compute_in_fp16_and_never_in_fp32() -> None:
    """The provider forbids all tensor cores where TF32 is off: fp32 stays exact, fp16 has to have them."""
    fp32, fp16 = (
        backends.provider_options("cuda", SessionOptions("cuda"), precision) for precision in ("fp32", "fp16")
    )
    assert (fp32["use_tf32"], fp32["prefer_nhwc"]) == ("0", "0")
    assert (fp16["use_tf32"], fp16["prefer_nhwc"]) == ("1", "1")
    assert fp32["cudnn_conv_algo_search"] == fp16["cudnn_conv_algo_search"] == "HEURISTIC"


def test_operators_are_told_by_who_runs_them(tiny: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(tiny, SessionOptions(backend="cpu"))
    assert isinstance(session, OnnxRuntimeSession)
    assert session.elsewhere() == ()
    monkeypatch.setattr(session, "provider", "CUDAExecutionProvider")  # as where a part of the net stays behind
    assert session.elsewhere() == ("Conv", "Slice", "Softmax")


def test_a_runtime_that_cannot_tell_who_runs_what_still_serves(
    tiny: Package, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def cannot_tell(_: OnnxRuntimeSession) -> tuple[str, ...]:
        raise AttributeError("no such method")

    monkeypatch.setattr(backends, "GPU_BACKENDS", frozenset({"cpu"}))
    monkeypatch.setattr(backends, "provider_options", lambda *_: {})
    monkeypatch.setattr(OnnxRuntimeSession, "elsewhere", cannot_tell)
    session = open_session(tiny, SessionOptions(backend="cpu"))
    assert "which operators run on the CPU cannot be told: no such method" in caplog.text
    assert self_test(session, tiny) < 1e-5


def test_an_unknown_backend_is_refused_with_the_choice() -> None:
    with pytest.raises(BackendUnavailable, match="auto, cuda, tensorrt, openvino, cpu"):
        resolve_backend(SessionOptions(backend="tpu"))  # type: ignore[arg-type]


def test_auto_names_a_backend_that_is_there() -> None:
    assert resolve_backend(SessionOptions()) in {"cuda", "openvino", "cpu"}


def test_a_package_from_disk_opens(tiny: Package) -> None:
    package = read_package(tiny.path)
    assert open_session(package, SessionOptions(backend="auto")).provider


def test_an_output_that_is_no_probability_is_refused(tiny: Package) -> None:
    files = {file.name: file.read_bytes() for file in tiny.path.iterdir() if file.name != RDF_NAME}
    files["test_output.npy"] = tensor_bytes(tiny.golden_pair()[1] * 6 - 3)
    package = write_package(tiny.path, tiny.spec, files)
    with pytest.raises(UnsupportedPackage, match="declare softmax or sigmoid"):
        self_test(open_session(package, SessionOptions(backend="cpu")), package)


def test_signals_pass_where_openvino_was_loaded_in_one_thread_and_left_in_another(tiny: Package) -> None:
    """Its plugin unmaps the stack for signals that it gave to the first thread: a server would die of its SIGTERM."""
    program = f"""
import gc, signal, threading
from pathlib import Path
from model.package import read_package
from model.session import SessionOptions, open_session

signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
held = [open_session(read_package(Path({str(tiny.path)!r})), SessionOptions(backend="openvino", threads=1))]

def leave():
    held.clear()
    gc.collect()

thread = threading.Thread(target=leave)
thread.start()
thread.join()
signal.raise_signal(signal.SIGUSR1)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (0, "heard\n"), finished.stderr
