"""What the parts of a recipe are made of: a frozen table, and numbers that are held to their ranges.

Every range has both ends, so that a value that makes no sense, infinity and NaN among them, is refused with the limit
in the message, and not met by numpy or torch hours later. The ends are far from all that has ever been of use.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Part(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"the range begins with {ends[0]:g} and ends with {ends[1]:g}; give the lower end first")
    return ends


Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
"""A fraction that is never the whole."""
Factor = Annotated[float, Field(ge=0, le=1000)]
"""What a part of the loss is multiplied by."""
Rate = Annotated[float, Field(gt=0, le=100)]
Decay = Annotated[float, Field(ge=0, le=100)]
Minutes = Annotated[float, Field(gt=0, le=1_000_000)]
Limit = Annotated[float, Field(ge=0, le=1_000_000)]
"""A limit that 0 lifts."""
BorderWeight = Annotated[float, Field(ge=0, le=10_000)]
"""Kept for every pixel in float16, which ends at 65,504."""
BorderWidth = Annotated[float, Field(ge=0.01, le=1000)]
"""Its square, in float32, is divided by."""
Grey = Annotated[float, Field(ge=0, le=1_000_000)]
"""In units of the normalised image: those of the file where nothing is normalised."""
Pixels = Annotated[float, Field(ge=0, le=100_000)]
"""A length in an image; :func:`training.data.tiles.require_tile` holds it to the tile and the images at hand."""
Zoom = Annotated[float, Field(ge=1 / 16, le=16)]
ZoomRange = Annotated[tuple[Zoom, Zoom], AfterValidator(_ascending)]
Ratio = Annotated[float, Field(ge=0.01, le=100)]
RatioRange = Annotated[tuple[Ratio, Ratio], AfterValidator(_ascending)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
CountOrNone = Annotated[int, Field(ge=0, le=1_000_000_000)]
Seed = Annotated[int, Field(ge=0, lt=1 << 31)]
"""Multiplied by a million and more to a seed of each step, of 64 bits."""
