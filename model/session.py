"""One ONNX net on one explicitly chosen execution provider, never silently on another.

| backend    | runs on                                             | needs                                      |
| ---------- | --------------------------------------------------- | ------------------------------------------ |
| `cuda`     | ONNX Runtime, CUDAExecutionProvider                 | onnxruntime-gpu, an NVIDIA GPU             |
| `tensorrt` | ONNX Runtime, TensorrtExecutionProvider             | onnxruntime-gpu, TensorRT, an NVIDIA GPU   |
| `openvino` | OpenVINO's own runtime on the CPU, fp32             | openvino                                   |
| `cpu`      | ONNX Runtime, CPUExecutionProvider                  | onnxruntime (or onnxruntime-gpu)           |
| `auto`     | cuda where a GPU answers, else openvino where it is installed, else cpu                         | |

onnxruntime-gpu lists CUDA and accepts it on machines without a GPU, then runs on the CPU: after opening, the provider
that the session really has is compared with the one that was asked for.
"""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from model.errors import BackendUnavailable, InferenceFailed, InvalidPackage, OutOfDeviceMemory
from model.normalization import fit
from model.package import Package
from model.spec import ModelSpec

Backend = Literal["auto", "cuda", "tensorrt", "openvino", "cpu"]
GPU_BACKENDS = frozenset({"cuda", "tensorrt"})
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider", "cpu": "CPUExecutionProvider"}


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to open a session.

    Parameters
    ----------
    backend
        One of the table above.
    require_gpu
        Refuse every backend that is not on a GPU, ``auto`` included.
    threads
        CPU threads of one call; 0 leaves it to the runtime.
    device_id
        Which GPU.
    gpu_mem_limit_mb
        Most memory of ONNX Runtime's GPU arena, MiB; 0 for no limit.
    engine_cache
        Folder for TensorRT engines; empty for none.

    """

    backend: Backend = "auto"
    require_gpu: bool = False
    threads: int = 0
    device_id: int = 0
    gpu_mem_limit_mb: int = 0
    engine_cache: str = ""


class InferenceSession(Protocol):
    """A net that is loaded and runs."""

    backend: str
    """Name from the table above, never ``auto``."""
    provider: str
    """The execution provider that the runtime reports, as it names it."""

    def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (b, classes, y', x') of normalised tiles (b, channels, y, x); both float32."""
        ...


def gpu_count() -> int:
    """Number of NVIDIA GPUs that the driver reports; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def resolve_backend(options: SessionOptions) -> str:
    """Return the backend that ``options`` mean on this machine.

    Raises
    ------
    BackendUnavailable
        Where it is not there, or is no GPU although one is required; the message says what to install.

    """
    if options.backend not in get_args(Backend):
        raise BackendUnavailable(f"there is no backend {options.backend!r}; choose from {', '.join(get_args(Backend))}")
    backend: str = options.backend
    if backend == "auto":
        if gpu_count() > 0 and _PROVIDERS["cuda"] in _listed_providers():
            backend = "cuda"
        else:
            backend = "openvino" if importlib.util.find_spec("openvino") else "cpu"
    if backend in GPU_BACKENDS and gpu_count() == 0:
        raise BackendUnavailable(
            f"backend {backend}: the driver reports 0 NVIDIA GPUs, 1 is needed; start the container with --gpus, or "
            "choose backend cpu"
        )
    if options.require_gpu and backend not in GPU_BACKENDS:
        raise BackendUnavailable(
            f"a GPU is required, but backend {options.backend!r} means {backend!r} here ({gpu_count()} NVIDIA GPUs, "
            f"ONNX Runtime lists {', '.join(_listed_providers())}); install onnxruntime-gpu and a driver, or drop "
            "the requirement"
        )
    if backend == "openvino" and importlib.util.find_spec("openvino") is None:
        raise BackendUnavailable("backend openvino: the package is not installed; pip install openvino, or choose cpu")
    if backend in _PROVIDERS and _PROVIDERS[backend] not in _listed_providers():
        raise BackendUnavailable(
            f"backend {backend}: this build of ONNX Runtime has {', '.join(_listed_providers())}; install "
            "onnxruntime-gpu in its place, or choose backend cpu"
        )
    return backend


def _listed_providers() -> list[str]:
    import onnxruntime as ort

    return list(ort.get_available_providers())


def open_session(package: Package, options: SessionOptions) -> InferenceSession:
    """Load a package's net.

    Raises
    ------
    BackendUnavailable
        Where the backend is not there, or the runtime chose another one.
    InvalidPackage
        Where the runtime cannot load the weights, or their names and channels are not those declared.

    """
    backend = resolve_backend(options)
    if backend == "openvino":
        return _OpenVinoSession(package, options.threads)
    return _OnnxRuntimeSession(package, backend, options)


class _OnnxRuntimeSession:
    """ONNX Runtime with one provider."""

    def __init__(self, package: Package, backend: str, options: SessionOptions) -> None:
        import onnxruntime as ort

        self.backend = backend
        self._activation = package.spec.activation
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        # tiles come in several shapes: a memory pattern for each costs a quarter more memory and gains no time
        settings.enable_mem_pattern = False
        if backend in GPU_BACKENDS:
            ort.preload_dlls()
        try:
            self._session = ort.InferenceSession(
                package.weights(),
                sess_options=settings,
                providers=[(_PROVIDERS[backend], _provider_options(backend, options))],
            )
        except Exception as error:
            if backend in GPU_BACKENDS:
                raise BackendUnavailable(f"backend {backend} does not start: {_first_line(error)}") from error
            raise InvalidPackage(
                f"{package.path}: ONNX Runtime cannot load the weights: {_first_line(error)}"
            ) from error
        self._session.disable_fallback()
        self.provider = str(self._session.get_providers()[0])
        if self.provider != _PROVIDERS[backend]:
            raise BackendUnavailable(
                f"backend {backend}: ONNX Runtime fell back to {self.provider}; its CUDA or cuDNN libraries do not "
                "load: install onnxruntime-gpu[cuda,cudnn], or choose backend cpu"
            )
        names = [t.name for t in self._session.get_inputs()], [t.name for t in self._session.get_outputs()]
        self._input_name, self._output_name = _tensor_names(package, *names)

    def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`InferenceSession`."""
        try:
            (output,) = self._session.run([self._output_name], {self._input_name: tiles_bcyx})
        except Exception as error:
            raise _inference_error(error, tiles_bcyx.shape) from error
        return _activate(output, self._activation)


