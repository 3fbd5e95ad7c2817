"""What a person should know of a result, for its receipt."""

from __future__ import annotations

from collections.abc import Sequence

from model.flooding import MARGINS
from model.images import ImageHeader
from model.labels import Objects
from model.spec import ModelSpec
from model.wording import counted
from service.engine.images.scaling import SCALE_LIMITS, pixel_ratio
from service.engine.request import SegmentRequest
from service.engine.stages.object_sizes import median_diameter

MOST_APART = 1.5
"""Ratio of pixel sizes up to which augmentation has prepared a net for another one."""

MOST_COVERED = 0.9
"""Share of a plane: beyond it the ground has more often been taken for objects than they grow so densely."""


def request_notes(header: ImageHeader, spec: ModelSpec, request: SegmentRequest) -> tuple[str, ...]:
    """Note what is doubtful about how an image is read by a package: its rule for objects, and the size of pixels."""
    rule = None if request.output == "probabilities" else spec.label_rule_note
    return (*filter(None, [rule]), *_size_note(request.pixel_size_um or header.pixel_size_um, spec, request.scale))


def _size_note(size_um: tuple[float, float] | None, spec: ModelSpec, scale: float | None) -> tuple[str, ...]:
    """Where the net sees pixels of quite another size than those that it was trained on."""
    if size_um is None or spec.pixel_size_um is None:
        return ()
    fitting = pixel_ratio(size_um, spec.pixel_size_um)
    if 1 / MOST_APART <= fitting / (scale or 1) <= MOST_APART:
        return ()
    own, trained = (f"{y:.3g} x {x:.3g}" for y, x in (size_um, spec.pixel_size_um))
    at = "" if scale is None else f", taken at scale={scale:g}"
    return (
        f"the image's pixels are of {own} um{at}, those that {spec.reference} was trained on of {trained} um: "
        + _fitting_note(fitting, fitting / MOST_APART, fitting * MOST_APART, "the objects as large as it knows them"),
    )


def object_notes(planes: Sequence[Objects], spec: ModelSpec, request: SegmentRequest) -> tuple[str, ...]:
    """Note what is doubtful about the objects that a request has found in each plane."""
    doubtful = (
        f"{counted(objects.uncertain, 'pixel')}, over {MARGINS[-1]} px from what settles their label, done in parts"
        for objects in planes
        if objects.uncertain
    )
    covered = _covered_note([objects.covered for objects in planes], spec)
    # a request that says how small, or how sure, objects may be has chosen their median, too
    chosen = request.min_area is not None or request.min_score is not None
    of_size = () if chosen else _diameter_note(median_diameter(planes), spec, request.scale)
    return (*doubtful, *covered, *of_size)


def _diameter_note(median_px: float | None, spec: ModelSpec, scale: float | None) -> tuple[str, ...]:
    """Where the net has seen most objects smaller, or larger, than nearly all that it was trained on."""
    if median_px is None or spec.object_diameter_px is None:
        return ()
    low, known, high = spec.object_diameter_px
    seen = median_px * (scale or 1)
    if low <= seen <= high:
        return ()
    fitting = _fitting_note(known / median_px, low / median_px, high / median_px, "objects of that size")
    at = "" if scale is None else f", {seen:.3g} px at scale={scale:g}"
    return (
        f"the objects found are {median_px:.3g} px across (median){at}, those that {spec.reference} was trained on "
        f"{low:.3g} to {high:.3g} px (median {known:.3g} px): {fitting}",
    )


def _fitting_note(scale: float, least: float, most: float, shown: str) -> str:
    """Name a scale, or the nearest from ``least`` to ``most``, so that it is taken as it is written."""
    lowest, highest = SCALE_LIMITS
    if not least <= min(max(scale, lowest), highest) <= most:
        return f"no scale from {lowest:g} to {highest:g} shows it {shown}"
    return f"scale={min(max(float(f'{scale:.2g}'), lowest), highest):g} shows it {shown}"


def _covered_note(covered: Sequence[float], spec: ModelSpec) -> tuple[str, ...]:
    full = [share for share in covered if share > MOST_COVERED]
    if not full:
        return ()
    where = f", or more, in {len(full)} of {len(covered)} planes" if len(covered) > 1 else ""
    return (
        f"{100 * min(full):.1f} % of the pixels are objects{where}, over {100 * MOST_COVERED:.0f} %: is the contrast "
        f"inverted, or the image none of those that {spec.reference} is made for? Its card says which those are",
    )
