"""Parameters of ``POST /segment``: query or fields of the form; one description for both and for the docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from model.images import parse_axes
from service.api.invalid import describe_invalid
from service.api.pairs import checked_by, parse_origin, parse_pixel_size, parse_size
from service.api.parameter_kinds import Channel, Mirror, Model, Output, PixelSize, RespondAsync, Scale, Timeout
from service.engine.images.scaling import AUTO, other_scale
from service.engine.request import SegmentRequest
from service.formats import ENCODERS, PLACED_FORMATS, UNPLACED, Placement
from service.formats.placement import DOWNSAMPLE_LIMITS
from service.request_errors import InvalidParameter
from service.settings import Settings

_FORMAT = Field(json_schema_extra={"enum": list(ENCODERS)})


class Parameters(BaseModel):
    """Nothing unknown is taken, and what is empty counts as not given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _empty_is_not_given(cls, given: Any) -> Any:  # noqa: ANN401 - whatever pydantic is given
        if not isinstance(given, Mapping):
            return given
        return {name: value for name, value in given.items() if value != "" or name not in cls.model_fields}


class SegmentParameters(Parameters):
    """What may be asked of one segmentation; everything is optional."""

    model: Model = None
    output: Output = "mask"
    format: Annotated[str | None, _FORMAT] = Field(
        None, description="Format of the answer; it beats the Accept header. Default: png."
    )
    threshold: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = Field(
        None,
        description="Foreground where its probability is above this; a lower one also lowers the scores that "
        "`min_score` asks for. Default: what the package says.",
    )
    min_area: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Smallest object in px (`output=labels`). Default: what the package says."
    )
    min_score: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | None = Field(
        None,
        description="Least mean probability of an object (`output=labels`), its score in GeoJSON and COCO. "
        "Default: what the package says.",
    )
    link: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        None,
        description="Least intersection over union with which objects of neighbouring planes of a stack are one, with "
        "one number (`output=labels`). Default: each plane is numbered by itself.",
        json_schema_extra={"examples": [0.25]},
    )
    channel: Channel = None
    axes: str | None = Field(
        None,
        description="Letters of the image's axes, slowest first, in place of what the file says or leaves open: `Y`, "
        "`X`, `C` for channels, `T` for frames, `Z` for slices, `I` for other planes.",
        json_schema_extra={"examples": ["CYX", "TZYX"]},
    )
    mirror: Mirror = False
    scale: Scale = None
    pixel_size: PixelSize = None
    origin: Annotated[str, checked_by(parse_origin)] | None = Field(
        None,
        description="`Y,X`: where the image begins in a larger one, px of that one; coordinates of the answer are "
        "those of the larger image (`format=geojson`).",
        json_schema_extra={"examples": ["2048,10240"]},
    )
    downsample: Annotated[float, Field(ge=DOWNSAMPLE_LIMITS[0], le=DOWNSAMPLE_LIMITS[1])] | None = Field(
        None, description="How many pixels of the larger image one pixel is wide and high (`format=geojson`)."
    )
    timeout: Timeout = None
    respond_async: RespondAsync = False

    @field_validator("axes")
    @classmethod
    def _are_axes(cls, text: str | None) -> str | None:
        return None if text is None else parse_axes(text)

    def request(self, format_name: str) -> SegmentRequest:
        """Return what is asked of the engine, given the format that was negotiated.

        Raises
        ------
        InvalidParameter
            Where the format has no coordinates that could be those of a larger image, or nothing is numbered that could
            be linked.
        UnsupportedOutput
            Where the format never holds such a result.

        """
        ENCODERS[format_name].check_kind(self.output)
        if self.link is not None and self.output != "labels":
            raise InvalidParameter(
                f"link is {self.link:g}, output={self.output} has no numbered objects; ask for output=labels, or leave "
                "link out"
            )
        return replace(
            _common(self, format_name),
            threshold=self.threshold,
            min_area=self.min_area,
            min_score=self.min_score,
            link=self.link,
            axes=self.axes,
            placement=self.placement(format_name),
        )

    def placement(self, format_name: str) -> Placement:
        """Return where the image lies in a larger one.

        Raises
        ------
        InvalidParameter
            Where the format has no coordinates that could be those of a larger image.

        """
        placement = Placement(
            parse_origin(self.origin) if self.origin is not None else (0.0, 0.0),
            self.downsample if self.downsample is not None else 1.0,
        )
        if placement != UNPLACED and format_name not in PLACED_FORMATS:
            y, x = placement.origin_yx
            raise InvalidParameter(
                f"origin is {y:g},{x:g} and downsample {placement.downsample:g}, format {format_name} takes neither; "
                f"ask for format={' or '.join(PLACED_FORMATS)}, or leave them out"
            )
        return placement


class PlanParameters(Parameters):
    """What may be asked of ``GET /plan``; the same names as in :class:`SegmentParameters` mean the same."""

    size: Annotated[str, checked_by(parse_size)] = Field(
        description="Height and width of the image in px.", json_schema_extra={"examples": ["4096x4096", "1024x1360"]}
    )
    planes: Annotated[int, Field(ge=1)] = Field(1, description="Planes of the stack.")
    model: Model = None
    output: Output = "mask"
    format: Annotated[str | None, _FORMAT] = Field(None, description="Format of the answer. Default: tiff.")
    mirror: Mirror = False
    channel: Channel = None
    scale: Scale = None
    pixel_size: PixelSize = None
    timeout: Timeout = None
    respond_async: RespondAsync = False

    def request(self, format_name: str) -> SegmentRequest:
        """Return what would be asked of the engine, given the format that was negotiated."""
        return _common(self, format_name)


def _common(parameters: SegmentParameters | PlanParameters, format_name: str) -> SegmentRequest:
    """What a segmentation and its plan are asked alike."""
    channel = parameters.channel
    return SegmentRequest(
        model=parameters.model,
        output=parameters.output,
        format=format_name,
        channel=int(channel) if channel is not None and channel.isascii() and channel.isdecimal() else channel,
        mirror=parameters.mirror,
        scale=other_scale(parameters.scale),
        auto_scale=parameters.scale == AUTO,
        pixel_size_um=None if parameters.pixel_size is None else parse_pixel_size(parameters.pixel_size),
        timeout_s=parameters.timeout,
    )


def seconds_allowed(timeout_s: float | None, settings: Settings, *, background: bool) -> float:
    """Return how long a request may take, given what it asks for.

    Raises
    ------
    InvalidParameter
        Where that is beyond the service's deadline, which would cut it in silence.

    """
    name, limit_s = ("JOB_DEADLINE_S", settings.job_deadline_s) if background else ("DEADLINE_S", settings.deadline_s)
    if timeout_s is not None and timeout_s > limit_s:
        raise InvalidParameter(
            f"timeout is {timeout_s:g} s, the service's deadline is {limit_s:g} s; ask for less, or raise UNET_{name}"
        )
    return timeout_s or limit_s


def combined(
    query: SegmentParameters, fields: Mapping[str, str], known: Sequence[str] = tuple(SegmentParameters.model_fields)
) -> SegmentParameters:
    """Return the parameters of the query and those of a form together; what both give, the query decides.

    Parameters
    ----------
    query
        Already checked.
    fields
        Text fields of the form; empty ones count as not given, as in the query.
    known
        Names of the fields that are told where there is no such one.

    Raises
    ------
    InvalidParameter
        Where a field does not exist or has an impossible value.

    """
    try:
        return SegmentParameters.model_validate({**fields, **query.model_dump(exclude_unset=True)})
    except ValidationError as error:
        raise InvalidParameter(describe_invalid(error.errors(), known)) from error