class _OpenVinoSession:
    """OpenVINO on the CPU, in fp32; one request object for each calling thread is kept by OpenVINO itself."""

    def __init__(self, package: Package, threads: int) -> None:
        import openvino as ov

        self.backend = "openvino"
        self.provider = f"OpenVINO {ov.__version__.split('-', maxsplit=1)[0]} CPU"
        self._activation = package.spec.activation
        core = ov.Core()
        hints: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            # without it the plugin takes bf16 wherever the CPU has it, and answers change with the machine
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads > 0:
            hints["INFERENCE_NUM_THREADS"] = threads
        try:
            net = core.read_model(package.weights())
            names = [tensor.get_any_name() for tensor in net.inputs], [tensor.get_any_name() for tensor in net.outputs]
            _, output_name = _tensor_names(package, *names)
            self._compiled = core.compile_model(net, "CPU", hints)
        except RuntimeError as error:
            raise InvalidPackage(f"{package.path}: OpenVINO cannot load the weights: {_first_line(error)}") from error
        self._output = self._compiled.output(output_name)

    def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`InferenceSession`."""
        try:
            output = self._compiled.create_infer_request().infer([tiles_bcyx], share_inputs=True)[self._output]
        except RuntimeError as error:
            raise _inference_error(error, tiles_bcyx.shape) from error
        return _activate(output, self._activation)


def _provider_options(backend: str, options: SessionOptions) -> dict[str, str]:
    if backend == "cpu":
        return {}
    chosen = {"device_id": str(options.device_id)}
    if backend == "cuda":
        # an exhaustive search costs 0.6 s for every new shape, the heuristic one 2 ms
        chosen |= {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
        if options.gpu_mem_limit_mb:
            chosen["gpu_mem_limit"] = str(options.gpu_mem_limit_mb << 20)
    elif options.engine_cache:
        chosen |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": options.engine_cache}
    return chosen


def _tensor_names(package: Package, inputs: list[str], outputs: list[str]) -> tuple[str, str]:
    """Tensor names in the graph: those declared, or the only ones there are."""
    spec = package.spec
    for declared, found in ((spec.input_name, inputs), (spec.output_name, outputs)):
        if declared not in found and len(found) != 1:
            raise InvalidPackage(f"{package.path}: the package names tensor {declared!r}, its graph has {found}")
    return (
        spec.input_name if spec.input_name in inputs else inputs[0],
        spec.output_name if spec.output_name in outputs else outputs[0],
    )


def _activate(output: NDArray[Any], activation: str) -> NDArray[np.float32]:
    if activation == "softmax":
        output = softmax(output, axis=1)
    elif activation == "sigmoid":
        output = expit(output)
    return np.asarray(output).astype(np.float32, copy=False)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0][:300]


def _inference_error(error: Exception, shape: tuple[int, ...]) -> InferenceFailed:
    text = str(error).lower()
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text or "bad_alloc" in text:
        return OutOfDeviceMemory(f"no memory for a batch of shape {shape}; lower the memory budget or the batch")
    return InferenceFailed(f"the net failed on a batch of shape {shape}: {_first_line(error)}")


def self_test(session: InferenceSession, package: Package) -> float:
    """Run the package's golden pair and compare within its own tolerance.

    Returns
    -------
    float
        Largest absolute difference seen.

    Raises
    ------
    InvalidPackage
        Where more elements differ than the package allows.

    """
    spec: ModelSpec = package.spec
    raw, golden = package.golden_pair()
    image_yxc = np.moveaxis(raw[0], 0, -1)
    output = session.run(fit(spec.normalization, image_yxc).apply(image_yxc)[np.newaxis])
    if output.shape != golden.shape:
        raise InvalidPackage(
            f"{package.path}: the net returns shape {output.shape} for the test input, not {golden.shape}"
        )
    difference = np.abs(output - golden)
    allowed = spec.tolerance.absolute + spec.tolerance.relative * np.abs(golden)
    # written so that NaN counts as a mismatch
    mismatched = difference.size - int(np.count_nonzero(difference <= allowed))
    if mismatched > spec.tolerance.mismatched_per_million * difference.size / 1e6:
        raise InvalidPackage(
            f"{package.path}: {mismatched} of {difference.size} values of the test output differ on {session.provider} "
            f"by more than {spec.tolerance.absolute} + {spec.tolerance.relative} x; largest difference "
            f"{float(np.nan_to_num(difference, nan=np.inf).max()):.3g}; the weights do not do what the package says"
        )
    return float(difference.max())
