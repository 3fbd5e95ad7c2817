"""OpenVINO's own runtime behind a session."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backends import (
    SessionOptions,
    activate,
    activation_bytes_per_pixel,
    one_by_one,
    takes_single_tiles,
    tensor_names,
)
from model.errors import BackendUnavailable, InvalidPackage
from model.openvino_int8 import rewrite
from model.package import Package
from model.runtime_errors import first_line, inference_error, with_four_axes

_TYPES = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
_KEPT_SHARE = 0.85  # of what a tile is counted with, as much is there and stays: up to 0.83 (docs/speed.md)


@cache
def _openvino() -> Any:  # noqa: ANN401 - openvino is not installed everywhere
    """Return the one ``openvino.Core`` of the process, which is never given up.

    Its CPU plugin gives the thread that loads it a stack for signals, and unmaps that stack when the plugin goes, in
    whatever thread that happens: the next signal to the first thread would end the process.
    """
    import openvino as ov

    return ov.Core()


class OpenVinoSession:
    """OpenVINO on the CPU, with one request object for each calling thread."""

    def __init__(self, package: Package, options: SessionOptions, precision: str) -> None:
        import openvino as ov

        self.backend = "openvino"
        self.evidence = None
        self.precision = precision
        self.provider = f"OpenVINO {ov.__version__.split('-', maxsplit=1)[0]} CPU"
        self._activation = package.spec.activation
        self._activations = options.activations
        self._kept_per_pixel = activation_bytes_per_pixel(package.spec, self) * _KEPT_SHARE
        core = _openvino()
        hints: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            # always said: left to itself the plugin takes bf16 wherever the CPU has it, and nobody would know
            "INFERENCE_PRECISION_HINT": _TYPES[precision],
            # what the plugin keeps for shapes it has seen, some 30 entries each: of the last two. Its 5,000 would take
            # 400 MB and more, 256 take 140, and no tile runs faster for them (docs/speed.md)
            "CPU_RUNTIME_CACHE_CAPACITY": "64",
        }
        if options.threads > 0:
            hints["INFERENCE_NUM_THREADS"] = options.threads
        try:
            net = core.read_model(package.weights(precision))
            if precision == "int8":
                rewrite(net)
            names = [tensor.get_any_name() for tensor in net.inputs], [tensor.get_any_name() for tensor in net.outputs]
            _, output_name = tensor_names(package, *names)
            shape = net.inputs[0].get_partial_shape()
            fixed = shape.rank.is_static and shape[0].is_static
            self._single = takes_single_tiles(package, shape[0].get_length() if fixed else None)
            self._compiled = core.compile_model(net, "CPU", hints)
        except RuntimeError as error:
            raise InvalidPackage(f"{package.path}: OpenVINO cannot load the weights: {first_line(error)}") from error
        found = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if found != _TYPES[precision]:
            raise BackendUnavailable(
                f"backend openvino: {precision} was asked for, the runtime took {found}; choose precision fp32"
            )
        self._output = self._compiled.output(output_name)
        self._requests = threading.local()

    def run(self, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`InferenceSession`."""
        if self._single and len(tiles_bcyx) > 1:
            return one_by_one(self.run, tiles_bcyx)
        batch, _, height, width = tiles_bcyx.shape
        try:
            with self._activations.taken(self, batch * height * width * self._kept_per_pixel):
                if not hasattr(self._requests, "mine"):
                    self._requests.mine = self._compiled.create_infer_request()
                output = self._requests.mine.infer([tiles_bcyx], share_inputs=True)[self._output].copy()
        except RuntimeError as error:
            raise inference_error(error, tiles_bcyx.shape) from error
        return activate(with_four_axes(output), self._activation)

    def release(self) -> None:
        """Give the memory of activations back, which is kept for the next run."""
        self._compiled.release_memory()


def openvino_has_bf16() -> bool:
    """Whether OpenVINO computes bf16 on this CPU (AVX-512 BF16, AMX or AVX-VNNI-2)."""
    return "BF16" in _openvino().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
