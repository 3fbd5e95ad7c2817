"""Pre- and post-processing of a bioimage.io 0.5 resource description, to and from what the net's sessions apply."""

from __future__ import annotations

from typing import Any

from model.errors import UnsupportedPackage
from model.normalization import Clip, FixedZeroMeanUnitVariance, ScaleLinear, ScaleRange, Step, ZeroMeanUnitVariance


def step_to_rdf(step: Step) -> dict[str, Any]:
    """Return one step as bioimage.io writes it."""
    match step:
        case ZeroMeanUnitVariance() | ScaleRange():
            axes = ["y", "x"] if step.per_channel else ["channel", "y", "x"]
            kwargs: dict[str, Any] = {"axes": axes, **step.model_dump(exclude={"id", "per_channel"})}
        case FixedZeroMeanUnitVariance(mean=(mean,), std=(std,)):
            kwargs = {"mean": mean, "std": std}
        case FixedZeroMeanUnitVariance(mean=mean, std=std):
            kwargs = {"mean": list(mean), "std": list(std), "axis": "channel"}
        case ScaleLinear(gain=(gain,), offset=(offset,)):
            kwargs = {"gain": gain, "offset": offset}
        case ScaleLinear(gain=gain, offset=offset):
            kwargs = {"gain": list(gain), "offset": list(offset), "axis": "channel"}
        case Clip():
            kwargs = step.model_dump(exclude={"id"})
    return {"id": step.id, "kwargs": kwargs}


def _as_tuple(value: Any) -> tuple[float, ...]:  # noqa: ANN401 - a YAML value
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def steps_from_rdf(entries: Any) -> list[Step]:  # noqa: ANN401 - a YAML value
    """Read the ``preprocessing`` of an input; UnsupportedPackage where a step is not applied here."""
    steps: list[Step] = []
    for entry in entries:
        kwargs = dict(entry.get("kwargs") or {})
        axes = kwargs.pop("axes", None)
        per_channel = axes is not None and "channel" not in axes
        match entry["id"]:
            case "zero_mean_unit_variance":
                steps.append(ZeroMeanUnitVariance(per_channel=per_channel, **kwargs))
            case "scale_range" if kwargs.pop("reference_tensor", None) is None:
                steps.append(ScaleRange(per_channel=per_channel, **kwargs))
            case "fixed_zero_mean_unit_variance" if kwargs.pop("axis", "channel") == "channel":
                steps.append(FixedZeroMeanUnitVariance(mean=_as_tuple(kwargs["mean"]), std=_as_tuple(kwargs["std"])))
            case "scale_linear" if kwargs.pop("axis", "channel") in {"channel", None}:
                gain, offset = _as_tuple(kwargs.get("gain", 1.0)), _as_tuple(kwargs.get("offset", 0.0))
                steps.append(ScaleLinear(gain=gain, offset=offset))
            case "clip" if not {"min_percentile", "max_percentile"} & {k for k, v in kwargs.items() if v is not None}:
                steps.append(Clip(**{key: value for key, value in kwargs.items() if value is not None}))
            case "ensure_dtype" if kwargs.get("dtype") == "float32":
                pass  # every tile is float32 already
            case other:
                raise UnsupportedPackage(f"pre-processing {other!r} with {kwargs} is not supported")
    return steps


def activation_from_rdf(entries: Any) -> Any:  # noqa: ANN401 - checked by ModelSpec
    """Read the ``postprocessing`` of an output as an activation; UnsupportedPackage where it is another."""
    names = [entry["id"] for entry in entries if entry["id"] != "ensure_dtype"]
    if not names:
        return "none"
    if names not in (["softmax"], ["sigmoid"]):
        raise UnsupportedPackage(f"post-processing {names} is not supported; softmax or sigmoid alone are")
    return names[0]
