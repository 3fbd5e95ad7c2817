"""What a request asks of the service, from the image's header alone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from model.images import ImageHeader
from model.views import ViewPlan, plan_views
from service.engine.admission import Admission
from service.engine.errors import TooLargeForMemory
from service.engine.loading import LoadedModel
from service.engine.needs import Needs, needs
from service.engine.request import SegmentRequest
from service.engine.scaling import check_scale, scaled_size
from service.engine.ticket import Throughput, Ticket


@dataclass(frozen=True, slots=True)
class Demand:
    """For :class:`service.engine.admission.Admission`, whose errors its methods raise."""

    plan: ViewPlan
    """How each plane is cut, at the scale that the net sees."""
    pixels: int
    """Input pixels of all tiles of all planes."""
    room: Needs
    timeout_s: float
    background: bool
    relief: str
    """What would help where it is too large, beside what is said to all; empty where nothing is known."""

    def check(self, admission: Admission, speed: Throughput) -> None:
        """See :meth:`~service.engine.admission.Admission.check`."""
        room = self.room
        try:
            admission.check(
                speed, self.pixels, room.memory_bytes, self.timeout_s, room.disk_bytes, background=self.background
            )
        except TooLargeForMemory as error:
            if not self.relief:
                raise
            raise TooLargeForMemory(f"{error}, or {self.relief}") from None

    def admit(self, admission: Admission, speed: Throughput) -> AbstractContextManager[Ticket]:
        """See :meth:`~service.engine.admission.Admission.admit`."""
        self.check(admission, speed)
        room = self.room
        return admission.admit(
            speed, self.pixels, room.memory_bytes, self.timeout_s, room.disk_bytes, background=self.background
        )


def demand_of(
    header: ImageHeader,
    request: SegmentRequest,
    chosen: LoadedModel,
    part_bytes: int,
    timeout_s: float,
    *,
    most: Needs,
    most_pixels: int,
) -> Demand:
    """Say what a request asks for.

    Parameters
    ----------
    header, request, chosen
        What is to be done, by which net.
    part_bytes, most
        As for :func:`service.engine.needs.needs`.
    timeout_s
        Seconds until the caller gives up.
    most_pixels
        As for :func:`service.engine.scaling.check_scale`.

    Raises
    ------
    BadParameter
        Where the scale makes too much of the image.

    """
    check_scale(header.size_yx, request.scale, most_pixels)
    plan = plan_views(chosen.planner, scaled_size(header.size_yx, request.scale), mirror=request.mirror)
    spec, relief = chosen.package.spec, ""
    room = needs(header, spec, request, part_bytes, most)
    if request.scale is not None and not room.within(most):
        alone = needs(header, spec, replace(request, scale=None), part_bytes, most)
        relief = f"ask for a scale nearer to 1 than {request.scale:g}" if alone.within(most) else ""
    return Demand(plan, header.planes * plan.input_pixels, room, timeout_s, request.background, relief)
