"""Ranges of bytes of an answer that never changes (RFC 9110, section 14): a download that broke off goes on."""

from __future__ import annotations

import re

from fastapi import Request

from service.engine.request import Body
from service.request_errors import RangeNotSatisfiable

# more digits are no number of bytes of anything
_RANGE = re.compile(r"bytes=(?P<first>\d{0,18})-(?P<last>\d{0,18})", re.ASCII | re.IGNORECASE)


class Part:
    """Some of the bytes of a body, which is closed with it.

    Parameters
    ----------
    body
        All of them.
    of
        Which, from 0.

    """

    def __init__(self, body: Body, of: range) -> None:
        body.seek(of.start)
        self._body = body
        self._left = self.size = len(of)

    @property
    def in_memory(self) -> bool:
        """Whether reading never waits for a disk."""
        return self._body.in_memory

    def read(self, most: int = -1) -> bytes:
        """Read what follows: all of it, or at most so many bytes; empty at the end."""
        piece = self._body.read(self._left if most < 0 else min(most, self._left))
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Free the body."""
        self._body.close()


def asked_range(request: Request, etag: str, size: int) -> range | None:
    """Return which bytes a request asks for; None where the answer is all of them.

    It is, too, where several ranges are asked for, or such of other units or of another version (``If-Range``).

    Parameters
    ----------
    request
        With the client's headers.
    etag
        Strong tag of what there is.
    size
        Its bytes.

    Raises
    ------
    RangeNotSatisfiable
        Where it has none of them.

    """
    lines = request.headers.getlist("range")
    if len(lines) != 1 or request.headers.get("if-range", etag) != etag:
        return None
    match = _RANGE.fullmatch(lines[0].strip())
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        asked = range(max(0, size - int(match["last"])), size)
    else:
        first, stop = int(match["first"]), int(match["last"]) + 1 if match["last"] else size
        if match["last"] and stop <= first:
            return None
        asked = range(first, min(stop, size))
    if not asked:
        raise RangeNotSatisfiable(lines[0].strip(), size)
    return asked
