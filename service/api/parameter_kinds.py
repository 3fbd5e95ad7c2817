"""What several requests take as parameters: their kinds, limits and descriptions, said once."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from model.images import MOST_NAME_CHARACTERS
from service.api.pairs import checked_by, parse_pixel_size
from service.engine.images.scaling import AUTO, SCALE_LIMITS
from service.formats import OutputKind

Model: TypeAlias = Annotated[
    str | None, Field(max_length=200, description="`name` or `name@version` of a package; see `/models`.")
]
Output: TypeAlias = Annotated[
    OutputKind, Field(description="Class of each pixel, numbered objects, or probability of each class.")
]
Mirror: TypeAlias = Annotated[
    bool,
    Field(description="Mean of the image's eight mirrored and turned views: a little better, eight times the time."),
]


def _checked_scale(given: Any, check: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401 - whatever pydantic is given
    try:
        return check(given.lower() if isinstance(given, str) else given)
    except ValidationError as error:
        lowest, highest = SCALE_LIMITS
        raise ValueError(f"should be a number from {lowest:g} to {highest:g}, or {AUTO}") from error


Scale: TypeAlias = Annotated[
    Annotated[
        Annotated[float, Field(ge=SCALE_LIMITS[0], le=SCALE_LIMITS[1])] | Literal["auto"],
        WrapValidator(_checked_scale),
    ]
    | None,
    Field(
        description="By which the image is resampled for the net, and the result back to the image's own pixels: `0.5` "
        "where objects are twice as large as those that the model knows. `auto` takes the ratio of the pixel sizes of "
        "image and training images, or else what the objects found ask for.",
        json_schema_extra={"examples": [0.5, AUTO]},
    ),
]
PixelSize: TypeAlias = Annotated[
    Annotated[str, checked_by(parse_pixel_size)] | None,
    Field(
        description="Size of a pixel in micrometres, `0.65` or `height,width`; it replaces what the file says.",
        json_schema_extra={"examples": ["0.65", "0.65,0.5"]},
    ),
]
Channel: TypeAlias = Annotated[
    Annotated[str, Field(max_length=MOST_NAME_CHARACTERS)] | None,
    Field(
        description="Channel of the image, for a package that takes one: its number in the file, from 0, or its name "
        "where the file names its channels (OME-XML, ImageJ's labels).",
        json_schema_extra={"examples": ["0", "DAPI"]},
    ),
]
RespondAsync: TypeAlias = Annotated[
    bool,
    Field(description="As a job, whose result is fetched from `/jobs`; for clients that cannot send `Prefer`."),
]
Timeout: TypeAlias = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
    Field(description="Seconds until the caller gives up; at most the service's deadline, which is the default."),
]
