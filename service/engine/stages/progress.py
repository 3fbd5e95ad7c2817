"""What becomes of one request: how far it is, and how long it will take."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime

from model.images import ImageHeader
from service.engine.admission.admission import Admission
from service.engine.admission.ticket import Ticket
from service.engine.stages.auto_scale import ScaledRequest

_TOLD_S = 1.0


class Progress:
    """What becomes of one request; the engine fills it in, whoever made it looks.

    Parameters
    ----------
    scaled
        See :attr:`scaled`.

    """

    def __init__(self, scaled: ScaledRequest | None = None) -> None:
        self.accepted = asyncio.Event()
        """Set once the image is known and the work is promised; what would refuse it is raised before."""
        self.made_at = datetime.now(UTC)
        self._made_s = time.monotonic()
        self._waited_s: float | None = None
        self.began_at: datetime | None = None
        """When it was its turn."""
        self.scaled = scaled
        """Its scale, once that is settled; it is not looked for again."""
        self.is_repeat = False
        """Whether the net gave before what is asked for, and does not run."""
        self.pixels = 0
        """Of the image, all planes together."""
        self._ticket: Ticket | None = None
        self._admission: Admission | None = None
        self._all = 0
        self._done: int | None = None
        self._finishing_s = 0.0
        self._preparing = False

    def accept(
        self,
        header: ImageHeader,
        ticket: Ticket,
        admission: Admission,
        finishing_s: float = 0.0,
        *,
        preparing: bool = False,
    ) -> None:
        """Note that the request has been accepted, or what prepares it: no pixel is done by that.

        ``finishing_s`` are the seconds that it should take beside the net.
        """
        self.pixels = header.planes * math.prod(header.size_yx)
        self._ticket, self._admission, self._all, self._done = ticket, admission, ticket.pixels_left, None
        self._finishing_s, self._preparing = finishing_s, preparing
        self.accepted.set()

    def begin(self) -> None:
        """Note that it is its turn."""
        self.began_at, self._waited_s = datetime.now(UTC), time.monotonic() - self._made_s

    def end(self) -> None:
        """Note that no more is worked on it, whether it is done or not."""
        self._done = self.pixels_done

    @property
    def auto_scale(self) -> float | None:
        """The scale that ``scale=auto`` took, once it has; None where that is 1, or the caller's."""
        return self.scaled[0].scale if self.scaled and self.scaled[0].auto_scale else None

    @property
    def job(self) -> Ticket | None:
        """What was accepted, where nobody waits for it."""
        return self._ticket if self._ticket is not None and self._ticket.background else None

    @property
    def waiting(self) -> str:
        """For who is told that the time is over: how long it waited for its turn; empty where it did for no second."""
        waited_s = time.monotonic() - self._made_s if self._waited_s is None else self._waited_s
        if self.job is None or waited_s < _TOLD_S:
            return ""
        return f", for {waited_s:.0f} s of which the job waited for its turn" + (
            "" if self.began_at else ", to the end"
        )

    def claim(self) -> bool:
        """Ask for what was promised to it, where nobody waits for it; see :meth:`Admission.claim`."""
        return self._ticket is None or self._admission is None or self._admission.claim(self._ticket)

    @property
    def pixels_done(self) -> int:
        """Pixels of the image that are through the net, by its tiles; once the work has ended, that were by then."""
        if self._done is not None:
            return self._done
        if self._ticket is None or self._preparing:
            return 0
        if not self._all:
            return self.pixels
        return self.pixels - math.ceil(self.pixels * self._ticket.pixels_left / self._all)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until it is done beside all others, by the measured speeds of the net and of what comes beside it.

        None while it is prepared, as what the work takes is known after that, and once it has taken what was expected.
        Before that it counts as much work as such requests had lately.
        """
        if self._ticket is None or self._admission is None or self._done is not None:
            return None
        if self._preparing and not self._ticket.waits_for_turn:
            return None
        beside_s = max(0.0, self._finishing_s - self._ticket.beside())
        if not self._ticket.pixels_left and not beside_s:
            return None
        return round(self._admission.seconds_left(self._ticket) + beside_s, 1)

    @property
    def jobs_before(self) -> int | None:
        """How many get their turn before it, if no more come; None where it has its own, or needs none."""
        job, admission = self.job, self._admission
        return admission.jobs_before(job) if job and admission and job.waits_for_turn else None
