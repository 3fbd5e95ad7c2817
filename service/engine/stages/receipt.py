"""The receipt: what was seen and done, so that nothing happens to an image without its owner knowing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from model.images import ImageHeader
from model.views import ViewPlan
from service.engine.packages.loading import LoadedModel
from service.engine.request import SegmentRequest
from service.formats import UNPLACED

MOST_PLANES = 1000
"""Planes whose normalisation a receipt tells: some hundred bytes each, in the memory of every answer."""


def build_receipt(
    header: ImageHeader,
    notes: Sequence[str],
    chosen: LoadedModel,
    plan: ViewPlan,
    request: SegmentRequest,
    *,
    channel: int | None,
    constants: Sequence[Any],
    objects: Sequence[int],
    linked: int | None,
) -> dict[str, Any]:
    """Return the receipt of one request, fit for JSON; the same input gives the same receipt.

    It has ``shortened`` where the stack has more than :data:`MOST_PLANES` planes.

    Parameters
    ----------
    header, notes
        What was decoded, and what was changed on reading.
    chosen
        What ran.
    plan
        How each plane was tiled.
    request
        What was asked.
    channel
        Which one was taken, where one was asked for.
    constants
        Normalisation constants of each plane.
    objects
        Objects found in each plane (labels).
    linked
        Objects of the stack, where they were linked from plane to plane.

    """
    receipt: dict[str, Any] = {
        "service": version("unet-service"),
        "input": {
            "format": header.format,
            "dtype": str(header.dtype),
            "bits": header.bits,
            "size_yx": list(header.size_yx),
            "channels": header.channels,
            **({"channel_names": list(header.channel_names)} if header.channel_names else {}),
            "planes": header.planes,
            "stack_axes": header.stack_axes,
            "compression": header.compression,
            "pixel_size_um": list(header.pixel_size_um) if header.pixel_size_um else None,
            **({} if header.spacing_um is None else {"spacing_um": header.spacing_um}),
            **({} if header.interval_s is None else {"interval_s": header.interval_s}),
            "notes": list(notes),
        },
        "normalization": list(constants[:MOST_PLANES]),
        "tiles": {
            "count": len(plan.tiles) * header.planes,
            "input_yx": list(plan.tiles.input_yx),
            "stride_yx": list(plan.tiles.stride_yx),
            **({"views": len(plan.views)} if len(plan.views) > 1 else {}),
        },
        "model": chosen.identity,
        "backend": chosen.session.backend,
        "provider": chosen.session.provider,
        "precision": chosen.session.precision,
        "output": {"kind": request.output, "format": request.format},
    }
    if chosen.agreement is not None:
        receipt["agreement"] = asdict(chosen.agreement)
    of_labels = ("link",) if request.output == "labels" else ()
    asked = ("threshold", "min_area", "min_score", *of_labels, "axes", "scale")
    chosen_values = {name: getattr(request, name) for name in asked} | {"channel": channel}
    if channel is not None and header.channel_names:
        chosen_values["channel_name"] = header.channel_names[channel]
    receipt["output"] |= {name: value for name, value in chosen_values.items() if value is not None}
    if request.auto_scale:
        receipt["output"]["scale"] = request.scale or 1.0
    if request.pixel_size_um is not None:
        receipt["output"]["pixel_size_um"] = list(request.pixel_size_um)
    if request.placement != UNPLACED:
        receipt["output"] |= asdict(request.placement)
    if request.output == "labels":
        receipt["output"]["objects"] = sum(objects)
    if linked is not None:
        receipt["output"]["linked_objects"] = linked
    if len(constants) > MOST_PLANES:
        receipt["shortened"] = True
    return receipt
