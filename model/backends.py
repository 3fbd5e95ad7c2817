"""What every runtime behind a session has in common, and ONNX Runtime with one provider."""

from __future__ import annotations

import logging
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, Literal, Protocol

import numpy as np
import scipy
from numpy.typing import NDArray

from model.activations import Activations
from model.errors import BackendUnavailable, InvalidPackage, ModelError, UnsupportedPackage
from model.half import half_graph
from model.package import Package
from model.reduced import EVIDENCE, with_evidence
from model.runtime_errors import first_line, inference_error, with_four_axes
from model.spec import ModelSpec
from model.stitching import Run

_LOG = logging.getLogger("unet.model")
Backend = Literal["auto", "cuda", "tensorrt", "openvino", "cpu"]
Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]
# of ONNX Runtime's levels of severity: no warnings; and of a session no errors, which its exceptions tell
_ERRORS, _FATAL = 3, 4
GPU_BACKENDS = frozenset({"cuda", "tensorrt"})
_CALLS_AT_A_TIME = 2  # on one GPU: one is copied while the other computes; more would need more of its memory
_INT8_FEATURES = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})
# of what a package says, which is of fp32; at widths 16 to 64: up to 0.32, 0.46, 0.63 (docs/speed.md)
_ACTIVATION_SHARE = {("openvino", "int8"): 0.4, ("openvino", "bf16"): 0.55, ("cpu", "int8"): 0.7}
PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider", "cpu": "CPUExecutionProvider"}


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to open a session.

    Parameters
    ----------
    backend
        One of the table above.
    precision
        What the net computes in; ``auto`` is decided by :func:`model.precision.open_checked` and means fp32 elsewhere.
    require_gpu
        Refuse every backend that is not on a GPU, ``auto`` included.
    threads
        CPU threads of one call; 0 leaves it to the runtime.
    devices
        Numbers of the GPUs, one or more, each of which gets a copy of the net (:func:`model.precision.open_checked`).
    gpu_mem_limit_mb
        Most memory of ONNX Runtime's GPU arena, MiB; 0 for no limit.
    engine_cache
        Folder for TensorRT engines; empty for none.
    activations
        What OpenVINO's nets keep of what they ran last is bounded together; those of ONNX Runtime share what they keep.

    """

    backend: Backend = "auto"
    precision: Precision = "fp32"
    require_gpu: bool = False
    threads: int = 0
    devices: tuple[int, ...] = (0,)
    gpu_mem_limit_mb: int = 0
    engine_cache: str = ""
    activations: Activations = field(default_factory=Activations, compare=False)


class InferenceSession(Protocol):
    """A net that is loaded and runs."""

    @property
    def backend(self) -> str:
        """Name from the table above, never ``auto``."""
        ...

    @property
    def provider(self) -> str:
        """The execution provider that the runtime reports, as it names it."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in, never ``auto``."""
        ...

    @property
    def evidence(self) -> Run | None:
        """As ``run``, but returns (b, 1, y', x') of :func:`model.labels.evidence_of`; None where that saves nothing."""
        ...

    def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (b, classes, y', x') of normalised tiles (b, channels, y, x); both float32."""
        ...


def activation_bytes_per_pixel(spec: ModelSpec, session: InferenceSession) -> int:
    """Memory that one input pixel takes while ``session`` runs, bytes: in int8 and bf16 less than the package says."""
    share = _ACTIVATION_SHARE.get((session.backend, session.precision), 1.0)
    return math.ceil(spec.activation_bytes_per_pixel * share)


class OnnxRuntimeSession:
    """ONNX Runtime with one provider on one device, in the precision of the graph."""

    def __init__(self, package: Package, backend: str, options: SessionOptions, precision: str, **changed: str) -> None:
        """Open it; ``changed`` are provider options in place of ours, for benchmarks."""
        import onnxruntime as ort

        self.backend = backend
        self.precision = precision
        self._activation = package.spec.activation
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = _FATAL
        # tiles come in several shapes: a memory pattern for each costs a quarter more memory and gains no time
        settings.enable_mem_pattern = False
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if backend in GPU_BACKENDS:
            ort.set_default_logger_severity(_ERRORS)  # what is said outside of any session, once for each
            ort.preload_dlls()
        else:
            _share_memory()
            settings.add_session_config_entry("session.use_env_allocators", "1")
            # weights lie elsewhere: what is left of the memory after a net has gone is in one piece
            settings.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        try:
            graph = half_graph(package.weights()) if precision == "fp16" else package.weights(precision)
            reduced = None
            if backend in GPU_BACKENDS and self._activation == "none":
                spec = package.spec
                reduced = with_evidence(graph, spec.output_name, len(spec.classes), spec.label_rule)
            self.runtime = ort.InferenceSession(
                reduced or graph,
                sess_options=settings,
                providers=[(PROVIDERS[backend], provider_options(backend, options, precision) | changed)],
            )
        except ModelError:
            raise
        except Exception as error:
            if precision == "fp16":
                raise UnsupportedPackage(
                    f"{package.path}: {backend} cannot load the graph in fp16: {first_line(error)}"
                ) from error
            if backend in GPU_BACKENDS:
                raise BackendUnavailable(f"backend {backend} does not start: {first_line(error)}") from error
            raise InvalidPackage(
                f"{package.path}: ONNX Runtime cannot load the weights: {first_line(error)}"
            ) from error
        self.runtime.disable_fallback()
        self.provider = str(self.runtime.get_providers()[0])
        if self.provider != PROVIDERS[backend]:
            raise BackendUnavailable(
                f"backend {backend}: ONNX Runtime fell back to {self.provider}; its CUDA or cuDNN libraries do not "
                "load: install onnxruntime-gpu[cuda,cudnn], or choose backend cpu"
            )
        names = [t.name for t in self.runtime.get_inputs()], [t.name for t in self.runtime.get_outputs()]
        self._input_name, self._output_name = tensor_names(package, *names)
        batch = self.runtime.get_inputs()[0].shape[0]
        self._single = takes_single_tiles(package, batch if isinstance(batch, int) else None)
        self.evidence: Run | None = partial(self._run, EVIDENCE) if reduced else None
        self._turn: AbstractContextManager[Any] = nullcontext()
        if backend in GPU_BACKENDS:
            self._turn = BoundedSemaphore(_CALLS_AT_A_TIME)
            self._tell_elsewhere(package.path)

    def _tell_elsewhere(self, path: Path) -> None:
        try:
            elsewhere = self.elsewhere()
        except Exception as error:  # no reason to serve nothing
            _LOG.warning("%s: which operators run on the CPU cannot be told: %s", path, error)
        else:
            if elsewhere:
                _LOG.warning("%s: %s run on the CPU, not on %s", path, ", ".join(elsewhere), self.provider)

    def elsewhere(self) -> tuple[str, ...]:
        """Operators of the graph that another provider runs, none where all is well: shapes at most, on a GPU."""
        parts = self.runtime.get_provider_graph_assignment_info()
        return tuple(sorted({n.op_type for part in parts if part.ep_name != self.provider for n in part.get_nodes()}))

    def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`InferenceSession`."""
        return activate(self._run(self._output_name, tiles_bcyx), self._activation)

    def _run(self, output_name: str, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        count = len(tiles_bcyx)
        if self._single and count > 1:
            return one_by_one(partial(self._run, output_name), tiles_bcyx)
        if self.backend in GPU_BACKENDS:
            tiles_bcyx = filled_up(tiles_bcyx)
        try:
            with self._turn:
                (output,) = self.runtime.run([output_name], {self._input_name: tiles_bcyx})
        except Exception as error:
            raise inference_error(error, tiles_bcyx.shape) from error
        found: NDArray[np.float32] = with_four_axes(output)[:count]
        return found


@cache
def _share_memory() -> None:
    """Have all nets on the CPU take their activations from one pool, which each would keep as large for itself."""
    import onnxruntime as ort

    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)


