"""A graph that reduces its own output to what labels and masks need, so that a GPU sends back no more than that.

Probabilities of three classes are twelve bytes for each pixel, of which the service keeps one or four, after some
passes over them on the CPU. Beside them the graph gets another output, the evidence of :func:`model.labels.evidence_of`
in the same numbers, bit for bit: sums of float32 in the same order, and a sign. A pixel of which any channel is not
finite has the evidence NaN, so that a broken net is found out as it is from its probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

from model.label_rule import LabelRule

EVIDENCE = "unet.evidence"
"""Name of the output, (b, 1, y, x) float32."""
_OPSET = 9  # has Where


def with_evidence(weights: bytes, probabilities: str, classes: int, rule: LabelRule) -> bytes | None:
    """ONNX bytes of a graph with output :data:`EVIDENCE`; None where it cannot get one, or onnx is not installed.

    Parameters
    ----------
    weights
        ONNX bytes of a graph.
    probabilities
        Name of its output (b, classes, y, x), float32.
    classes
        Of them, so many.
    rule
        What counts as object, and what as a seed.

    """
    try:
        from onnx import TensorProto, helper, load_from_string
    except ImportError:
        return None
    model = load_from_string(weights)
    graph = model.graph
    found = [output.type.tensor_type for output in graph.output if output.name == probabilities]
    is_image = [kind.elem_type == TensorProto.FLOAT and len(kind.shape.dim) == 4 for kind in found]
    versions = [opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    if is_image != [True] or min(versions, default=0) < _OPSET:
        return None

    def add(operator: str, *inputs: str, into: str | None = None, **attributes: int) -> str:
        output = into or f"{EVIDENCE}/{len(graph.node)}"
        graph.node.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def constant(name: str, data_type: int, shape: Sequence[int], value: float) -> str:
        graph.initializer.append(helper.make_tensor(f"{EVIDENCE}/{name}", data_type, shape, [value]))
        return f"{EVIDENCE}/{name}"

    def summed(channels: Sequence[int]) -> str:
        planes = [
            add(
                "Gather", probabilities, constant(f"{len(graph.node)}/channel", TensorProto.INT64, [1], channel), axis=1
            )
            for channel in channels
        ]
        total = planes[0]
        for plane in planes[1:]:
            total = add("Add", total, plane)
        return total

    nothing = add("Mul", summed(range(classes)), constant("zero", TensorProto.FLOAT, [], 0.0))  # or NaN
    foreground = add("Add", summed(rule.foreground), nothing)
    if rule.method == "components":
        add("Identity", foreground, into=EVIDENCE)
    else:
        threshold = constant("seed_threshold", TensorProto.FLOAT, [], rule.seed_threshold)
        inside = summed(rule.seeds)
        if rule.boundary:
            inside = add("Sub", inside, summed(rule.boundary))
        seeds = add("Greater", inside, threshold)
        add("Where", seeds, add("Neg", foreground), foreground, into=EVIDENCE)
    graph.output.append(helper.make_tensor_value_info(EVIDENCE, TensorProto.FLOAT, ["batch", 1, "y", "x"]))
    return bytes(model.SerializeToString())
