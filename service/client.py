"""A client for Python: images in, results out, with patience for a busy server.

::

    with Client("http://127.0.0.1:8000") as client:
        labels = client.segment_array(image_yx, output="labels")
        Path("mask.tif").write_bytes(client.segment(Path("cells.tif"), format="tiff"))
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray

RECEIPT = "X-UNet-Receipt"
"""Header of every result: what was done, in JSON."""

_CHUNK = 1 << 20
_FIRST_WAIT_S = 0.5  # before asking again where nobody says how long to wait; then twice as long each time
_LONGEST_WAIT_S = 30.0
_EXAMPLE = "http://127.0.0.1:8000"


class ServiceUnreachable(Exception):
    """There is no answer from the server; the message gives its address and the cause."""


class ServiceProblem(Exception):
    """The server answered with a problem (RFC 9457)."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.type = str(document.get("type", "about:blank"))
        """``/problems/<name>``, stable."""
        self.status = int(document.get("status", 0))
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail", ""))
        self.request_id = document.get("request_id")
        """Under which the server's log has more."""
        self.document = dict(document)
        super().__init__(f"{self.status} {self.title}: {self.detail}")


class Client:
    """One server; keeps its connection open, so use it as a context manager or close it.

    Parameters
    ----------
    url
        Where the service is, such as ``http://127.0.0.1:8000``.
    api_key
        Sent as bearer token, where the server asks for one.
    timeout_s
        Seconds to wait for an answer.
    max_wait_s
        Most seconds to wait in all before asking again: where the server is busy (503 with Retry-After), where a proxy
        has no server (502, 503 or 504 that is not the service's), and where an answer was lost (a connection that broke
        off, or none from a server that has answered before). The same image has the same answer: asking twice is safe.
    transport
        Another way to the server than a socket.
    sleep
        How to wait.

    Raises
    ------
    ServiceUnreachable
        Where ``url`` is none.

    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 600.0,
        max_wait_s: float = 120.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(timeout_s, connect=10.0)
        try:
            self._url = str(httpx.URL(url).copy_with(userinfo=b""))  # a password is not for messages
        except httpx.InvalidURL as error:
            raise ServiceUnreachable(f"{url!r} is no address: {error}; give one such as {_EXAMPLE}") from error
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        self._max_wait_s = max_wait_s
        self._sleep = sleep
        self._reached = False  # whether the server has ever answered

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def segment(self, image: Path | bytes | NDArray[Any], **options: str | float | bool | None) -> bytes:
        """Segment one image.

        Parameters
        ----------
        image
            A file, a file's content, or an array (y, x), (y, x, channels) or (planes, y, x).
        options
            Parameters of ``POST /segment``: model, output, format, threshold, min_area, min_score, channel, mirror,
            pixel_size, timeout.

        Returns
        -------
        bytes
            In the format asked for; PNG where none is.

        Raises
        ------
        ServiceProblem
            Where the server refuses, or is another than this service.
        ServiceUnreachable
            Where it does not answer.

        """
        return self.answer(image, **options).content

    def answer(self, image: Path | bytes | NDArray[Any], **options: str | float | bool | None) -> httpx.Response:
        """Segment one image as :meth:`segment` does; returns the whole answer, headers and so the receipt included."""
        given = {name: value for name, value in options.items() if value is not None}
        response = self._request("POST", "/segment", given, _npy(image) if isinstance(image, np.ndarray) else image)
        if RECEIPT not in response.headers:
            raise ServiceProblem(_somebody_else(response, f"header {RECEIPT}"))
        return response

    def segment_array(self, image: Path | bytes | NDArray[Any], **options: str | float | bool | None) -> NDArray[Any]:
        """Segment one image as :meth:`segment` does, and return an array: (y, x) or with leading stack axes."""
        body = self.segment(image, **{**options, "format": "npy"})
        array: NDArray[Any] = np.load(io.BytesIO(body), allow_pickle=False)
        return array

    def plan(self, size_yx: tuple[int, int], planes: int = 1, **options: str | float | bool | None) -> dict[str, Any]:
        """Return what ``GET /plan`` says of an image of this size: ``expected_seconds``, ``refusal`` and more.

        Parameters
        ----------
        size_yx
            Height and width, px.
        planes
            Of a stack.
        options
            Parameters of ``GET /plan``: model, output, mirror, timeout.

        Raises
        ------
        ServiceProblem, ServiceUnreachable
            As for :meth:`segment`.

        """
        given = {name: value for name, value in options.items() if value is not None}
        asked = {"size": f"{size_yx[0]}x{size_yx[1]}", "planes": planes, **given}
        return self._told("/plan", "expected_seconds", asked)

    def models(self) -> dict[str, Any]:
        """Return what ``GET /models`` lists: ``models`` and ``refused``."""
        return self._told("/models", "models")

    def model(self, reference: str | None = None) -> dict[str, Any]:
        """Return what ``GET /models/{reference}`` tells of a package: of the default one for None.

        Raises
        ------
        ServiceProblem
            Where there is no such package.

        """
        if reference is None:
            default = [entry for entry in self.models()["models"] if entry["default"]]
            if not default:
                problem = {"status": 503, "title": "There is no default model", "detail": "name a model"}
                raise ServiceProblem(problem)
            reference = f"{default[0]['name']}@{default[0]['version']}"
        return self._told(f"/models/{quote(reference, safe='@')}", "name")

    def version(self) -> str:
        """Return the version of the server's software."""
        return str(self._told("/openapi.json", "info")["info"]["version"])

    def _told(self, path: str, holding: str, params: Mapping[str, str | float] | None = None) -> dict[str, Any]:
        """JSON that the service answers with, which holds at least that field."""
        response = self._request("GET", path, params or {}, b"")
        document = _object(response)
        if holding not in document:
            raise ServiceProblem(_somebody_else(response, f"field {holding!r}"))
        return document

    def _request(self, method: str, path: str, params: Mapping[str, str | float], body: Path | bytes) -> httpx.Response:
        waited, next_wait = 0.0, _FIRST_WAIT_S
        while True:
            headers = {"Content-Length": str(body.stat().st_size)} if isinstance(body, Path) else {}
            content = _chunks(body) if isinstance(body, Path) else body
            try:
                response = self._http.request(method, path, params=params, content=content, headers=headers)
            except httpx.TransportError as error:
                # a server that ended in the middle of it, or has been there and is being replaced; one that was never
                # there, or is slow, is another matter
                broke_off = isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError)
                self._reached = self._reached or broke_off
                replaced = self._reached and isinstance(error, httpx.ConnectError)
                if not (broke_off or replaced) or waited + next_wait > self._max_wait_s:
                    cause = str(error) or type(error).__name__
                    raise ServiceUnreachable(f"no answer from {self._url}: {cause}; is the service running?") from error
                wait = None
            else:
                self._reached = True
                if response.is_success:
                    return response
                wait = _retry_after(response)
                if not _passes(response) or waited + (wait or next_wait) > self._max_wait_s:
                    raise ServiceProblem(_document(response))
            if wait is None:
                wait, next_wait = next_wait, min(2 * next_wait, _LONGEST_WAIT_S)
            self._sleep(wait)
            waited += wait


