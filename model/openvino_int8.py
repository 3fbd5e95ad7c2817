"""Int8 graphs, put into the form that OpenVINO runs fastest.

Our int8 graphs are written for ONNX Runtime (``training/packaging/quantize.py``). Three of their habits cost OpenVINO a
quarter of its time:

* an up-convolution is a 1x1 convolution and a shuffle of pixels in five operators, where OpenVINO has up-convolutions
  in integers;
* what is concatenated has a scale of its own, and another one afterwards. Here each part gets at once the scale that
  all have together, the up-convolution's in its own kernel;
* a skip is cropped along y, then along x.

Answers differ from the graph's by roundings alone, of which there are fewer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_TO_LAST, _ROWS, _TO_FIRST = (0, 2, 3, 1), (0, 1, 3, 2, 4), (0, 3, 1, 2)
_QUANTISED = ("FakeQuantize", "Convert", "Convert", "Subtract", "Multiply")  # and DequantizeLinear
_SIDE = 2
_MOST = 127


class _Values(NamedTuple):
    """What a constant holds, and the steps that it was rounded to; 0 for none."""

    real: NDArray[np.float32]
    step: NDArray[np.float32]


def rewrite(net: Any) -> None:  # noqa: ANN401 - openvino is not installed everywhere
    """Rewrite an ``openvino.Model`` in place; what only looks alike is left alone."""
    _rewrite_up_convolutions(net)
    _rewrite_concatenations(net)
    _rewrite_crops(net)
    net.validate_nodes_and_infer_types()


def _rewrite_up_convolutions(net: Any) -> None:  # noqa: ANN401
    """Up-convolutions to twice the height and width, in place of 1x1 convolutions and shuffles."""
    for last in net.get_ordered_ops():
        if _order(last) != _TO_FIRST:
            continue
        rows = _before(_before(last, "Reshape"), "Transpose")
        parted = _before(rows, "Reshape")
        first = _before(parted, "Transpose")
        if _order(rows) != _ROWS or _order(first) != _TO_LAST:
            continue
        channels = _length(last, 1)
        if _length(parted, 3) == _SIDE and _length(parted, 4) == _SIDE * channels:
            up = _up_convolution(first, channels)
            if up is not None:
                last.output(0).replace(up)


def _up_convolution(shuffle: Any, channels: int) -> Any:  # noqa: ANN401
    """Output of what takes the place of a 1x1 convolution, its bias if any and a shuffle; None where nothing can."""
    from openvino import opset8

    biased = _before(shuffle, "Add")
    pointwise = _before(biased or shuffle, "Convolution")
    weights = _values(pointwise, 1)
    bias = _values(biased, 1) if biased else _Values(np.zeros(_SIDE**2 * channels, np.float32), np.zeros(1, np.float32))
    if weights is None or bias is None or not weights.step.all() or bias.real.size != _SIDE**2 * channels:
        return None
    if weights.real.shape != (_SIDE**2 * channels, weights.real.shape[1], 1, 1) or not _is_plain(pointwise):
        return None
    offsets = bias.real.reshape(_SIDE**2, channels)
    if np.ptp(offsets, axis=0).max() > 2 * bias.step.max():  # an up-convolution has one for all four positions
        return None
    # (v * u * out, in, 1, 1) -> (in, out, v, u), which training/packaging/quantize.py turned round
    kernel = weights.real.reshape(_SIDE, _SIDE, channels, -1).transpose(3, 2, 0, 1)
    # one step for a channel's four positions: those that had a smaller one are rounded once more
    step = np.maximum(np.abs(kernel).max(axis=(0, 2, 3), keepdims=True) / _MOST, np.finfo(np.float32).tiny)
    integers = opset8.constant(np.rint(kernel / step).astype(np.int8))
    scaled = opset8.multiply(opset8.convert(integers, "f32"), opset8.constant(step.astype(np.float32)))
    stride, none, once = [_SIDE, _SIDE], [0, 0], [1, 1]
    up = opset8.convolution_backprop_data(pointwise.input_value(0), scaled, stride, None, none, none, once)
    mean = offsets.mean(axis=0, dtype=np.float32).reshape(1, channels, 1, 1)
    return opset8.add(up, opset8.constant(mean)).output(0)


def _rewrite_concatenations(net: Any) -> None:  # noqa: ANN401
    """What quantises a concatenation of channels, put on each of its parts in place of what quantised these."""
    from openvino import opset8

    for joined in net.get_ordered_ops():
        chain = _readers(joined)
        if joined.get_type_name() != "Concat" or joined.get_axis() != 1:
            continue
        if tuple(node.get_type_name() for node in chain) != _QUANTISED or not all(map(_same_for_all, chain)):
            continue
        parts = [_quantised(_unquantised(joined.input_value(i)), chain) for i in range(joined.get_input_size())]
        chain[-1].output(0).replace(opset8.concat(parts, 1).output(0))


def _quantised(source: Any, like: list[Any]) -> Any:  # noqa: ANN401
    """Another output, quantised and turned back by the same numbers."""
    from openvino import opset8

    quantise, integer, real, offset, scale = like
    ranges = [quantise.input_value(i) for i in range(1, 5)]
    rounded = opset8.fake_quantize(source, *ranges, quantise.get_attributes()["levels"])
    for node in (integer, real):
        rounded = opset8.convert(rounded, node.get_attributes()["destination_type"])
    return opset8.multiply(opset8.subtract(rounded, offset.input_value(1)), scale.input_value(1))


def _unquantised(source: Any) -> Any:  # noqa: ANN401
    """What an output was before it was quantised and turned back; itself where it was not."""
    node = source.get_node()
    for kind in reversed(_QUANTISED):
        if node.get_type_name() != kind:
            return source
        before, node = node.input_value(0), node.input_value(0).get_node()
    return before


def _readers(node: Any) -> list[Any]:  # noqa: ANN401
    """As many operators behind one another as quantise and turn back, as long as nothing else reads them."""
    found: list[Any] = []
    for _ in _QUANTISED:
        readers = list(node.output(0).get_target_inputs())
        if len(readers) != 1:
            break
        node = readers[0].get_node()
        found.append(node)
    return found


def _rewrite_crops(net: Any) -> None:  # noqa: ANN401
    """One crop of two axes, in place of two with nothing but quantisation between."""
    from openvino import opset8

    for second in net.get_ordered_ops():
        first = _before(second, "Slice") if second.get_type_name() == "Slice" else None
        if first is None:
            continue
        given = [_values(node, place) for place in range(1, 5) for node in (first, second)]
        known = [value.real for value in given if value is not None]
        bounds = [np.concatenate(known[i : i + 2]) for i in range(0, len(known), 2)]
        if len(known) == len(given) and len(set(bounds[-1])) == len(bounds[-1]):  # no axis twice
            second.output(0).replace(opset8.slice(first.input_value(0), *map(opset8.constant, bounds)).output(0))


def _before(node: Any, kind: str) -> Any:  # noqa: ANN401
    """Operator of a kind that a node's first input comes from, with nothing but quantisation between; else None."""
    if node is None or not node.get_input_size():
        return None
    node = _unquantised(node.input_value(0)).get_node()
    return node if node.get_type_name() == kind else None


