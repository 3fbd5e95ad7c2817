"""A net in 8-bit integers: its ONNX graph with QuantizeLinear and DequantizeLinear around every convolution but two.

Weights are symmetric int8 with a scale for each output channel, activations uint8 with a range for each tensor: what
VNNI multiplies at full rate. The first convolution (the image keeps its bits) and the last one (probabilities keep
theirs) stay in fp32. Up-convolutions become 1x1 convolutions and a shuffle of pixels, the same sums in a form that
quantises. Channels are made more equal in size before (:mod:`.equalize`). Ranges are percentiles of what the
tensors hold on calibration images; of a few percentiles the one is taken whose answers differ least from fp32 on these
images. ONNX Runtime's own quantiser does the rest.

    M. Nagel et al.: A White Paper on Neural Network Quantization. arXiv:2106.08295, sections 2 and 3.1
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from model.agreement import Agreement, agreement
from model.stitching import Run
from model.tiling import valid_unet_geometry
from model.unet import UNet
from training.packaging.equalize import equalized
from training.packaging.onnx_graph import to_graph

Tiles: TypeAlias = Sequence[NDArray[np.float32]]
"""Normalised tiles (1, c, y, x) of legal sizes."""

_PERCENTILES = (99.99, 99.997, 99.999)
_KINDS = ["Conv", "MaxPool", "Concat", "Slice", "Reshape", "Transpose", "Relu"]
_INPUT = "image"


@dataclass(frozen=True, slots=True)
class Quantised:
    """An int8 graph as ONNX bytes, the percentile of its ranges, and how far it stands from fp32 on the calibration."""

    weights: bytes
    percentile: float
    agreement: Agreement


def quantise(net: UNet, tiles: Tiles) -> Quantised:
    """Quantise a net.

    Parameters
    ----------
    net
        In evaluation mode, on the CPU; its batch normalisation folded.
    tiles
        What the ranges are taken from: from a dozen images at least, as varied as those that will be served.

    """
    plain = nn.Sequential(shuffled(equalized(net, tiles)), _Softmax()).eval()
    graph = _of_any_size(to_graph(plain, valid_unet_geometry(net.depth, net.downscale).y, net.in_channels))
    for node in graph.graph.node:
        node.name = node.name or node.output[0]
    fp32 = _runner(graph.SerializeToString())
    expected = [fp32(tile) for tile in tiles]
    pixels = [probabilities[0, 0].size for probabilities in expected]
    found: list[Quantised] = []
    for percentile, ranges in _ranges(graph, tiles):
        weights = _with_integers(copy.deepcopy(graph), ranges)
        int8 = _runner(weights)
        compared = pooled([agreement(int8(tile), whole) for tile, whole in zip(tiles, expected, strict=True)], pixels)
        found.append(Quantised(weights, percentile, compared))
    return min(found, key=lambda candidate: candidate.agreement.other_class)


def pooled(parts: Sequence[Agreement], pixels: Sequence[int]) -> Agreement:
    """Agreement over all pixels of several images of so many pixels each."""
    other = sum(part.other_class * count for part, count in zip(parts, pixels, strict=True))
    return Agreement(other / sum(pixels), max(part.largest_difference for part in parts))


def shuffled(net: UNet) -> nn.Module:
    """Return a copy whose 2x2 up-convolutions are 1x1 convolutions to four times the channels and a pixel shuffle."""
    copied = copy.deepcopy(net).eval()
    for block in copied.up:
        block.up = _as_shuffle(cast("nn.ConvTranspose2d", block.up))
    return copied


def _as_shuffle(up: nn.ConvTranspose2d) -> nn.Sequential:
    side = up.kernel_size[0]
    convolution = nn.Conv2d(up.in_channels, up.out_channels * side**2, kernel_size=1)
    with torch.no_grad():
        # (in, out, v, u) -> (v * u * out, in, 1, 1)
        convolution.weight.copy_(up.weight.permute(2, 3, 1, 0).reshape(-1, up.in_channels, 1, 1))
        if up.bias is not None and convolution.bias is not None:
            convolution.bias.copy_(up.bias.repeat(side**2))
    return nn.Sequential(convolution, _Shuffle(side))


class _Shuffle(nn.Module):
    """(b, v * u * c, y, x) -> (b, c, y * v, x * u), in steps that suit ONNX Runtime.

    Its integer convolutions keep channels last. There the shuffle moves rows of u * c values, where DepthToSpace turns
    everything round, moves single bytes, and turns all back; a fifth of the net's time. OpenVINO is the other way
    round, and gets the up-convolution back: :mod:`model.openvino_int8`.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, packed: Tensor) -> Tensor:
        batch, channels, y, x = packed.shape
        rows = packed.permute(0, 2, 3, 1).reshape(batch, y, x, self.side, channels // self.side)
        rows = rows.permute(0, 1, 3, 2, 4)
        return rows.reshape(batch, y * self.side, x * self.side, channels // self.side**2).permute(0, 3, 1, 2)


def _of_any_size(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Have each shuffle take the sizes of its input, in place of those that it was traced with; in place."""
    traced = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    known: dict[str, list[int]] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.graph.node:
        if node.op_type == "Reshape":
            *others, channels = traced[node.input[1]].tolist()
            sizes = node.input[1] = f"{node.output[0]}_sizes"
            if len(others) == 4:  # (b, y, x, v * u * c) to (b, y, x, v, u * c); zero is the size that is there
                packed, side = node.input[0], others[3]
                known[sizes] = [0, 0, 0, side, channels]
                del node.attribute[:]  # by which zero would be none
            else:  # (b, y, v, x, u * c) to (b, y * v, x * u, c)
                known |= {f"{sizes}_times": [1, side, side], f"{sizes}_channels": [channels]}
                nodes += [
                    helper.make_node("Shape", [packed], [f"{sizes}_before"], end=3),
                    helper.make_node("Mul", [f"{sizes}_before", f"{sizes}_times"], [f"{sizes}_larger"]),
                    helper.make_node("Concat", [f"{sizes}_larger", f"{sizes}_channels"], [sizes], axis=0),
                ]
        nodes.append(node)
    read = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in graph.graph.initializer if tensor.name in read]
    tensors += [numpy_helper.from_array(np.array(values), name) for name, values in known.items()]
    for held, kept in ((graph.graph.node, nodes), (graph.graph.initializer, tensors)):
        del held[:]
        held.extend(kept)
    return graph


class _Softmax(nn.Module):
    """Softmax over the channels in single operations: ONNX Runtime's own takes three times as long on that axis."""

    def forward(self, logits: Tensor) -> Tensor:
        powers = torch.exp(logits - logits.amax(dim=1, keepdim=True))
        return powers / powers.sum(dim=1, keepdim=True)


def _ranges(graph: onnx.ModelProto, tiles: Tiles) -> Iterator[tuple[float, Any]]:
    """Ranges of every tensor by percentile, from one pass over the tiles."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "fp32.onnx"
        onnx.save(graph, path)
        calibrator = create_calibrator(
            path,
            op_types_to_calibrate=_KINDS,
            augmented_model_path=str(Path(folder) / "all.onnx"),
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"percentile": _PERCENTILES[0], "num_bins": 2048},
        )
        for tile in tiles:
            calibrator.collect_data(_one(tile))  # it keeps all it is given in one call
        for percentile in _PERCENTILES:
            calibrator.collector.percentile = percentile
            yield percentile, calibrator.compute_data()


def _one(tile: NDArray[np.float32]) -> Any:  # noqa: ANN401 - a class of an untyped library
    """Return a reader of one tile, as ONNX Runtime's calibration wants it."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc] # untyped base
        def __init__(self) -> None:
            self._left = [{_INPUT: tile}]

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return self._left.pop() if self._left else None

    return Reader()


def _with_integers(graph: onnx.ModelProto, ranges: Any) -> bytes:  # noqa: ANN401 - a class of an untyped library
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    kinds = {"Conv", "ConvTranspose"}
    convolutions = [node for node in graph.graph.node if node.op_type in kinds]
    # a net of blocks begins with a convolution of grey values to blocks of them: the one after it sees the image first
    first = 1 + (convolutions[0].input[0] == _INPUT and _stride(convolutions[0]) > 1)
    excluded = [node.name for node in (*convolutions[:first], convolutions[-1])]
    with _quiet():
        quantizer = QDQQuantizer(
            graph,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=excluded,
            op_types_to_quantize=_KINDS,
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    quantised = quantizer.model.model
    onnx.checker.check_model(quantised)
    return bytes(quantised.SerializeToString())


def _stride(node: onnx.NodeProto) -> int:
    return next((int(entry.ints[0]) for entry in node.attribute if entry.name == "strides"), 1)


def _runner(weights: bytes) -> Run:
    session = ort.InferenceSession(weights, providers=["CPUExecutionProvider"])
    run: Callable[..., Any] = session.run

    def probabilities(tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        (output,) = run(None, {_INPUT: tiles_bcyx})
        return np.asarray(output, dtype=np.float32)

    return probabilities


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user what the quantiser prints and logs of itself, with hints at steps that are not needed here."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.root.setLevel(level)