def _passes(response: httpx.Response) -> bool:
    """Whether a refusal is likely to be none the next time: it says so, or no replica of the service has spoken."""
    if response.status_code not in {502, 503, 504}:
        return False
    return _retry_after(response) is not None or not str(_document(response).get("type", "")).startswith("/problems/")


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait, at least one; None where it names none."""
    header = response.headers.get("retry-after", "")
    return float(max(1, int(header))) if header.isdecimal() else None


def _document(response: httpx.Response) -> dict[str, Any]:
    """Return the problem in an answer, or one that says what came instead (from a proxy, say)."""
    if response.headers.get("content-type", "").startswith("application/problem+json") and (
        problem := _object(response)
    ):
        return problem
    detail = response.text[:200]
    if place := response.headers.get("location"):
        detail = f"it sends on to {place}; give the address of the service itself"
    return {"status": response.status_code, "title": response.reason_phrase, "detail": detail}


def _somebody_else(response: httpx.Response, lacking: str) -> dict[str, Any]:
    """Problem of an answer that this service does not give."""
    kind = response.headers.get("content-type", "nothing")
    place = response.url.copy_with(userinfo=b"", query=None)
    return {
        "status": response.status_code,
        "title": "This is another server",
        "detail": f"{len(response.content)} bytes of {kind} without {lacking} came from {place}: that is no U-Net "
        f"service, or a proxy drops it; give the address of one, such as {_EXAMPLE}",
    }


def _object(response: httpx.Response) -> dict[str, Any]:
    """JSON object of an answer; empty where it holds none."""
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _npy(image: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, image, allow_pickle=False)
    return buffer.getvalue()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