def filled_up(tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tiles with zeros after them up to a batch of 1, 2, 4, 8 ...: a GPU runtime pays for each new shape."""
    missing = (1 << (len(tiles_bcyx) - 1).bit_length()) - len(tiles_bcyx)
    return np.pad(tiles_bcyx, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else tiles_bcyx


def takes_single_tiles(package: Package, batch: int | None) -> bool:
    """Whether a graph was exported for one tile at a time; ``batch`` is what it declares, None where it is free.

    Raises
    ------
    UnsupportedPackage
        Where it takes a fixed number of several.

    """
    if batch is not None and batch != 1:
        raise UnsupportedPackage(
            f"{package.path}: the graph takes batches of {batch} tiles alone; export it with a free batch, or one of 1"
        )
    return batch == 1


def one_by_one(run: Run, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run each tile of a batch by itself."""
    return np.concatenate([run(tile_cyx[np.newaxis]) for tile_cyx in tiles_bcyx])


def cpu_has_int8() -> bool:
    """Whether the CPU has instructions for sums of 8-bit products: AVX-512 VNNI, AVX-VNNI, AMX, ARM's dot product."""
    try:
        return not _INT8_FEATURES.isdisjoint(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:  # not Linux: int8 runs where it is asked for
        return False


def provider_options(backend: str, options: SessionOptions, precision: str) -> dict[str, str]:
    """What ONNX Runtime's provider of a backend is told."""
    if backend == "cpu":
        return {}
    chosen = {"device_id": str(options.devices[0])}
    if backend == "cuda":
        # an exhaustive search costs 0.6 s for every new shape, the heuristic one 2 ms
        chosen |= {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
        # by default it takes TF32 for fp32, and says nothing of it; forbidden in fp16, it takes the tensor cores along
        chosen["use_tf32"] = str(int(precision == "fp16"))
        # what tensor cores read fastest: 1.4 times as fast in fp16 (docs/speed.md)
        chosen["prefer_nhwc"] = str(int(precision == "fp16"))
        if options.gpu_mem_limit_mb:
            chosen["gpu_mem_limit"] = str(options.gpu_mem_limit_mb << 20)
    else:
        chosen["trt_fp16_enable"] = str(int(precision == "fp16"))
        if options.engine_cache:
            chosen |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": options.engine_cache}
    return chosen


def tensor_names(package: Package, inputs: list[str], outputs: list[str]) -> tuple[str, str]:
    """Tensor names in the graph: those declared, or the only ones there are."""
    spec = package.spec
    if len(inputs) != 1:
        raise UnsupportedPackage(
            f"{package.path}: the graph takes {len(inputs)} tensors ({', '.join(inputs)[:200]}), 1 is fed; export the "
            "net with its image as the only input"
        )
    for declared, found in ((spec.input_name, inputs), (spec.output_name, outputs)):
        if declared not in found and len(found) != 1:
            raise InvalidPackage(f"{package.path}: the package names tensor {declared!r}, its graph has {found}")
    return (
        spec.input_name if spec.input_name in inputs else inputs[0],
        spec.output_name if spec.output_name in outputs else outputs[0],
    )


def activate(output: NDArray[Any], activation: str) -> NDArray[np.float32]:
    """Apply what the package leaves to be done after its graph: softmax, sigmoid or nothing."""
    if activation == "softmax":
        output = scipy.special.softmax(output, axis=1)
    elif activation == "sigmoid":
        output = scipy.special.expit(output)
    return np.asarray(output).astype(np.float32, copy=False)