def _values(node: Any, place: int) -> _Values | None:  # noqa: ANN401
    """Constant at one of a node's inputs: as it is, or integers with one scale or one for each of the first axis."""
    if node is None or node.get_input_size() <= place:
        return None
    node, step = node.input_value(place).get_node(), np.zeros(1, dtype=np.float32)
    while (kind := node.get_type_name()) != "Constant":
        other = _values(node, 1) if kind in ("Multiply", "Subtract") else None
        if kind == "Multiply" and other is not None and not step.any():
            step = other.real.ravel()
        elif kind not in ("Convert", "Reshape") and (kind != "Subtract" or other is None or other.real.any()):
            return None
        node = node.input_value(0).get_node()
    values: NDArray[Any] = node.data
    if not step.any():
        return _Values(values, step)
    if step.size not in (1, len(values)):
        return None
    return _Values(values * step.reshape(-1, *[1] * (values.ndim - 1)), step)


def _is_plain(convolution: Any) -> bool:  # noqa: ANN401
    """Whether a convolution takes every pixel once, and none outside."""
    attributes = convolution.get_attributes()
    return set(attributes["strides"]) == {1} and not any([*attributes["pads_begin"], *attributes["pads_end"]])


def _same_for_all(node: Any) -> bool:  # noqa: ANN401
    """Whether an operator's other inputs are single numbers, the same for every channel."""
    return all(np.prod(node.input_value(i).get_shape(), dtype=int) == 1 for i in range(1, node.get_input_size()))


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
