"""Shuffles of pixels in int8 graphs, put into the form that OpenVINO runs fastest.

Our int8 graphs write the shuffle after an up-convolution as Transpose, Reshape, Transpose, Reshape, Transpose
(``training/quantize.py`` says why). OpenVINO takes a fifth longer for a net with them than for one with DepthToSpace.
"""

from __future__ import annotations

from typing import Any

_TO_LAST, _ROWS, _TO_FIRST = (0, 2, 3, 1), (0, 1, 3, 2, 4), (0, 3, 1, 2)
_BETWEEN = frozenset({"FakeQuantize", "Convert", "Subtract", "Multiply"})  # QuantizeLinear, DequantizeLinear
_SIDE = 2


def with_depth_to_space(net: Any) -> int:  # noqa: ANN401 - openvino is not installed everywhere
    """Replace every such shuffle to twice the height and width in an ``openvino.Model``, in place.

    Returns
    -------
    int
        How many there were.

    """
    from openvino import opset8

    found = 0
    for last in net.get_ordered_ops():
        if _order(last) != _TO_FIRST:
            continue
        rows = _before(_before(last, "Reshape"), "Transpose")
        parted = _before(rows, "Reshape")
        first = _before(parted, "Transpose")
        if _order(rows) != _ROWS or _order(first) != _TO_LAST:
            continue
        channels = _length(last, 1)
        if _length(parted, 3) == _SIDE and _length(parted, 4) == _SIDE * channels and _length(first, 3) == 4 * channels:
            shuffle = opset8.depth_to_space(first.input_value(0), "blocks_first", _SIDE)
            last.output(0).replace(shuffle.output(0))
            found += 1
    net.validate_nodes_and_infer_types()
    return found


def _before(node: Any, kind: str) -> Any:  # noqa: ANN401
    """Operator of a kind that a node's first input comes from, with nothing but quantisation between; else None."""
    passed: set[str] = set()
    while node is not None and node.get_input_size():
        node = node.input_value(0).get_node()
        if node.get_type_name() in _BETWEEN:
            passed.add(node.get_type_name())
            continue
        scaled = bool(passed) and "FakeQuantize" not in passed  # by something else than quantisation
        return node if node.get_type_name() == kind and not scaled else None
    return None


def _order(node: Any) -> tuple[int, ...] | None:  # noqa: ANN401
    """Order of axes of a Transpose that says it as a constant."""
    if node is None or node.get_type_name() != "Transpose":
        return None
    order = node.input_value(1).get_node()
    return tuple(order.data.tolist()) if order.get_type_name() == "Constant" else None


def _length(node: Any, axis: int) -> int:  # noqa: ANN401
    """Length of an axis of a node's output; -1 where it is not known."""
    length = node.get_output_partial_shape(0)[axis]
    return int(length.get_length()) if length.is_static else -1
