"""``scale=auto``: the scale at which a package is shown objects as large as it knows them."""

from __future__ import annotations

from dataclasses import replace

from model.images import ImageHeader
from model.spec import ModelSpec
from service.engine.errors import BadParameter
from service.engine.request import SegmentRequest
from service.engine.scaling import SCALE_LIMITS, other_scale, pixel_ratio


def with_scale(request: SegmentRequest, header: ImageHeader, spec: ModelSpec) -> tuple[SegmentRequest, tuple[str, ...]]:
    """Return a request with the scale in place of ``auto``, and a note on why; any other as it is, without a note.

    It is the ratio of the pixel sizes of image and training images, to four digits, so that it can be asked for as a
    number.

    Raises
    ------
    BadParameter
        Where one of both is not known, or the ratio is beyond what ``scale`` may be.

    """
    if not request.auto_scale:
        return request, ()
    size_um, trained_um = request.pixel_size_um or header.pixel_size_um, spec.pixel_size_um
    if size_um is None or trained_um is None:
        raise BadParameter(_what_is_missing(size_um, spec))
    own, trained = (f"{y:.3g} x {x:.3g}" for y, x in (size_um, trained_um))
    why = f"the image's pixels are of {own} um, those that {spec.reference} was trained on of {trained} um"
    ratio = pixel_ratio(size_um, trained_um)
    if not SCALE_LIMITS[0] <= ratio <= SCALE_LIMITS[1]:
        raise BadParameter(
            f"scale=auto would be {ratio:.3g}, the limits are {SCALE_LIMITS[0]:g} and {SCALE_LIMITS[1]:g}: {why}; "
            "correct pixel_size, or resample the image before it is sent"
        )
    scale = float(f"{ratio:.4g}")
    return replace(request, scale=other_scale(scale)), (f"scale=auto took {scale:g}: {why}",)


def _what_is_missing(size_um: tuple[float, float] | None, spec: ModelSpec) -> str:
    if spec.pixel_size_um is None:
        return (
            f"scale=auto goes by the sizes of pixels, and {spec.reference} does not say which it was trained on; give "
            "scale as a number: 0.5 where objects are twice as large as those that it knows"
        )
    return (
        "scale=auto goes by the sizes of pixels, and the image does not say how large its are; give pixel_size in "
        f"micrometres ({spec.reference} was trained on {spec.pixel_size_um[0]:.3g} x {spec.pixel_size_um[1]:.3g} um), "
        "or scale as a number"
    )
