"""Back from a package to a net that learns: the ONNX graph of a U-Net read into :class:`model.unet.UNet`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # no stubs
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

from model.unet import UNet
from training.errors import ForeignPackage

_OPERATORS = {"Cast", "Concat", "Constant", "Conv", "ConvTranspose", "Identity", "MaxPool", "Relu", "Slice", "Softmax"}


@dataclass(frozen=True, slots=True)
class _Layer:
    """One convolution of the graph: its weights as torch has them, its kernel and stride."""

    transposed: bool
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    stride: int

    @property
    def kernel(self) -> int:
        """Side of the square kernel."""
        return int(self.weight.shape[-1])


def read_unet(weights: bytes, name: str) -> UNet:
    """Build the net that an ONNX graph of ours describes, with its weights, in evaluation mode.

    Width, depth and blocks follow from the graph's convolutions in their order, whatever they are called. The result
    returns logits: a softmax at the graph's end is not part of it.

    Parameters
    ----------
    weights
        ONNX bytes, weights in fp32 or in fp16 behind casts.
    name
        What to call the graph in errors.

    Raises
    ------
    ForeignPackage
        Where it is no graph, or not of :class:`model.unet.UNet`.

    """
    try:
        graph = onnx.load_from_string(weights).graph
    except (DecodeError, ValueError) as error:
        raise ForeignPackage(f"{name} is no ONNX graph: {error}; fine-tuning begins with a package of ours") from error
    foreign = sorted({node.op_type for node in graph.node} - _OPERATORS)
    if foreign:
        raise _foreign(name, f"it holds {', '.join(foreign[:5])}")
    layers = _layers(graph, name)
    poolings = sum(node.op_type == "MaxPool" for node in graph.node)
    if len(layers) < 4 or not 1 <= poolings <= 6:
        raise _foreign(name, f"it has {len(layers)} convolutions and {poolings} poolings")
    downscale = layers[0].stride
    first, head = layers[0 if downscale == 1 else 1], layers[-1]
    net = UNet(
        in_channels=layers[0].weight.shape[1],
        classes=head.weight.shape[1 if head.transposed else 0],
        base_width=first.weight.shape[0],
        depth=poolings,
        dropout=0.0,
        downscale=downscale,
    )
    ours = _in_order(net)
    if len(ours) != len(layers):
        raise _foreign(name, f"it has {len(layers)} convolutions, a U-Net of depth {poolings} has {len(ours)}")
    with torch.no_grad():
        for number, (module, layer) in enumerate(zip(ours, layers, strict=True), start=1):
            same = isinstance(module, nn.ConvTranspose2d) == layer.transposed and module.stride[0] == layer.stride
            if not same or tuple(module.weight.shape) != layer.weight.shape or module.bias is None:
                expected = " x ".join(map(str, module.weight.shape))
                found = " x ".join(map(str, layer.weight.shape))
                raise _foreign(name, f"convolution {number} is {found}, a U-Net of ours has {expected} there")
            module.weight.copy_(torch.from_numpy(layer.weight))
            module.bias.copy_(torch.from_numpy(layer.bias))
    return net.eval()


def _in_order(net: UNet) -> list[nn.Conv2d | nn.ConvTranspose2d]:
    """Convolutions in the order in which an image passes them."""
    parts = [net.stem, *net.down, *net.up, net.head]
    modules = [module for part in parts for module in part.modules()]
    return [module for module in modules if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]


def _layers(graph: onnx.GraphProto, name: str) -> list[_Layer]:
    constants: dict[str, NDArray[Any]] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers: list[_Layer] = []
    for node in graph.node:
        if node.op_type in {"Cast", "Identity"} and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
        if node.op_type not in {"Conv", "ConvTranspose"}:
            continue
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        transposed = node.op_type == "ConvTranspose"
        given = [value for value in node.input[1:] if value]
        known = [constants[value] for value in given if value in constants]
        if len(given) == len(known) == 1 and known[0].ndim == 4:  # exporters leave a bias of zeros out
            known.append(np.zeros(known[0].shape[1 if transposed else 0], dtype=np.float32))
        strides = list(attributes.get("strides", [1, 1]))
        plain = not any(attributes.get("pads", [])) and attributes.get("group", 1) == 1 and strides[0] == strides[-1]
        if len(known) != 2 or known[0].ndim != 4 or not plain:
            raise _foreign(
                name, f"{node.op_type} {node.name or len(layers) + 1} is padded, grouped or without constant weights"
            )
        weight, bias = (np.array(array, dtype=np.float32) for array in known)
        layers.append(_Layer(transposed, weight, bias, int(strides[0])))
    return layers


def _foreign(name: str, what: str) -> ForeignPackage:
    return ForeignPackage(
        f"{name} is not the U-Net that is trained here: {what}. Begin with a package that unet-train wrote, or without"
    )
