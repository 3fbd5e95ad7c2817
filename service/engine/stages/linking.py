"""Which planes of a stack are neighbours, and the numbers of objects that go through them; see :mod:`model.linking`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from model.images import ImageHeader
from model.labels import Objects
from model.linking import Linked, link_planes, neighbours
from service.engine.errors import BadParameter
from service.engine.request import SegmentRequest
from service.engine.stages.accepted import AcceptedRequest


def link_axis(header: ImageHeader, request: SegmentRequest) -> int | None:
    """Return the place of the axis along which objects are linked; None where none are, or there is one plane alone.

    Raises
    ------
    BadParameter
        Where a stack has several axes, and none is that of slices.

    """
    if request.link is None or request.output != "labels":
        return None
    long = [axis for axis, length in zip(header.stack_axes, header.stack_shape, strict=True) if length > 1]
    if not long:
        return None
    if "Z" not in long and len(long) > 1:
        raise BadParameter(
            f"link is {request.link:g}, of the stack's {len(long)} axes ({', '.join(long)}) none is Z: it is open "
            "which planes are neighbours; name the axis of slices Z with axes=, send it in parts, or leave link out"
        )
    return header.stack_axes.index("Z" if "Z" in long else long[0])


def link_notes(header: ImageHeader, request: SegmentRequest) -> tuple[str, ...]:
    """For the receipt: a link that was asked for where there is nothing to be linked."""
    if request.link is None or request.output != "labels" or link_axis(header, request) is not None:
        return ()
    return (f"link={request.link:g} has linked nothing: the image is a single plane",)


async def linked(work: AcceptedRequest, request: SegmentRequest, planes: Sequence[Objects]) -> Linked | None:
    """Number the objects of the planes of one of the requests through the stack, where that is asked for."""
    header = work.reader.header
    axis = link_axis(header, request)
    if axis is None:
        return None
    with work.clock.stage("link"):
        return await work.in_worker(
            link_planes,
            [plane.labels for plane in planes],
            [plane.areas_px for plane in planes],
            neighbours(header.stack_shape, axis),
            request.link,
            work.charge(asyncio.get_running_loop()),
        )
