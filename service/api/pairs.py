"""Parameters of two numbers in one text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from pydantic import AfterValidator

from model.images import PIXEL_SIZE_LIMITS_UM
from service.formats.placement import ORIGIN_LIMIT_PX


def parse_origin(text: str) -> tuple[float, float]:
    """Y and x in px from ``2048,10240``.

    Raises
    ------
    ValueError
        Where it is not two numbers within :data:`ORIGIN_LIMIT_PX`.

    """
    try:
        y, x = (float(part) for part in text.split(","))
    except ValueError:
        y = x = math.nan
    if not (abs(y) <= ORIGIN_LIMIT_PX and abs(x) <= ORIGIN_LIMIT_PX):
        raise ValueError(
            f"should be y,x in px of the larger image, each from -{ORIGIN_LIMIT_PX:.0f} to {ORIGIN_LIMIT_PX:.0f}; "
            "write it as 2048,10240"
        )
    return y, x


def parse_pixel_size(text: str) -> tuple[float, float]:
    """Height and width in micrometres from ``0.65`` or ``0.65,0.5``.

    Raises
    ------
    ValueError
        Where it is not one or two lengths within :data:`PIXEL_SIZE_LIMITS_UM`.

    """
    smallest, largest = PIXEL_SIZE_LIMITS_UM
    message = (
        f"should be one length in micrometres, or height,width, each from {smallest:g} to {largest:g}; give the size "
        "of one pixel, such as 0.65"
    )
    try:
        lengths = [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(message) from None
    if len(lengths) not in (1, 2) or not all(smallest <= length <= largest for length in lengths):
        raise ValueError(message)
    return lengths[0], lengths[-1]


def parse_size(text: str) -> tuple[int, int]:
    """Height and width in px from ``4096x4096``.

    Raises
    ------
    ValueError
        Where it is none.

    """
    match = re.fullmatch(r"([1-9]\d{0,8})[xX]([1-9]\d{0,8})", text, re.ASCII)
    if match is None:
        raise ValueError("should be height and width in px, each from 1 to 999999999; write it as 4096x4096")
    return int(match[1]), int(match[2])


def checked_by(parse: Callable[[str], object]) -> AfterValidator:
    """Return a validator of what ``parse`` takes; the field stays a text, as queries, forms and combinations have it.

    FastAPI would read a field of two numbers as one that may be given several times.
    """

    def checked(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(checked)
