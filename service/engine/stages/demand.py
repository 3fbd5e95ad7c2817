"""What a request asks of the service, from the image's header alone."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from model.images import ImageHeader
from model.views import ViewPlan, plan_views
from service.engine.admission.admission import Admission
from service.engine.admission.alone import check_disk_alone, check_memory_alone
from service.engine.admission.series import SINGLE, Series
from service.engine.admission.ticket import Later, Throughput, Ticket
from service.engine.errors import BadParameter, DeadlineExceeded, EngineError, TooLargeForMemory
from service.engine.images.scaling import check_scale, scaled_size
from service.engine.packages.loading import LoadedModel
from service.engine.request import SegmentRequest
from service.engine.stages.needs import Needs, needs

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Demand:
    """For :class:`service.engine.admission.admission.Admission`, whose errors its methods raise."""

    plan: ViewPlan
    """How each plane is cut, at the scale that the net sees."""
    pixels: int
    """Of all planes; see :meth:`service.engine.packages.loading.LoadedModel.work`."""
    room: Needs
    timeout_s: float
    background: bool
    user: str | None
    relief: str
    """What would help where it is too large, beside what is said to all; empty where nothing is known."""
    series: Series
    """What goes to the same caller."""
    several: bool = False
    """Whether it is for several outputs, which are made in turn where there is no room for all now."""
    finishing_s: float = 0.0
    """Seconds that it takes beside the net at least; 0 where that is not known."""
    usual_finishing_s: float = 0.0
    """Seconds that such a request usually takes beside it."""
    auto_scale: float | None = None
    """The scale where ``scale=auto`` took another than 1: a refusal tells it, as the caller never gave it."""
    later: Later | None = None
    """See :meth:`service.engine.admission.admission.Admission.admit`; None where nothing follows."""

    @property
    def left_s(self) -> float:
        """Seconds that are left until the caller gives up."""
        return self.timeout_s - self.series.seconds

    def check_alone(self, admission: Admission) -> None:
        """Refuse what would not fit though nothing were there but what is ready for the same caller."""
        room, series = self.room, self.series
        with telling(self.auto_scale):
            try:
                check_memory_alone(room.memory_bytes, admission.memory_limit, series.memory_bytes)
                check_disk_alone(room.disk_bytes, admission.disk_limit, series.disk_bytes)
            except TooLargeForMemory as error:
                if not self.relief:
                    raise
                raise TooLargeForMemory(f"{error}, or {self.relief}") from None

    def check_room(self, admission: Admission) -> None:
        """See :meth:`~service.engine.admission.admission.Admission.check_room`."""
        admission.check_room(self.room.memory_bytes, self.room.disk_bytes, self.series)

    def waits_for_package(self, admission: Admission) -> bool:
        """See :meth:`~service.engine.admission.admission.Admission.waits_for_package`; jobs wait for their turn."""
        return not self.background and admission.waits_for_package(self.room.memory_bytes, self.series)

    def waits(self, admission: Admission, speed: Throughput) -> bool:
        """Whether it waits for a package, or for what other users hold.

        Raises
        ------
        ShareExceeded
            See :meth:`~service.engine.admission.admission.Admission.seconds_in_line`.

        """
        return self.waits_for_package(admission) or self.seconds_in_line(admission, speed) > 0

    def seconds_in_line(self, admission: Admission, speed: Throughput) -> float:
        """See :meth:`~service.engine.admission.admission.Admission.seconds_in_line`; jobs wait for their turn."""
        if self.background:
            return 0.0
        most_s = -math.inf if self.several else self._spare_s(admission, speed)
        return admission.seconds_in_line(*self._room, self.series, self.user, most_s)

    @property
    def _room(self) -> tuple[int, int]:
        return self.room.memory_bytes, self.room.disk_bytes

    def _spare_s(self, admission: Admission, speed: Throughput) -> float:
        """Seconds that it may wait before its work begins."""
        work_s = admission.seconds_until_done(speed, self.pixels * self.series.runs, user=self.user) + self.finishing_s
        return self.left_s - work_s

    async def wait_for_room(self, admission: Admission, speed: Throughput) -> Demand:
        """Wait while :meth:`waits`, and as long as there is time for the work after it.

        Returns
        -------
        What is asked for then: less time is left.

        Raises
        ------
        Overloaded
            Where it has no room even then.
        TooLargeForMemory, DeadlineExceeded
            At once, where waiting would be in vain.

        """
        self.check(admission, speed)
        loop = asyncio.get_running_loop()
        began = loop.time()
        most_s = self._spare_s(admission, speed)
        if self.waits_for_package(admission):
            await admission.let_package_pass(self.room.memory_bytes, self.series, most_s)
        else:
            await admission.let_others_pass(*self._room, self.series, self.user, most_s)
        self.check_room(admission)
        return replace(self, series=replace(self.series, seconds=self.series.seconds + loop.time() - began))

    def check(self, admission: Admission, speed: Throughput) -> None:
        """See :meth:`~service.engine.admission.admission.Admission.check`; what it waits for counts as free."""
        self.check_alone(admission)
        asked = self
        if self.waits_for_package(admission):
            asked = replace(self, room=replace(self.room, memory_bytes=0))
        elif self.seconds_in_line(admission, speed):
            asked = replace(self, room=replace(self.room, memory_bytes=0, disk_bytes=0))
        with telling(self.auto_scale):
            asked._ask(admission.check, speed, background=self.background, user=self.user, later=self.later)

    def admit(self, admission: Admission, speed: Throughput) -> AbstractContextManager[Ticket]:
        """See :meth:`~service.engine.admission.admission.Admission.admit`."""
        self.check(admission, speed)
        return self._ask(admission.admit, speed, background=self.background, user=self.user, later=self.later)

    async def go_on(self, admission: Admission, ticket: Ticket, *, patient: bool) -> None:
        """See :meth:`~service.engine.admission.admission.Admission.go_on`."""
        self.check_alone(admission)
        with telling(self.auto_scale):
            await self._ask(admission.go_on, ticket, patient=patient)

    def _ask(self, ask: Callable[..., _T], first: Throughput | Ticket, **how: bool | str | Later | None) -> _T:
        """Call one of admission's methods with all that is asked for."""
        room, other = self.room, {"finishing_s": self.finishing_s, "series": self.series}
        return ask(first, self.pixels, room.memory_bytes, self.timeout_s, room.disk_bytes, **other, **how)


