"""Translate between :class:`model.spec.ModelSpec` and a bioimage.io 0.5 resource description (``rdf.yaml``).

Anything that the standard has no field for stands under ``config: unet_service:``. A test holds what is written here
against ``bioimageio.spec`` itself; the service reads without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.channels import in_words, rule_from_names
from model.errors import UnsupportedPackage
from model.label_rule import LabelRule
from model.rdf_steps import activation_from_rdf, step_to_rdf, steps_from_rdf
from model.spec import Citation, ModelSpec, PackageFile, Person, Tolerance, Variant
from model.tiling import AxisGeometry, Geometry

FORMAT_VERSION = "0.5.12"
_DEFAULT_ACTIVATION_BYTES = 6 * 64 * 4  # about six float32 maps of the paper's 64 channels are alive at the top level

Rdf = Mapping[str, Any]


def to_rdf(spec: ModelSpec) -> dict[str, Any]:
    """Return the resource description of ``spec`` as plain values, ready for YAML."""
    tolerance = {
        "relative_tolerance": spec.tolerance.relative,
        "absolute_tolerance": spec.tolerance.absolute,
        "mismatched_elements_per_million": spec.tolerance.mismatched_per_million,
    }
    outputs_axes = [
        {"type": "batch"},
        {"type": "channel", "channel_names": list(spec.classes)},
        _output_axis("y", spec),
        _output_axis("x", spec),
    ]
    activation = [] if spec.activation == "none" else [{"id": spec.activation, "kwargs": _activation_kwargs(spec)}]
    return {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "id": spec.name,
        "name": spec.title,
        "version": spec.version,
        "description": spec.description,
        "license": spec.license,
        "authors": [person.model_dump(exclude_none=True) for person in spec.authors],
        "cite": [citation.model_dump(exclude_none=True) for citation in spec.cite],
        "tags": list(spec.tags),
        "documentation": _file(spec.documentation),
        # variants are attachments too: whoever repacks the package takes them along
        "attachments": [_file(file) for file in (*spec.attachments, *(variant.weights for variant in spec.variants))],
        "inputs": [
            {
                "id": spec.input_name,
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": list(spec.channels)},
                    _input_axis("y", spec.geometry.y, spec),
                    _input_axis("x", spec.geometry.x, spec),
                ],
                "data": {"type": "float32"},
                "test_tensor": _file(spec.test_input),
                "preprocessing": [step_to_rdf(step) for step in spec.normalization],
            }
        ],
        "outputs": [
            {
                "id": spec.output_name,
                "axes": outputs_axes,
                "data": {"type": "float32", "range": [0.0, 1.0]},
                "test_tensor": _file(spec.test_output),
                "postprocessing": activation,
            }
        ],
        "weights": {"onnx": {**_file(spec.weights), "opset_version": spec.opset}},
        "config": {
            "bioimageio": {"reproducibility_tolerance": [tolerance]},
            "unet_service": {
                "pooling_grid": [spec.geometry.y.grid, spec.geometry.x.grid],
                "activation_bytes_per_pixel": spec.activation_bytes_per_pixel,
                **_diameters_to_rdf(spec),
                "labels": _labels_to_rdf(spec.label_rule),
                "variants": [variant.model_dump(mode="json") for variant in spec.variants],
                "facts": spec.facts,
            },
        },
    }


def _labels_to_rdf(rule: LabelRule) -> dict[str, Any]:
    # without a boundary the field stays away: readers of before it was there refuse what they do not know
    return rule.model_dump(mode="json", exclude=None if rule.boundary else {"boundary"})


def _diameters_to_rdf(spec: ModelSpec) -> dict[str, Any]:
    return {} if spec.object_diameter_px is None else {"object_diameter_px": list(spec.object_diameter_px)}


def _file(file: PackageFile | None) -> Any:  # noqa: ANN401 - a YAML value
    return None if file is None else file.model_dump(exclude_none=True)


def _activation_kwargs(spec: ModelSpec) -> dict[str, Any]:
    return {"axis": "channel"} if spec.activation == "softmax" else {}


def _scale_of(axis: str, spec: ModelSpec) -> dict[str, Any]:
    # in single precision: bioimage.io multiplies sizes by it, divides again, and refuses what is no integer then
    if spec.pixel_size_um is None:
        return {}
    return {"unit": "micrometer", "scale": float(np.float32(spec.pixel_size_um["yx".index(axis)]))}


def _input_axis(name: str, axis: AxisGeometry, spec: ModelSpec) -> dict[str, Any]:
    size = {"min": axis.minimum, "step": axis.step} if axis.step else axis.minimum
    return {"type": "space", "id": name, "size": size, **_scale_of(name, spec)}


def _output_axis(name: str, spec: ModelSpec) -> dict[str, Any]:
    axis = spec.geometry.y if name == "y" else spec.geometry.x
    size = {"tensor_id": spec.input_name, "axis_id": name, "offset": -axis.shrink}
    halo = {"halo": axis.halo} if axis.halo else {}
    return {"type": "space", "id": name, "size": size, **halo, **_scale_of(name, spec)}


def from_rdf(rdf: Rdf, read_tensor: Callable[[PackageFile], NDArray[np.float32]]) -> ModelSpec:
    """Read a resource description, ours or another's.

    Parameters
    ----------
    rdf
        The description.
    read_tensor
        Reads a test tensor of the package: where that brings no label rule, its test output is looked at.

    Raises
    ------
    UnsupportedPackage
        Where it is sound but asks for something that is not run here; the message says what.
    InvalidPackage, KeyError, TypeError, ValueError
        Where it is not a model description of format 0.5 (the reader wraps these).

    """
    if rdf.get("type") != "model" or not _text(rdf.get("format_version", "")).startswith("0.5"):
        found = f"type {rdf.get('type')!r}, format {rdf.get('format_version')!r}"
        raise UnsupportedPackage(
            f"only bioimage.io model packages of format 0.5 are read, this is {found}; for a model of another format "
            "`bioimageio update-format PACKAGE --output FILE` (pip install bioimageio.core) writes a newer description"
        )
    onnx = rdf["weights"].get("onnx")
    if onnx is None:
        raise UnsupportedPackage(f"only ONNX weights are run, the package has {sorted(rdf['weights'])}; export to ONNX")
    if onnx.get("external_data"):
        raise UnsupportedPackage("ONNX weights with external data are not read; save them as one file")
    if len(rdf["inputs"]) != 1 or len(rdf["outputs"]) != 1:
        counts = f"{len(rdf['inputs'])} inputs and {len(rdf['outputs'])} outputs"
        raise UnsupportedPackage(f"one input and one output tensor are run, the package has {counts}")
    # bioimage.io's own tools leave out what has its default value, so that the defaults are named here
    source, result = {"id": "input", **rdf["inputs"][0]}, {"id": "output", **rdf["outputs"][0]}
    own = (rdf.get("config") or {}).get("unet_service") or {}
    input_axes, output_axes = _axes_by_id(source), _axes_by_id(result)
    grid_y, grid_x = own.get("pooling_grid", (None, None))
    classes = _names(output_axes["channel"]["channel_names"])
    activation = activation_from_rdf(result.get("postprocessing") or ())
    test_output = _file_from_rdf(result["test_tensor"])
    if "labels" in own:
        rule, note = LabelRule(**own["labels"]), None
    else:
        rule = rule_from_names(classes, read_tensor(test_output))
        note = f"the package has no label rule; by the names of its channels {in_words(rule, classes)}"
    title = _line(rdf["name"])
    variants = tuple(Variant(**variant) for variant in own.get("variants") or ())
    attachments = (_file_from_rdf(entry) for entry in rdf.get("attachments") or ())
    own_files = {variant.weights.source for variant in variants}
    return ModelSpec(
        name=_slug(_text(rdf.get("id") or title)),
        version=_text(rdf.get("version") or "0"),
        title=title,
        description=_text(rdf.get("description") or ""),
        license=_line(rdf.get("license") or ""),
        authors=tuple(Person(**person) for person in rdf.get("authors") or ()),
        cite=tuple(Citation(**citation) for citation in rdf.get("cite") or ()),
        tags=_names(rdf.get("tags") or ()),
        input_name=source["id"],
        output_name=result["id"],
        channels=_names(input_axes["channel"]["channel_names"]),
        classes=classes,
        normalization=tuple(steps_from_rdf(source.get("preprocessing") or ())),
        activation=activation,
        geometry=Geometry(
            _geometry_from_rdf("y", source["id"], input_axes["y"], output_axes["y"], grid_y),
            _geometry_from_rdf("x", source["id"], input_axes["x"], output_axes["x"], grid_x),
        ),
        label_rule=rule,
        label_rule_note=note,
        pixel_size_um=_pixel_size(input_axes),
        object_diameter_px=own.get("object_diameter_px"),
        activation_bytes_per_pixel=own.get("activation_bytes_per_pixel", _DEFAULT_ACTIVATION_BYTES),
        tolerance=_tolerance_from_rdf(rdf),
        weights=PackageFile(source=onnx["source"], sha256=onnx.get("sha256")),
        opset=onnx["opset_version"],
        test_input=_file_from_rdf(source["test_tensor"]),
        test_output=test_output,
        documentation=_file_from_rdf(rdf["documentation"]) if rdf.get("documentation") else None,
        attachments=tuple(file for file in attachments if file.source not in own_files),
        variants=variants,
        facts=own.get("facts") or {},
    )


def _text(value: Any) -> str:  # noqa: ANN401 - a YAML value
    """Text, or a number that was meant as such: versions are often written without quotes."""
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError(f"a {type(value).__name__} stands where text is expected")


def _line(value: Any) -> str:  # noqa: ANN401 - a YAML value
    """Text on one line, without characters that steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in _text(value))


