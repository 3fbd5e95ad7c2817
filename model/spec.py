"""What a model package says about itself, as frozen values: the contract between training and service."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from model.agreement import MOST, Agreement
from model.label_rule import LabelRule
from model.normalization import Step
from model.tiling import Geometry

Micrometres = Annotated[float, Field(gt=0, le=1e6)]
DiameterPx = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False, strict=True)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Tolerance(BaseModel):
    """How far an output may stand from the golden one: bioimage.io's ``reproducibility_tolerance``.

    An element mismatches where ``|out - golden| > absolute + relative * |golden|``; so many in a million may. What is
    wider than these limits would let any net pass for the one that is meant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    relative: Annotated[float, Field(ge=0, le=0.1)] = 1e-3
    absolute: Annotated[float, Field(ge=0, le=0.25)] = 1e-3
    mismatched_per_million: Annotated[int, Field(ge=0, le=10_000)] = 0


class PackageFile(BaseModel):
    """A file of the package by its relative name, and its hash where the package gives one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    sha256: Sha256 | None = None

    @field_validator("source")
    @classmethod
    def _stays_inside(cls, source: str) -> str:
        parts = re.split(r"[/\\]", source)
        if not source or source[0] in "/\\" or ".." in parts or ":" in source:
            raise ValueError(f"{source!r} is not a relative path inside the package")
        return source


class Variant(BaseModel):
    """The same net in a lower precision: a graph of its own, with the tensor names of the package's weights.

    Parameters
    ----------
    precision
        ``int8``: convolutions of 8-bit integers between QuantizeLinear and DequantizeLinear.
    weights
        Its ONNX file.
    measured, images
        Agreement with fp32 over that many images that neither training nor calibration has seen.
    limit
        What it may differ by from the package's golden output, on the machine that runs it.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["int8"]
    weights: PackageFile
    measured: Agreement
    images: Annotated[int, Field(ge=1)]
    limit: Agreement

    @field_validator("measured", "limit")
    @classmethod
    def _is_a_share_and_a_difference(cls, found: Agreement) -> Agreement:
        if not (0 <= found.other_class <= 1 and 0 <= found.largest_difference <= 1):  # NaN is neither
            raise ValueError(f"{found.other_class} and {found.largest_difference} are not both from 0 to 1")
        return found

    @field_validator("limit")
    @classmethod
    def _limits_something(cls, limit: Agreement) -> Agreement:
        if not limit.within(MOST):
            raise ValueError(
                f"the limit {limit.other_class:g} of the pixels and {limit.largest_difference:g} in probability is "
                f"wider than {MOST.other_class:g} and {MOST.largest_difference:g}; that is another net"
            )
        return limit


class Person(BaseModel):
    """An author of the package."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    affiliation: str | None = None
    orcid: str | None = None


class Citation(BaseModel):
    """What to cite, with a DOI or URL."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str
    doi: str | None = None
    url: str | None = None


class ModelSpec(BaseModel):
    """Everything that serving a package needs to know, and its card.

    Parameters
    ----------
    name, version
        How requests ask for it: ``name`` or ``name@version``.
    title, description, license, authors, cite, tags
        The card; the licence is an SPDX identifier.
    input_name, output_name
        Tensor names (bioimage.io tensor ids).
    channels, classes
        Names of the input's and the output's channels; class 0 is background, unless the label rule counts it as an
        object, as that of a single output channel does.
    normalization
        Pre-processing, in order.
    activation
        What is still to be applied to the net's output: ``none`` where the graph ends in probabilities.
    geometry
        Legal input sizes, output size, halo and pooling grid of both axes.
    label_rule
        How instances are told apart.
    label_rule_note
        Where the package brings no rule: the one that the names of its channels tell, in words; else None.
    pixel_size_um
        Height and width of a pixel in the training images, micrometres, where known.
    object_diameter_px
        5th, 50th and 95th percentile of the diameter of the circle of equal area, of the objects that the net was
        trained on, in pixels of its input, where known.
    activation_bytes_per_pixel
        Memory that one input pixel takes while the net runs, in bytes.
    tolerance
        For the golden pair.
    variants
        The net in lower precisions, at most one for each.
    weights, opset, test_input, test_output, documentation, attachments
        The package's files. Test tensors are (1, c, y, x) float32 ``.npy``: input before normalisation, output after
        the activation.
    facts
        Training data, its licence, figures, command: whatever the card wants to say, JSON-able.

    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$")]
    title: str
    description: str = ""
    license: str = ""
    authors: tuple[Person, ...] = ()
    cite: tuple[Citation, ...] = ()
    tags: tuple[str, ...] = ()
    input_name: str = "image"
    output_name: str = "probabilities"
    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    classes: Annotated[tuple[str, ...], Field(min_length=1, max_length=256)]
    normalization: tuple[Step, ...] = ()
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    geometry: Geometry
    label_rule: LabelRule = LabelRule()
    label_rule_note: str | None = None
    pixel_size_um: tuple[Micrometres, Micrometres] | None = None
    object_diameter_px: tuple[DiameterPx, DiameterPx, DiameterPx] | None = None
    activation_bytes_per_pixel: Annotated[int, Field(gt=0)]
    tolerance: Tolerance = Tolerance()
    weights: PackageFile
    opset: Annotated[int, Field(ge=7)]
    test_input: PackageFile
    test_output: PackageFile
    documentation: PackageFile | None = None
    attachments: tuple[PackageFile, ...] = ()
    variants: tuple[Variant, ...] = ()
    facts: dict[str, Any] = Field(default_factory=dict)

    @field_validator("object_diameter_px")
    @classmethod
    def _percentiles_rise(cls, found: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if found is not None and not found[0] <= found[1] <= found[2]:
            raise ValueError(f"{list(found)} do not rise; expected the 5th, 50th and 95th percentile, px")
        return found

    @model_validator(mode="after")
    def _rule_names_existing_channels(self) -> ModelSpec:
        highest = max((*self.label_rule.foreground, *self.label_rule.seeds, *self.label_rule.boundary))
        if highest >= len(self.classes):
            raise ValueError(f"the label rule names channel {highest}, the output has {len(self.classes)}")
        return self

    @model_validator(mode="after")
    def _one_variant_each(self) -> ModelSpec:
        names = [variant.precision for variant in self.variants]
        if len(names) != len(set(names)):
            raise ValueError(f"the package has several variants of one precision: {', '.join(names)}")
        others = {file.source for file in self.own_files}
        for variant in self.variants:
            if variant.weights.source in others:
                raise ValueError(f"{variant.weights.source} is both the {variant.precision} net and another file")
        return self

    @property
    def own_files(self) -> tuple[PackageFile, ...]:
        """Every file of the package but its description and its variants."""
        documents = () if self.documentation is None else (self.documentation,)
        return (self.weights, self.test_input, self.test_output, *documents, *self.attachments)

    def variant(self, precision: str) -> Variant | None:
        """Graph of its own for a precision; None where the package's weights serve it."""
        return next((variant for variant in self.variants if variant.precision == precision), None)

    @property
    def mask_classes(self) -> tuple[str, ...]:
        """Names of the values of a mask; shorter than ``classes`` where some only serve to part objects."""
        return self.label_rule.mask_classes(self.classes)

    @property
    def reference(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"
