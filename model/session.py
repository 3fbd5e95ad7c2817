"""One ONNX net on one explicitly chosen execution provider, never silently on another.

| backend    | runs on                                             | needs                                      |
| ---------- | --------------------------------------------------- | ------------------------------------------ |
| `cuda`     | ONNX Runtime, CUDAExecutionProvider, fp32, fp16     | onnxruntime-gpu, an NVIDIA GPU             |
| `tensorrt` | ONNX Runtime, TensorrtExecutionProvider, fp32, fp16 | onnxruntime-gpu, TensorRT, an NVIDIA GPU   |
| `openvino` | OpenVINO's own runtime on the CPU, fp32, bf16, int8 | openvino                                   |
| `cpu`      | ONNX Runtime, CPUExecutionProvider, fp32, int8, and | onnxruntime (or onnxruntime-gpu)           |
|            | fp16, which is no faster there                      |                                            |
| `auto`     | cuda where a GPU answers, else openvino where it is installed, else cpu                         | |

onnxruntime-gpu lists CUDA and accepts it on machines without a GPU, then runs on the CPU: after opening, the provider
that the session really has is compared with the one that was asked for.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from model.backends import (
    GPU_BACKENDS,
    PROVIDERS,
    Backend,
    InferenceSession,
    OnnxRuntimeSession,
    Precision,
    SessionOptions,
    activation_bytes_per_pixel,
    cpu_has_int8,
)
from model.errors import BackendUnavailable, InvalidPackage, UnsupportedPackage
from model.normalization import fit
from model.openvino_backend import OpenVinoSession, openvino_has_bf16
from model.package import Package
from model.spec import ModelSpec

# OpenVINO's kernels gain without instructions for sums of 8-bit products, too: with AVX2 alone twice the speed of fp32
_X86 = frozenset({"x86_64", "AMD64"})

__all__ = [
    "GPU_BACKENDS",
    "Backend",
    "InferenceSession",
    "Precision",
    "SessionOptions",
    "activation_bytes_per_pixel",
    "golden_outputs",
    "gpu_count",
    "gpu_names",
    "has_bf16",
    "has_fast_int8",
    "open_session",
    "resolve_backend",
    "runnable_precisions",
    "self_test",
]


def gpu_count() -> int:
    """Number of NVIDIA GPUs that the driver reports; 0 where there is no driver."""
    return len(gpu_names())


def gpu_names() -> tuple[str, ...]:
    """Name of each NVIDIA GPU that the driver reports, in the order of their numbers; none where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    names = []
    for number in range(count.value):
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
        known = driver.cuDeviceGet(ctypes.byref(device), number) == 0
        known = known and driver.cuDeviceGetName(name, len(name), device) == 0
        names.append(name.value.decode(errors="replace") if known else "GPU without a name")
    return tuple(names)


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
        if gpu_count() > 0 and PROVIDERS["cuda"] in _listed_providers():
            backend = "cuda"
        else:
            backend = "openvino" if importlib.util.find_spec("openvino") else "cpu"
    if backend in GPU_BACKENDS and gpu_count() == 0:
        raise BackendUnavailable(
            f"backend {backend}: the driver reports 0 NVIDIA GPUs, 1 is needed; start the container with --gpus, or "
            "choose backend cpu"
        )
    if backend in GPU_BACKENDS and (missing := [number for number in options.devices if number >= gpu_count()]):
        raise BackendUnavailable(
            f"backend {backend}: GPU {missing[0]} is asked for, the driver reports {gpu_count()}; choose from 0 to "
            f"{gpu_count() - 1}"
        )
    if options.require_gpu and backend not in GPU_BACKENDS:
        remedies = [] if gpu_count() else ["start the container with --gpus all, or install NVIDIA's driver"]
        if PROVIDERS["cuda"] not in _listed_providers():
            remedies.append("install onnxruntime-gpu in place of onnxruntime")
        if options.backend != "auto":
            remedies.append("choose backend cuda")
        raise BackendUnavailable(
            f"a GPU is required, but backend {options.backend!r} means {backend!r} here ({gpu_count()} NVIDIA GPUs, "
            f"ONNX Runtime lists {', '.join(_listed_providers())}); {' and '.join(remedies)}; or set "
            "UNET_REQUIRE_GPU=false"
        )
    if backend == "openvino" and importlib.util.find_spec("openvino") is None:
        raise BackendUnavailable("backend openvino: the package is not installed; pip install openvino, or choose cpu")
    if backend in PROVIDERS and PROVIDERS[backend] not in _listed_providers():
        raise BackendUnavailable(
            f"backend {backend}: this build of ONNX Runtime has {', '.join(_listed_providers())}; install "
            "onnxruntime-gpu in its place, or choose backend cpu"
        )
    return backend


