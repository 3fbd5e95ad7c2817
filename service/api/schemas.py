"""JSON answers as pydantic models: what clients may rely on, and what the OpenAPI document shows."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from model.agreement import Agreement
from model.label_rule import LabelRule
from model.spec import Citation, Person
from service.engine.engine import Engine
from service.engine.packages.loading import LoadedModel
from service.engine.stages.forecast import Forecast
from service.errors import problem_kind
from service.jobs.record import JobReport


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class Problem(_Document):
    """A failure (RFC 9457). Further members name the limit or what would have been right, where that is known.

    The member ``trace_id`` is that of the request's ``traceparent``, where it had a valid one.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field(description="What kind of failure: `/problems/<name>`, stable; GET it for an explanation.")
    title: str = Field(description="The kind in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened this time: the number found, the limit and the remedy.")
    request_id: str | None = Field(description="Also in X-Request-ID and in the service's log.")


class Liveness(_Document):
    """The process turns."""

    status: str = "alive"


class ReadinessReport(_Document):
    """Whether new requests should come here."""

    ready: bool
    reasons: list[str] = Field(description="Why not; empty where ready.")
    models: list[str] = Field(description="Packages that are served, `name@version`.")
    backlog_seconds: float = Field(description="Seconds that accepted work will take at the measured speed.")


class AxisSizes(_Document):
    """What the net accepts and returns along one axis; all in px."""

    minimum: int = Field(description="Smallest input.")
    step: int = Field(description="Legal inputs are minimum + k * step.")
    shrink: int = Field(description="Input minus output.")
    halo: int = Field(description="Context on each side that the output does not show.")
    grid: int = Field(description="Tiles start at multiples of it.")


class ModelSummary(_Document):
    """A package that is served, in short."""

    name: str
    version: str
    title: str
    default: bool = Field(description="Whether it serves requests that name no model.")
    channels: list[str] = Field(description="Channels that an image needs, in order.")
    classes: list[str] = Field(description="Classes of the output, background first.")
    backend: str
    provider: str = Field(description="What really runs it, in the runtime's own words.")
    precision: str = Field(description="What it computes in: `fp32`, `fp16`, `bf16` or `int8`.")
    agreement: Agreement | None = Field(
        description="How far a lower precision stands from fp32 on the package's test input, on this machine; "
        "null where it computes in fp32."
    )
    label_rule_note: str | None = Field(
        description="Where the package brings no label rule: the one that the names of its channels tell, in words; "
        "else null."
    )

    @classmethod
    def of(cls, engine: Engine, model: LoadedModel) -> ModelSummary:
        """Describe one package of an engine."""
        return cls(**_summary(engine, model))


class ModelCard(ModelSummary):
    """All that is known of a package."""

    description: str
    license: str = Field(description="SPDX identifier.")
    authors: list[Person]
    cite: list[Citation]
    tags: list[str]
    sha256: str = Field(description="Hash of the weights.")
    variants: dict[str, str] = Field(description="Hash of the graph of each lower precision that has one of its own.")
    normalization: list[dict[str, Any]] = Field(description="Steps from pixels to the net's input.")
    geometry: dict[str, AxisSizes] = Field(description="By axis, `y` and `x`.")
    label_rule: LabelRule = Field(description="How objects are told apart.")
    mask_classes: list[str] = Field(
        description="What the values of a mask stand for, background first: `classes`, or background and object where "
        "some classes only serve to part objects."
    )
    pixel_size_um: tuple[float, float] | None = Field(
        description="Height and width of a pixel in the training images, micrometres."
    )
    object_diameter_px: tuple[float, float, float] | None = Field(
        description="Of the objects that the net was trained on, the 5th, 50th and 95th percentile of the diameter of "
        "the circle of equal area, px of what it is shown; null where the package does not say."
    )
    pixels_per_second: float = Field(description="Measured speed on this machine.")
    self_test_difference: float = Field(description="Largest difference from the package's own test output here.")
    facts: dict[str, Any] = Field(description="Training data, figures, command: whatever the package says.")
    readme: str = Field(description="The package's documentation, Markdown.")

    @classmethod
    def of(cls, engine: Engine, model: LoadedModel) -> ModelCard:
        """Describe one package of an engine in full."""
        spec = model.package.spec
        axes = {"y": spec.geometry.y, "x": spec.geometry.x}
        return cls(
            **_summary(engine, model),
            description=spec.description,
            license=spec.license,
            authors=list(spec.authors),
            cite=list(spec.cite),
            tags=list(spec.tags),
            sha256=model.sha256,
            variants=dict(model.variants),
            normalization=[step.model_dump(mode="json") for step in spec.normalization],
            geometry={
                name: AxisSizes(
                    minimum=axis.minimum, step=axis.step, shrink=axis.shrink, halo=axis.halo, grid=axis.grid
                )
                for name, axis in axes.items()
            },
            label_rule=spec.label_rule,
            mask_classes=list(spec.mask_classes),
            pixel_size_um=spec.pixel_size_um,
            object_diameter_px=spec.object_diameter_px,
            pixels_per_second=round(model.throughput.pixels_per_second, 1),
            self_test_difference=model.self_test_difference,
            facts=spec.facts,
            readme=model.readme,
        )


