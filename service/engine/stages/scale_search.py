"""The scale at which an image's objects are as large as those that a package knows, where no pixel sizes tell it.

A crop from the middle is tried at scales a factor of two apart. Those at which the median of the objects found is among
the diameters that the package knows are believed. The best of them, by what it finds and how surely, gives the median
diameter in the image, and so the scale at which that is the package's. The image stays as it is where the package knows
that diameter, and the image's own scale is nearly as good as the best.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from model.images import ImageHeader
from model.labels import Objects, label_evidence
from model.planner import Planner
from model.spec import ModelSpec
from model.stitching import Stitcher
from model.views import ViewPlan, plan_views
from service.engine.admission.series import Series
from service.engine.admission.wanted import WantedPixels
from service.engine.images.plane import chosen_run, empty_plane
from service.engine.images.scaling import SCALE_LIMITS, scaled_image, scaled_size, scaling_bytes, scaling_work_bytes
from service.engine.packages.loading import LoadedModel
from service.engine.request import SegmentRequest
from service.engine.stages.accepted import AcceptedRequest
from service.engine.stages.auto_scale import nothing_tells
from service.engine.stages.demand import Demand
from service.engine.stages.needs import Needs, needs, reading_bytes
from service.engine.stages.object_sizes import LEAST_OBJECTS, median_diameter

_SCALES = tuple(2.0**power for power in range(-4, 3))
_SIDE_PX = 420  # of a crop, as the net sees it
_IN_MEMORY = Needs(sys.maxsize, 0)
_LEAST_SIDE_PX = 24  # in less there are no five objects
_NEARLY = 0.9
_LEAST_DIAMETER_PX = 4  # in the image: what is smaller there is mostly its noise, enlarged


@dataclass(frozen=True, slots=True)
class ScaleCrop:
    """A crop of an image at a scale, and how it is cut into tiles."""

    scale: float
    rows: slice
    columns: slice
    plan: ViewPlan

    @property
    def size_yx(self) -> tuple[int, int]:
        """Height and width in px, as the net sees it."""
        return self.plan.tiles.size_yx


class Search(NamedTuple):
    """What is tried of an image, for which objects, and what that asks for."""

    crops: tuple[ScaleCrop, ...]
    known_px: tuple[float, float, float]
    """See :attr:`model.spec.ModelSpec.object_diameter_px`."""
    asked: Demand


def crops_of(header: ImageHeader, planner: Planner) -> tuple[ScaleCrop, ...]:
    """Return what is to be tried of an image; none where it is too small for that at any scale."""
    crops = []
    for scale in _SCALES:
        rows, columns = (_middle(length, round(_SIDE_PX / scale)) for length in header.size_yx)
        size_yx = scaled_size((rows.stop - rows.start, columns.stop - columns.start), scale)
        if min(size_yx) >= _LEAST_SIDE_PX:
            crops.append(ScaleCrop(scale, rows, columns, plan_views(planner, size_yx, mirror=False)))
    return tuple(crops)


def search_needs(
    header: ImageHeader,
    request: SegmentRequest,
    spec: ModelSpec,
    part_bytes: int,
    most: Needs,
    *,
    crops: Sequence[ScaleCrop],
) -> Needs:
    """Memory and disk for a decoded plane and the largest crop; others as for :func:`.needs.needs`."""
    reading = reading_bytes(header, part_bytes)
    largest = max(_crop_bytes(header, request, spec, crop) for crop in crops)
    in_memory = Needs(max(reading.into_memory, reading.decoded + reading.kept + largest), 0)
    in_files = Needs(reading.into_file + largest, reading.decoded)
    return in_memory if in_memory.within(most) or not most.on_disk else in_files


def _crop_bytes(header: ImageHeader, request: SegmentRequest, spec: ModelSpec, crop: ScaleCrop) -> int:
    """Memory of a crop: while it is resampled, or while objects are looked for."""
    own = replace(header, size_yx=(crop.rows.stop - crop.rows.start, crop.columns.stop - crop.columns.start))
    resampling = scaling_bytes(own, crop.scale, 0) + scaling_work_bytes(own, crop.scale, 0)
    seen = replace(header, size_yx=crop.size_yx, planes=1, dtype=np.dtype(np.float32))
    return max(resampling, needs(seen, spec, [_for_objects(request)], 0, _IN_MEMORY).memory_bytes)


def search_of(
    header: ImageHeader,
    request: SegmentRequest,
    chosen: LoadedModel,
    part_bytes: int,
    timeout_s: float,
    *,
    most: Needs,
    series: Series,
) -> Search:
    """Say what is tried of an image where no pixel sizes tell its scale, and what that asks for.

    Parameters
    ----------
    header, request, chosen
        What is to be done, by which net.
    part_bytes, timeout_s, most, series
        As for :func:`service.engine.stages.demand.demand_of`; of a series one search is made.

    Raises
    ------
    BadParameter
        Where objects can tell no scale, either.

    """
    crops, spec = crops_of(header, chosen.planner), chosen.package.spec
    known_px = spec.object_diameter_px
    if known_px is None or not crops:
        raise nothing_tells(request, header, spec)
    room = search_needs(header, request, spec, part_bytes, most.minus(series), crops=crops)
    pixels, once = sum(chosen.work(crop.plan) for crop in crops), replace(series, runs=1)
    background, user, seen = request.background, request.user, header.planes * math.prod(header.size_yx)
    work = header.planes * chosen.work(plan_views(chosen.planner, header.size_yx, mirror=request.mirror))
    later, beside_s = chosen.found_scales.work(work), chosen.finishing.seconds(request, seen)
    asked = Demand(
        crops[-1].plan,
        pixels,
        room,
        timeout_s,
        background,
        user,
        relief="",
        series=once,
        usual_finishing_s=beside_s,
        later=later,
    )
    return Search(crops, known_px, asked)


async def found_scale(
    work: AcceptedRequest, crops: Sequence[ScaleCrop], known_px: tuple[float, float, float]
) -> tuple[float, str]:
    """Look for objects in the middle plane at some scales.

    Parameters
    ----------
    work
        The request, accepted for the search.
    crops
        What to try.
    known_px
        :attr:`model.spec.ModelSpec.object_diameter_px` of the package.

    Returns
    -------
    tuple
        The scale, 1 where nothing tells another, and why it is that, for the receipt.

    """
    spec = work.chosen.package.spec
    image_yxc, normalization, _ = await work.read(work.reader.header.planes // 2)
    request = work.requests[0]
    run, (reduce,) = chosen_run(work.chosen.session, spec, [_for_objects(request)])
    rule = spec.label_rule.with_values(threshold=request.threshold)
    believed: dict[float, tuple[float, float]] = {}
    for crop in crops:
        with work.clock.stage("scale"):
            scaled = np.empty((*crop.size_yx, image_yxc.shape[-1]), dtype=np.float32)
            wanted, part = WantedPixels(image_yxc, work.ticket), (crop.rows, crop.columns)
            source = await work.in_worker(scaled_image, wanted, normalization, scaled, part)
        with work.clock.stage("inference"):
            evidence_yx = empty_plane(crop.size_yx, spec, "labels", np.empty)
            await replace(work, plan=crop.plan).run_tiles(source, run, Stitcher((evidence_yx, reduce)))
        with work.clock.stage("label"):
            objects = await work.in_worker(label_evidence, evidence_yx, rule)
        median_px = _believed_px(crop.scale, objects, known_px)
        if median_px is not None:
            # the mean score alone prefers scales that lose all but a few
            believed[crop.scale] = float(objects.scores.mean()) * objects.covered**0.25, median_px
        if crop.scale > 1 and 1.0 in believed and believed.get(crop.scale) != max(believed.values()):
            break  # a still larger one is no better
    where = "the middle" if work.reader.header.planes == 1 else "the middle plane"
    scale, why = _chosen(believed, spec.reference, known_px, where)
    work.chosen.found_scales.add(scale)
    return scale, why


def _chosen(
    believed: Mapping[float, tuple[float, float]], reference: str, known_px: tuple[float, float, float], where: str
) -> tuple[float, str]:
    """Scale that the objects at several of them ask for, how good each is and their median diameter, and why."""
    low, known, high = known_px
    learnt = f"those that {reference} was trained on {low:.3g} to {high:.3g} px (median {known:.3g} px)"
    if not believed:
        return 1.0, f"at no scale were {LEAST_OBJECTS} objects found in {where} as large as {learnt}"
    best, median_px = max(believed.values())
    across = f"the objects in {where} are {median_px:.3g} px across (median), {learnt}"
    own, _ = believed.get(1.0, (0.0, 0.0))
    if low <= median_px <= high and own >= _NEARLY * best:
        return 1.0, f"{across}, so that the image stays as it is"
    return min(max(known / median_px, SCALE_LIMITS[0]), SCALE_LIMITS[1]), across


def _believed_px(scale: float, objects: Objects, known_px: tuple[float, float, float]) -> float | None:
    """Median diameter in the image of objects found at a scale; None where that is not to be believed."""
    median_px = median_diameter([objects])
    if median_px is None or not known_px[0] <= median_px <= known_px[2] or median_px / scale < _LEAST_DIAMETER_PX:
        return None
    return median_px / scale


def _for_objects(request: SegmentRequest) -> SegmentRequest:
    return replace(request, output="labels", format="npy", scale=None, mirror=False)


def _middle(length: int, most: int) -> slice:
    start = max(0, (length - most) // 2)
    return slice(start, min(length, start + most))