def has_bf16(backend: str) -> bool:
    """Whether a backend computes in bf16 on this machine."""
    return backend == "openvino" and openvino_has_bf16()


def has_fast_int8(backend: str) -> bool:
    """Whether int8 is faster than fp32 on a CPU backend of this machine."""
    return cpu_has_int8() or (backend == "openvino" and platform.machine() in _X86)


def runnable_precisions(package: Package, backend: str) -> tuple[Precision, ...]:
    """Precisions below fp32 that are faster on a backend of this machine, the fastest first; fp32 last."""
    if backend in GPU_BACKENDS:
        return "fp16", "fp32"
    found: list[Precision] = []
    if package.spec.variant("int8") is not None:
        found.append("int8")
    if has_bf16(backend):
        found.append("bf16")
    return (*found, "fp32")


def _listed_providers() -> list[str]:
    import onnxruntime as ort

    return list(ort.get_available_providers())


def open_session(package: Package, options: SessionOptions) -> InferenceSession:
    """Load a package's net on the first of ``options.devices``.

    Raises
    ------
    BackendUnavailable
        Where the backend or the precision is not there, or the runtime chose another one.
    UnsupportedPackage
        Where the package has no weights for the precision.
    InvalidPackage
        Where the runtime cannot load the weights, or their names and channels are not those declared.

    """
    backend = resolve_backend(options)
    precision = "fp32" if options.precision == "auto" else options.precision
    if precision == "bf16" and not has_bf16(backend):
        raise BackendUnavailable(
            f"precision bf16: backend {backend} has none on this machine, OpenVINO has it on CPUs with AVX-512 BF16 or "
            "AMX; choose precision auto or fp32"
        )
    if precision == "int8" and backend in GPU_BACKENDS:
        raise BackendUnavailable(
            f"precision int8: backend {backend} has none, openvino and cpu have; choose precision auto, fp16 or fp32"
        )
    if precision == "fp16" and backend == "openvino":
        raise BackendUnavailable(
            "precision fp16: backend openvino has none, cuda, tensorrt and cpu have; choose backend cpu, or precision "
            "auto or fp32"
        )
    if precision == "int8" and package.spec.variant(precision) is None:
        raise UnsupportedPackage(
            f"{package.path}: precision int8 needs a graph of its own, the package has none; add it with unet-train "
            "quantize, or choose precision auto or fp32"
        )
    if backend == "openvino":
        return OpenVinoSession(package, options, precision)
    return OnnxRuntimeSession(package, backend, options, precision)


def golden_outputs(session: InferenceSession, package: Package) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run the test input; returns what came out and the package's own test output, both (1, classes, y, x)."""
    raw, golden = package.golden_pair()
    image_yxc = np.moveaxis(raw[0], 0, -1)
    return session.run(fit(package.spec.normalization, image_yxc).apply(image_yxc)[np.newaxis]), golden


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
    UnsupportedPackage
        Where the output is no probability.

    """
    spec: ModelSpec = package.spec
    output, golden = golden_outputs(session, package)
    if golden.min() < -spec.tolerance.absolute or golden.max() > 1 + spec.tolerance.absolute:
        raise UnsupportedPackage(
            f"{package.path}: the test output ranges from {golden.min():.3g} to {golden.max():.3g}; probabilities "
            "from 0 to 1 are served: declare softmax or sigmoid as post-processing"
        )
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
