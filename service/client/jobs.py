"""Requests on their way, which can be broken off from another thread."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any, cast

import httpx
import numpy as np
from numpy.typing import NDArray

from .answers import RECEIPT  # noqa: TID252 - the folder can stand anywhere
from .sink import Sink  # noqa: TID252

_CONNECTED = ("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")  # events of httpcore


SHORT_ANSWER_S = 600.0
"""Most seconds for an answer that nothing is computed for, however long results may take."""

_PROBES = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""When the system asks whether the other end of a silent connection is still there: seconds and number; macOS has the
second for the first."""


class HungUp(Exception):
    """The client was closed, or the job cancelled, before there was a result; the server drops the work."""


class Line:
    """A connection for one request at a time, so that it can be cut without any other."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self._socket: socket.socket | None = None
        self._is_cut = False

    def cut(self) -> None:
        """End the connection, and with it the request, whoever waits for that; what connects is cut when it has."""
        self._is_cut = True
        if self._socket is not None:
            with suppress(OSError):  # it has ended by itself
                # not an SSLSocket's own shutdown, which takes the encryption away from under who reads
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | float | bool] | None = None,
        content: bytes | IO[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        *,
        into: Sink | None = None,
        timeout: httpx.Timeout | None = None,
    ) -> httpx.Response:
        """Send one request, and wait for its answer; a result is written to ``into`` as it comes, if that is given."""
        with self.http.stream(
            method,
            path,
            params=params,
            content=content,
            headers=headers,
            timeout=self.http.timeout if timeout is None else timeout,
            extensions={"trace": self.trace},
        ) as response:
            if into is None or not response.is_success or RECEIPT not in response.headers:
                response.read()
                return response
            into.begin(response)
            for piece in response.iter_bytes():
                into.write(piece)
            return response

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember the socket of each new connection, and have it end where the other end is gone without a word."""
        if event.endswith(_CONNECTED):
            self._socket = info["return_value"].get_extra_info("socket")
            _probe(self._socket)
            if self._is_cut:
                self.cut()


class Job:
    """An image on its way; :meth:`Client.submit` makes them."""

    def __init__(self, *, as_array: bool = False) -> None:
        self._as_array = as_array
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._outcome: httpx.Response | Exception | None = None
        self._line: Line | None = None

    def done(self) -> bool:
        """Whether there is nothing left to wait for: it has a result, has failed or was cancelled."""
        return self._settled.is_set()

    def cancel(self) -> bool:
        """Hang up, so that the server drops the work; False where it was done before."""
        hung_up = self.settle(HungUp("the client was closed, or the job cancelled, before there was a result"))
        if hung_up and self._line is not None:
            self._line.cut()
        return hung_up

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is done, for ``timeout`` seconds at most; returns whether it is."""
        return self._settled.wait(timeout)

    def result(self, timeout: float | None = None) -> Any:  # noqa: ANN401 - which it is follows from the options
        """Wait for the result: an array as :meth:`Client.segment_array` returns, or bytes in the format asked for.

        Raises
        ------
        TimeoutError
            Where there is none after ``timeout`` seconds; the work goes on.
        HungUp, ServiceProblem, ServiceUnreachable, OSError
            As for :meth:`Client.segment`.

        """
        content = self.answer(timeout).content
        return array_of(content) if self._as_array else content

    def answer(self, timeout: float | None = None) -> httpx.Response:
        """Wait for the whole answer, headers and so the receipt included; fails as :meth:`result` does."""
        if not self.wait(timeout):
            raise TimeoutError(f"there is no result after {timeout} s; ask again, or cancel the job")
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return cast("httpx.Response", self._outcome)

    def goes_by(self, line: Line) -> None:
        """Note which connection to cut where it is cancelled; called before anything is sent."""
        self._line = line

    def settle(self, outcome: httpx.Response | Exception) -> bool:
        """Give it its end, unless it has one."""
        with self._lock:
            if self.done():
                return False
            self._outcome = outcome
            self._settled.set()
            return True


def _probe(connection: socket.socket) -> None:
    with suppress(OSError):  # no connection of TCP
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES.items():
            if option := getattr(socket, name, None):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


def patience(answer_s: float) -> httpx.Timeout:
    """Seconds for an answer; for a connection, and for taking what is sent, no longer than is needed."""
    return httpx.Timeout(min(answer_s, SHORT_ANSWER_S), connect=10.0, read=answer_s)


def array_of(npy: bytes) -> NDArray[Any]:
    """Array in a ``.npy`` file."""
    array: NDArray[Any] = np.load(io.BytesIO(npy), allow_pickle=False)
    return array


def npy_of(array: NDArray[Any]) -> bytes:
    """Write an array as a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