class Plan(_Document):
    """What an image of one size would take, sent now."""

    model: str = Field(description="`name@version` of what would run.")
    precision: str
    size_yx: tuple[int, int] = Field(description="Height and width, px.")
    planes: int
    tiles: int = Field(description="Of all planes, and of all views where `mirror` is asked for.")
    input_yx: tuple[int, int] = Field(description="What the net reads for a tile, px.")
    stride_yx: tuple[int, int] = Field(description="From one tile to the next, px.")
    scale: float = Field(
        description="That of the plan. Where `scale=auto` looks for it in the image, which a plan does not see, the "
        "median of those found for the last images, or 1."
    )
    compute_seconds: float = Field(
        description="In the net, with nobody else there, at the speed measured last; `search_seconds` included."
    )
    search_seconds: float | None = Field(
        description="In the net, for `scale=auto` to look for the scale; null where pixel sizes or the request tell it."
    )
    finishing_seconds: float = Field(
        description="For reading, resampling (`scale`), finding objects and writing, as images of 512 x 512 px and "
        "more that were asked for alike (model, output, format, scaled or not) took lately; where there were none, as "
        "those of the same model and output; where there were none of these, either, a rule of thumb."
    )
    expected_seconds: float = Field(
        description="Until it is through the net beside what is in work now, and `finishing_seconds`; after the batch "
        "in work every request gets an equal share, and a job that finds no turn waits for "
        "those before it."
    )
    backlog_seconds: float = Field(description="Of all accepted work.")
    memory_bytes: int = Field(
        description="For a 16 bit TIFF in tiles or strips of 512 rows at most and its result as PNG or TIFF, beside "
        "tiles of the net. Other files may take more."
    )
    disk_bytes: int = Field(description="In the spool folder; 0 where all stands in memory.")
    refusal: Problem | None = Field(description="What it would get in place of an answer; null where it is accepted.")

    @classmethod
    def of(cls, engine: Engine, forecast: Forecast) -> Plan:
        """Describe a forecast."""
        tiles = forecast.plan.tiles
        problem = None
        if forecast.refusal is not None:
            kind = problem_kind(forecast.refusal)
            problem = Problem(
                type=kind.uri, title=kind.title, status=kind.status, detail=str(forecast.refusal), request_id=None
            )
        return cls(
            model=forecast.model.package.spec.reference,
            precision=forecast.model.session.precision,
            size_yx=forecast.size_yx,
            planes=forecast.planes,
            tiles=len(forecast.plan) * forecast.planes,
            input_yx=tiles.input_yx,
            stride_yx=tiles.stride_yx,
            scale=forecast.scale,
            compute_seconds=round(forecast.compute_s, 3),
            search_seconds=None if forecast.search_s is None else round(forecast.search_s, 3),
            finishing_seconds=round(forecast.finishing_s, 3),
            expected_seconds=round(forecast.expected_s, 3),
            backlog_seconds=round(engine.backlog_seconds, 3),
            memory_bytes=forecast.memory_bytes,
            disk_bytes=forecast.disk_bytes,
            refusal=problem,
        )


class ModelList(_Document):
    """Everything that is served, and what is not."""

    models: list[ModelSummary]
    loading: list[str] = Field(
        description="Packages that are being loaded, or wait for memory in which to be; names are as in `refused`."
    )
    refused: dict[str, str] = Field(description="Packages that are not served, and why.")
    kept: dict[str, str] = Field(
        description="Of `models`, `name@version`: those that are no longer in their folder, and why they are still "
        "served."
    )
    memory_warning: str | None = Field(
        description="What working memory, uploads and the nets of `models` may exceed together, and what to change; "
        "null where all fit."
    )
    problem: str | None = Field(description="Why the service is not ready, as `GET /readyz` says; null where it is.")
    max_body_bytes: int = Field(description="Most bytes of a request's body: an image of more is refused with 413.")


def _summary(engine: Engine, model: LoadedModel) -> dict[str, Any]:
    spec = model.package.spec
    return {
        "name": spec.name,
        "version": spec.version,
        "title": spec.title,
        "default": model is engine.default_model,
        "channels": list(spec.channels),
        "classes": list(spec.classes),
        "backend": model.session.backend,
        "provider": model.session.provider,
        "precision": model.session.precision,
        "agreement": model.agreement,
        "label_rule_note": spec.label_rule_note,
    }


class JobLinks(_Document):
    """Paths of a job."""

    job: str = Field(description="How far it is; DELETE ends it.")
    result: str | None = Field(description="Its result, once it is done.")


class ListedJob(JobReport):
    """A job, and where it is asked for."""

    links: JobLinks


class JobList(_Document):
    """Jobs of one user, the newest first."""

    jobs: list[ListedJob]
    next: str | None = Field(description="Path of those that are older; null where there are none.")
