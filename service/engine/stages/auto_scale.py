"""``scale=auto``: the scale at which a package is shown objects as large as it knows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from model.images import ImageHeader
from model.spec import ModelSpec
from service.engine.errors import BadParameter
from service.engine.images.scaling import SCALE_LIMITS, four_digits, other_scale, pixel_ratio
from service.engine.request import SegmentRequest

ScaledRequest: TypeAlias = tuple[SegmentRequest, tuple[str, ...]]
"""A request whose scale is settled, and what its receipt notes of that."""


def by_pixel_size(request: SegmentRequest, header: ImageHeader, spec: ModelSpec) -> ScaledRequest | None:
    """Return a request with the ratio of the pixel sizes of image and training images in place of ``auto``.

    The ratio has four digits, so that it can be asked for as a number. A request with a scale of its own is returned as
    it is; None where one of both sizes is not known.

    Raises
    ------
    BadParameter
        Where the ratio is beyond what ``scale`` may be.

    """
    if not request.auto_scale:
        return request, ()
    size_um, trained_um = request.pixel_size_um or header.pixel_size_um, spec.pixel_size_um
    if size_um is None or trained_um is None:
        return None
    own, trained = (f"{y:.3g} x {x:.3g}" for y, x in (size_um, trained_um))
    why = f"the image's pixels are of {own} um, those that {spec.reference} was trained on of {trained} um"
    ratio = pixel_ratio(size_um, trained_um)
    if not SCALE_LIMITS[0] <= ratio <= SCALE_LIMITS[1]:
        raise BadParameter(
            f"scale=auto would be {ratio:.3g}, the limits are {SCALE_LIMITS[0]:g} and {SCALE_LIMITS[1]:g}: {why}; "
            "correct pixel_size, or resample the image before it is sent"
        )
    return settled(request, ratio, why)


def settled(request: SegmentRequest, scale: float, why: str) -> ScaledRequest:
    """Return a request with a scale, to four digits, in place of ``auto``."""
    scale = four_digits(scale)
    return replace(request, scale=other_scale(scale)), (f"scale=auto took {scale:g}: {why}",)


def all_at_scale(requests: Sequence[SegmentRequest], scaled: ScaledRequest) -> list[SegmentRequest]:
    """Return requests that are equal but for their outputs at the scale of one of them."""
    return [replace(scaled[0], output=each.output) for each in requests]


def nothing_tells(request: SegmentRequest, header: ImageHeader, spec: ModelSpec) -> BadParameter:
    """Return the refusal where neither pixel sizes nor objects can tell a scale."""
    remedies = ["scale as a number (0.5 where objects are twice as large as those that the package knows)"]
    if (request.pixel_size_um or header.pixel_size_um) is None:
        missing = "the size of the image's pixels"
        if spec.pixel_size_um is not None:
            remedies.insert(0, "pixel_size in micrometres")
    else:
        missing = f"the size of the pixels that {spec.reference} was trained on"
    if spec.object_diameter_px is None:
        objects = f"{spec.reference} does not say how large the objects are that it knows"
    else:
        objects = "the image is too small to look for objects"
    return BadParameter(f"scale=auto lacks {missing}, and {objects}; give {' or '.join(remedies)}")
