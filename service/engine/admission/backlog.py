"""Refusals of what would wait for too long."""

from __future__ import annotations

import math
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import replace

from service.engine.admission.sharing import seconds_of_newcomer
from service.engine.admission.ticket import Ticket
from service.engine.admission.turn_order import TurnOrder
from service.engine.errors import DeadlineExceeded, Overloaded, ShareExceeded

_IDLE_DOUBT = 2.0  # an idle service tries what should be late by less than this factor: the estimate may be wrong
_MOST_LIMITS = 2.0  # how often the limit may wait, where users with less than an equal share of it come when it is full
_TOLD_S = 1.0  # what is left is told once so much of the time is gone


def check_time(
    asked: Ticket,
    tickets: AbstractSet[Ticket],
    timeout_s: float,
    max_backlog_s: float,
    order: TurnOrder,
    *,
    busy_s: float,
) -> None:
    """Refuse a request beside those accepted where it had to wait, or would take, longer than so many seconds.

    Beyond that, too, a user is accepted who has less than an equal share of it: as many requests as keep within it
    where they are in the background, as they go before what others have beyond theirs; else any, until twice as much
    waits.

    Raises
    ------
    Overloaded
        Where more seconds of work would wait than may.
    ShareExceeded
        Where that is so for the user who asks, and not for one who has less.
    DeadlineExceeded
        Where it would not be finished in the time allowed.

    """
    # one that somebody waits for passes those in the background
    ahead = [ticket for ticket in tickets if asked.background or not ticket.background]
    limit_s = timeout_s if asked.background else max_backlog_s
    if ahead and asked.pixels_left and sum(ticket.seconds_left for ticket in ahead) + asked.seconds_left > limit_s:
        _check_share(asked, ahead, limit_s)
    check_deadline(asked, tickets, timeout_s, order, busy_s=busy_s)


def _check_share(asked: Ticket, ahead: Collection[Ticket], limit_s: float) -> None:
    waiting_s, own_s = sum(ticket.seconds_left for ticket in ahead), asked.seconds_left
    alike = [ticket for ticket in ahead if ticket.background == asked.background and ticket.pixels_left]
    users = len({asked.user, *(ticket.user for ticket in alike)})
    users_s, share_s = sum(ticket.seconds_left for ticket in alike if ticket.user == asked.user), limit_s / users
    wait_s, share, refusal = min(waiting_s, waiting_s + own_s - limit_s), "", Overloaded
    if users > 1 and (asked.background or users_s >= share_s):
        too_much_s = users_s + own_s - share_s
        if too_much_s <= 0:
            return
        if asked.background:  # users have equal shares of the net there
            wait_s = min(wait_s, too_much_s * users)
        whose = "jobs" if asked.background else "requests"
        refusal, share = (
            ShareExceeded,
            (
                f"; {users_s:.0f} s of that are {whose} of the user who asks, of {users} users each may have "
                f"{share_s:.0f} s in any case"
            ),
        )
    elif users > 1:
        most_s = _MOST_LIMITS * limit_s
        if waiting_s + own_s <= most_s:
            return
        wait_s = min(waiting_s, waiting_s + own_s - most_s)
        share = f", and {most_s:.0f} s for users with less than an equal share of it"
    wait = max(1, math.ceil(wait_s))
    raise refusal(
        f"{waiting_s:.0f} s of work wait and this request adds {own_s:.0f} s, the limit is {limit_s:.0f} s{share}; try "
        f"again in {wait} s",
        "backlog",
        wait,
    )


def check_deadline(
    asked: Ticket, tickets: AbstractSet[Ticket], timeout_s: float, order: TurnOrder, *, busy_s: float
) -> None:
    """Refuse a request that would take longer than is left of so many seconds beside those accepted.

    What comes beside the net counts as far as it is known, which of several runs is that of one. Several are looked at
    together, and not begun in doubt: where the last is late, all were for nothing.

    Raises
    ------
    DeadlineExceeded

    """
    series = asked.series
    pixels, left_s, several = asked.pixels_left * series.runs, timeout_s - series.seconds, series.runs > 1
    sure = replace(asked, pixels_left=pixels, later=lambda: 0.0)
    through_s = seconds_of_newcomer(sure, tickets, order, busy_s)
    ready_s = through_s + asked.finishing_s
    if ready_s > left_s * (1.0 if tickets or several else _IDLE_DOUBT):
        of = f" of {series.runs} outputs, made one after the other," if several else ""
        left = f", {left_s:.1f} s of it are left" if series.seconds >= _TOLD_S else ""
        beside = f", {asked.finishing_s:.1f} s of it beside the net" if asked.finishing_s else ""
        fewer = ", ask for fewer outputs at a time," if several else ""
        raise DeadlineExceeded(
            f"the work{of} would be ready in about {ready_s:.0f} s at the measured speed{beside}, the time allowed is "
            f"{timeout_s:g} s{left}; raise the timeout{fewer} or send less"
        )