def _names(values: Any) -> tuple[str, ...]:  # noqa: ANN401 - a YAML value
    if not isinstance(values, list | tuple):
        raise TypeError(f"{_line(values)!r} stands where a list of names is expected")
    return tuple(_line(value) for value in values)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:100]


def _file_from_rdf(entry: Any) -> PackageFile:  # noqa: ANN401 - a YAML value
    if isinstance(entry, str):
        return PackageFile(source=entry)
    return PackageFile(source=entry["source"], sha256=entry.get("sha256"))


def _axes_by_id(tensor: Rdf) -> dict[str, Rdf]:
    """Axes by name; their order must be batch, channel, y, x."""
    names = [str(axis.get("id") or {"space": "x"}.get(axis["type"], axis["type"])) for axis in tensor["axes"]]
    if names != ["batch", "channel", "y", "x"]:
        raise UnsupportedPackage(f"tensor {tensor['id']!r} has axes {names}; only batch, channel, y, x are run")
    return dict(zip(names, tensor["axes"], strict=True))


def _geometry_from_rdf(name: str, input_id: str, source: Rdf, result: Rdf, grid: int | None) -> AxisGeometry:
    size, out = source["size"], result["size"]
    if isinstance(size, int):
        minimum, step = size, 0
    elif isinstance(size, Mapping) and {"min", "step"} <= set(size):
        minimum, step = size["min"], size["step"]
    else:
        raise UnsupportedPackage(f"axis {name} of the input has size {size!r}; a fixed size or min and step are run")
    if isinstance(out, int) and step == 0:
        shrink = minimum - out
    elif isinstance(out, Mapping) and out.get("tensor_id") == input_id and out.get("axis_id") == name:
        shrink = -int(out.get("offset", 0))
    else:
        raise UnsupportedPackage(
            f"axis {name} of the output has size {out!r}; it must follow the same axis of the input"
        )
    if float(source.get("scale", 1)) != float(result.get("scale", 1)) or shrink < 0 or shrink % 2:
        raise UnsupportedPackage(
            f"axis {name}: the output must have the input's scale and lose an even number of pixels"
        )
    # other people's packages do not name their pooling grid; the step of legal sizes is it in practice
    return AxisGeometry(minimum, step, shrink, int(result.get("halo", 0)), grid or step or 1)


def _pixel_size(axes: Mapping[str, Rdf]) -> tuple[float, float] | None:
    if any(axes[name].get("unit") != "micrometer" for name in "yx"):
        return None
    # the number that is meant: 0.65 for the 0.6499999761581421 of single precision
    y, x = (float(f"{float(axes[name].get('scale', 1)):.7g}") for name in "yx")
    return y, x


def _tolerance_from_rdf(rdf: Rdf) -> Tolerance:
    declared = ((rdf.get("config") or {}).get("bioimageio") or {}).get("reproducibility_tolerance") or ()
    for entry in declared:
        if "onnx" in (entry.get("weights_formats") or ("onnx",)):
            return Tolerance(
                relative=entry.get("relative_tolerance", 1e-3),
                absolute=entry.get("absolute_tolerance", 1e-3),
                mismatched_per_million=entry.get("mismatched_elements_per_million", 100),
            )
    return Tolerance()