def demand_of(
    header: ImageHeader,
    requests: Sequence[SegmentRequest],
    chosen: LoadedModel,
    part_bytes: int,
    timeout_s: float,
    *,
    most: Needs,
    most_pixels: int,
    series: Series = SINGLE,
) -> Demand:
    """Say what one run of a net for some requests asks for.

    Parameters
    ----------
    header, requests, chosen
        What is to be done, by which net.
    part_bytes, most
        As for :func:`service.engine.stages.needs.needs`.
    timeout_s
        Seconds until the caller gives up.
    most_pixels
        As for :func:`service.engine.images.scaling.check_scale`.
    series
        What goes to the same caller.

    Raises
    ------
    BadParameter
        Where the scale makes too much of the image.

    """
    scale, left = requests[0].scale, most.minus(series)
    auto_scale = scale if requests[0].auto_scale else None
    with telling(auto_scale):
        check_scale(header.size_yx, scale, most_pixels)
    plan = plan_views(chosen.planner, scaled_size(header.size_yx, scale), mirror=requests[0].mirror)
    spec, relief = chosen.package.spec, ""
    room = needs(header, spec, requests, part_bytes, left)
    if scale is not None and not room.within(left):
        as_it_is = needs(header, spec, [replace(request, scale=None) for request in requests], part_bytes, left)
        relief = f"ask for a scale nearer to 1 than {scale:g}" if as_it_is.within(left) else ""
    if not room.within(left):
        room = needs(header, spec, requests, part_bytes, most)  # what it is refused for, alone or beside what is ready
    seen, pixels = header.planes * math.prod(header.size_yx), header.planes * chosen.work(plan)
    # of several what takes longest: what they take together nobody has measured
    finishing_s = max(chosen.finishing.least_seconds(request, seen) for request in requests)
    usual_s = max(chosen.finishing.seconds(request, seen) for request in requests)
    background, user = requests[0].background, requests[0].user
    several = len(requests) > 1
    who, times = (background, user), (finishing_s, usual_s)
    return Demand(plan, pixels, room, timeout_s, *who, relief, series, several, *times, auto_scale)


def first_refusal(demands: Sequence[Demand], admission: Admission, speed: Throughput) -> EngineError | None:
    """Return what would refuse one of them if they came one after the other; None where all would be accepted."""
    for asked in demands:
        try:
            asked.check(admission, speed)
        except EngineError as error:
            return error
    return None


@contextmanager
def telling(auto_scale: float | None) -> Iterator[None]:
    """Have failures that another scale may spare end with the one that ``scale=auto`` took; None where it took none."""
    try:
        yield
    except (BadParameter, DeadlineExceeded, TooLargeForMemory) as error:
        if auto_scale is None:
            raise
        raise type(error)(f"{error}; scale=auto took {auto_scale:g}, scale= with a number replaces it") from None
