"""A client that has ended its own direction: it may wait for its answers, as ``nc -N`` does, or have hung up.

TCP says the same of both until something is sent: the system of one that has hung up answers it with a reset. So the
bytes that every answer begins with are sent ahead, one at a time and ever more seldom: one that only listens gets the
answer byte for byte, only the first of them early. There are several, because a reset may stay with something on the
way that passes connections on, and reaches this side with a later one.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
from collections.abc import Callable

_OPENING = b"HTTP/1.1 "  # of every answer
_LOOK_S = 0.5
_SOON_S = 0.05  # after something was sent
_FIRST_S = 1.0  # until the second byte is sent, doubled each time: the ninth goes after about four minutes


class HalfClose:
    """Looks whether a client that has ended its direction has hung up. Lives on one event loop; Linux alone can tell.

    Parameters
    ----------
    connected
        The socket.
    awaits_answer
        Whether nothing of the answer that is next has been sent by whoever makes it.
    send_ahead
        Sends one more byte of what it begins with; says whether there was one left.
    hung_up
        Told where the client has.

    """

    def __init__(
        self,
        connected: socket.socket,
        awaits_answer: Callable[[], bool],
        send_ahead: Callable[[bytes], bool],
        hung_up: Callable[[], None],
    ) -> None:
        self._awaits_answer = awaits_answer
        self._send_ahead = send_ahead
        self._hung_up = hung_up
        self._loop = asyncio.get_running_loop()
        self._poll = select.poll()
        if can_tell():
            self._poll.register(connected.fileno(), select.POLLRDHUP)  # and what comes unasked
        self._timer: asyncio.TimerHandle | None = None
        self._due, self._pause_s = -1.0, _FIRST_S

    def begin(self) -> None:
        """Look again and again from now on, until the end; does nothing where it does already."""
        if self._timer is None and can_tell():
            self._look()

    def end(self) -> None:
        """Look no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        events = self._poll.poll(0)
        flags = events[0][1] if events else 0
        if flags & (select.POLLHUP | select.POLLERR):
            self._timer = None
            self._hung_up()
            return
        pause_s = _LOOK_S
        if flags & select.POLLRDHUP and self._awaits_answer() and self._loop.time() >= self._due:
            if self._send_ahead(_OPENING):
                pause_s = _SOON_S
            self._due = self._loop.time() + self._pause_s
            self._pause_s *= 2
        self._timer = self._loop.call_later(pause_s, self._look)


def can_tell() -> bool:
    """Whether the system tells who has hung up; elsewhere who ends its direction counts as one who has."""
    return sys.platform == "linux"
