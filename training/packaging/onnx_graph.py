"""A net as an ONNX graph: free batch and size, nothing of the exporter left in it, weights in fp32 or fp16."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from model.tiling import AxisGeometry
from training.errors import ExportError

OPSET = 18


def to_onnx(probabilities: nn.Module, axis: AxisGeometry, channels: int) -> bytes:
    """ONNX bytes of a net with dynamic batch, height and width, its weights stored as fp16 and cast when loaded."""
    graph = _with_half_weights(to_graph(probabilities, axis, channels))
    onnx.checker.check_model(graph, full_check=True)
    return bytes(graph.SerializeToString())


def to_graph(probabilities: nn.Module, axis: AxisGeometry, channels: int) -> onnx.ModelProto:
    """ONNX graph of a net with dynamic batch, height and width, weights in fp32.

    The net is traced at one size, with the sizes freed afterwards: torch takes five to eight times as long to reason
    about sizes that it does not know. What a net reads off the sizes of its tensors is a constant of the graph, and
    must be put right by who has such a net; :class:`model.unet.UNet` reads nothing off them.
    """
    grid, smallest = axis.step, axis.minimum
    example = torch.zeros(2, channels, smallest + grid, smallest + 2 * grid)
    with _quiet_exporter():
        program = torch.onnx.export(
            probabilities,
            (example,),
            dynamo=True,
            input_names=["image"],
            output_names=["probabilities"],
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch returned no ONNX program")
    graph = _without_notes(program.model_proto)
    for value, lost in ((graph.graph.input[0], 0), (graph.graph.output[0], axis.shrink)):
        sizes = {0: "batch", **{n: f"{grid}*{name} + {smallest - lost}" for n, name in ((2, "rows"), (3, "columns"))}}
        for dimension, size in sizes.items():
            value.type.tensor_type.shape.dim[dimension].dim_param = size
    return graph


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep from the user what torch's exporter says of itself.

    Those are its steps, its own use of what it deprecates, and that operators of torchvision, which no net here has,
    are not there.
    """
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _without_notes(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Drop source paths and traces that the exporter leaves in each node."""
    graph = copy.deepcopy(graph)
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    del graph.graph.value_info[:]
    return graph


def _with_half_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Store the weights as fp16, in place."""
    casts = []
    for tensor in graph.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        name = tensor.name
        stored = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name + "_fp16")
        tensor.CopyFrom(stored)
        casts.append(helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT))
    # in front: ONNX wants every value to be made before it is used; runtimes fold these casts at load
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph
