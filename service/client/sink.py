"""Where a result goes as it comes, and how much of it is there when the connection breaks off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO

import httpx

_PARTIAL = 206


class Sink:
    """Begins anew with every answer, but for one that goes on where the last one broke off.

    Parameters
    ----------
    file
        Seekable; holds nothing but the result.

    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._etag = ""
        self._asked_from = 0

    def rest(self) -> Mapping[str, str]:
        """Headers that ask for what is not there yet; none where all is asked for, as what is there may have changed.

        The last byte comes once more: of an answer that broke off behind it there would be nothing to ask for.
        """
        if not self._etag or not self._file.tell():
            return {}
        self._asked_from = self._file.tell() - 1
        return {"Range": f"bytes={self._asked_from}-", "If-Range": self._etag}

    def begin(self, response: httpx.Response) -> None:
        """Make ready for the body of an answer.

        Raises
        ------
        httpx.RemoteProtocolError
            Where it is another part than the one that is asked for.

        """
        first = self._asked_from if response.status_code == _PARTIAL else 0
        given = response.headers.get("content-range", "")
        if response.status_code == _PARTIAL and not given.startswith(f"bytes {first}-"):
            self._etag = ""
            raise httpx.RemoteProtocolError(f"the part is {given[:60]!r}, bytes from {first} on were asked for")
        etag = response.headers.get("etag", "")
        # parts of what a proxy has compressed would be none of the result
        self._etag = etag if etag.startswith('"') and "content-encoding" not in response.headers else ""
        self._file.seek(first)
        self._file.truncate()

    def write(self, piece: bytes) -> None:
        """Take what comes next."""
        self._file.write(piece)
