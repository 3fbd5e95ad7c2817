"""A package whose output is as large as its input, for software that can cut tiles of such nets only.

bioimage.io describes an output that is smaller than its input, but the blocks of bioimageio.core 0.11 end in an error
with it: they want an output of the input's size, whose border ("halo") they throw away. One node at the end of the
graph gives them that, and costs next to nothing: it puts the lost border back, filled with zeros.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model.package import Package, tensor_bytes, write_package
from model.tiling import AxisGeometry, Geometry


def with_halo(package: Package, folder: Path) -> Package:
    """Return the package as it is where its output has the input's size, else one with the same weights that has it.

    Parameters
    ----------
    package
        Any that is served.
    folder
        Where the other one is written.

    """
    spec = package.spec
    half_yx = spec.geometry.y.shrink // 2, spec.geometry.x.shrink // 2
    if half_yx == (0, 0):
        return package
    raw, golden = package.golden_pair()
    padded = np.pad(golden, ((0, 0), (0, 0), (half_yx[0],) * 2, (half_yx[1],) * 2))
    documents = () if spec.documentation is None else (spec.documentation,)
    files = {
        spec.weights.source: _pad_output(package.weights(), len(spec.classes), half_yx),
        spec.test_input.source: tensor_bytes(raw),
        spec.test_output.source: tensor_bytes(padded),
        **{file.source: b"The same net, its output padded.\n" for file in (*documents, *spec.attachments)},
    }
    geometry = Geometry(_with_halo(spec.geometry.y), _with_halo(spec.geometry.x))
    return write_package(folder / spec.name, spec.model_copy(update={"geometry": geometry, "variants": ()}), files)


def _with_halo(axis: AxisGeometry) -> AxisGeometry:
    return replace(axis, shrink=0, halo=axis.margin)


def _pad_output(weights: bytes, classes: int, half_yx: tuple[int, int]) -> bytes:
    """ONNX bytes of a graph of one output (b, c, y, x), with ``half_yx`` rows and columns of zeros on each side."""
    net = onnx.load_from_string(weights)
    graph = net.graph
    name = graph.output[0].name
    inner = f"{name}_inner"
    for node in graph.node:
        for tensors in (node.input, node.output):
            for index, tensor in enumerate(tensors):
                if tensor == name:
                    tensors[index] = inner
    pads = np.array([0, 0, *half_yx, 0, 0, *half_yx], dtype=np.int64)
    graph.initializer.append(numpy_helper.from_array(pads, f"{name}_pads"))
    graph.node.append(helper.make_node("Pad", [inner, f"{name}_pads"], [name]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", classes, "rows", "columns"]))
    onnx.checker.check_model(net)
    return bytes(net.SerializeToString())
