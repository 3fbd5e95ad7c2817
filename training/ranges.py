"""Numbers of a recipe, held to their ranges."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"the range begins with {ends[0]:g} and ends with {ends[1]:g}; give the lower end first")
    return ends


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]
