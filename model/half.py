"""A package's net in half precision (fp16), for GPUs: the same weights, their graph rewritten when it is opened.

Our packages store their weights in fp16 already, so that a graph of its own in the package would hold nothing new.
Input and output stay fp32, and in the graph so do softmax and sigmoid (TensorRT may choose otherwise): tiles and
probabilities are the same arrays in every precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.errors import BackendUnavailable, UnsupportedPackage

_KEPT_IN_FP32 = ("Softmax", "Sigmoid")


def half_graph(weights: bytes) -> bytes:
    """ONNX bytes of a graph that computes in fp16.

    Parameters
    ----------
    weights
        ONNX bytes of one that computes in fp32; weights in fp32, or in fp16 behind casts.

    Raises
    ------
    BackendUnavailable
        Where onnx is not installed, which rewrites the graph.
    UnsupportedPackage
        Where the graph cannot be rewritten.

    """
    try:
        import onnx
        from onnx import numpy_helper
        from onnxruntime.transformers import float16
    except ImportError as error:
        raise BackendUnavailable(
            f"precision fp16: onnx, which rewrites the graph, cannot be imported ({error}); pip install onnx, or "
            "choose precision fp32"
        ) from error
    try:
        model = onnx.load_from_string(weights)
        graph = model.graph
        # the converter would read the casts of stored weights as casts of activations
        stored = {tensor.name: tensor for tensor in graph.initializer}
        casts = [node for node in graph.node if _widens(node, stored)]
        for node in casts:
            graph.node.remove(node)
            whole = numpy_helper.to_array(stored[node.input[0]]).astype("float32")
            graph.initializer.append(numpy_helper.from_array(whole, node.output[0]))
        blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *_KEPT_IN_FP32]
        half = float16.convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
        return bytes(half.SerializeToString())
    except Exception as error:  # of the converter, on graphs that it does not know
        raise UnsupportedPackage(f"precision fp16: the graph cannot be rewritten: {error}") from error


def _widens(node: Any, stored: Mapping[str, Any]) -> bool:  # noqa: ANN401 - messages of an untyped library
    """Whether a node casts a stored tensor from fp16 to fp32."""
    from onnx import TensorProto

    if node.op_type != "Cast" or node.input[0] not in stored:
        return False
    (to,) = (attribute.i for attribute in node.attribute if attribute.name == "to")
    return bool(to == TensorProto.FLOAT and stored[node.input[0]].data_type == TensorProto.FLOAT16)
