"""Packages as other people make them: without a word of ours, for a net that gives foreground and boundary apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.label_rule import LabelRule
from model.package import RDF_NAME, tensor_bytes, write_package
from model.spec import ModelSpec, PackageFile
from model.tiling import AxisGeometry, Geometry

INSIDE, BOUNDARY = 1.0, 0.5
"""Pixels that the net takes for the inside and the boundary of an object; 0 is background."""
_LOGITS = np.array([[40, 0, -10], [40, -40, -8.4]], dtype=np.float32)  # of pixel, its square, 1: foreground, boundary


def sigmoid_net() -> bytes:
    """ONNX of a net with a sigmoid for each of two channels: foreground, inside and boundary alike, and boundary."""
    nodes = [
        helper.make_node("Mul", ["image", "image"], ["square"]),
        helper.make_node("Concat", ["image", "square"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "weight", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    constants = {"weight": _LOGITS[:, :2, np.newaxis, np.newaxis], "bias": _LOGITS[:, 2]}
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 1, "y", "x"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["b", 2, "y", "x"])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(net, full_check=True)
    return bytes(net.SerializeToString())


def touching_pair() -> NDArray[np.float32]:
    """Two objects (32, 32) with a boundary around and between them."""
    image_yx = np.zeros((32, 32), dtype=np.float32)
    image_yx[4:28, 3:29] = BOUNDARY
    image_yx[6:26, 5:15] = image_yx[6:26, 17:27] = INSIDE
    return image_yx


def write_foreign_package(
    folder: Path, *, classes: Sequence[str] = ("foreground", "boundary"), description: str = RDF_NAME, **own: Any
) -> Path:
    """Write a package of :func:`sigmoid_net` to ``folder``.

    Parameters
    ----------
    folder
        Made where it is not there.
    classes
        Names of its two output channels.
    description
        Name of the file that describes it.
    own
        What stands under ``config.unet_service``; nothing does where it is empty.

    """
    image = touching_pair()[np.newaxis, np.newaxis]
    powers = np.concatenate([image, image**2, np.ones_like(image)], axis=1)
    golden = 1 / (1 + np.exp(-np.einsum("kc,bcyx->bkyx", _LOGITS, powers)))
    axis = AxisGeometry(minimum=16, step=8, shrink=0, halo=0, grid=8)
    spec = ModelSpec(
        name="foreign",
        version="1",
        title="Foreign",
        channels=("grey",),
        classes=tuple(classes),
        geometry=Geometry(axis, axis),
        label_rule=LabelRule(foreground=(0,), seeds=(0,)),
        activation_bytes_per_pixel=16,
        weights=PackageFile(source="weights.onnx"),
        opset=18,
        test_input=PackageFile(source="test_input.npy"),
        test_output=PackageFile(source="test_output.npy"),
    )
    files = {
        "weights.onnx": sigmoid_net(),
        "test_input.npy": tensor_bytes(image),
        "test_output.npy": tensor_bytes(golden),
    }
    path = write_package(folder, spec, files).path
    rdf = yaml.safe_load((path / RDF_NAME).read_text())
    del rdf["config"]["unet_service"]
    if own:
        rdf["config"]["unet_service"] = own
    (path / RDF_NAME).unlink()
    (path / description).write_text(yaml.safe_dump(rdf))
    return path
