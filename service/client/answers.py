"""What a server answers, and what its answers mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

RECEIPT = "X-UNet-Receipt"
"""Header of every result: what was done, in JSON."""

ACCEPTED = 202
"""Status of a request that has become a job of the service (`respond_async`)."""

_CONFLICT = 409

EXAMPLE = "http://127.0.0.1:8000"


class ServiceUnreachable(Exception):
    """There is no answer from the server; the message gives its address and the cause."""


class ServiceGone(ServiceUnreachable):
    """A server that has been there has been away for longer than any request of the client may wait."""


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
        after = document.get("retry_after_s")
        self.retry_after_s = float(after) if isinstance(after, (int, float)) else None
        """Seconds after which the same may be taken; None where it never will."""
        self.document = dict(document)
        super().__init__(f"{self.status} {self.title}: {self.detail}")


def passes(response: httpx.Response) -> bool:
    """Whether a refusal is likely to be none the next time: it names a time, or no replica of the service has spoken.

    That a job is not done passes: one replica may see a moment before another that it is.
    """
    if response.status_code == _CONFLICT:
        return document(response).get("type") == "/problems/job-not-done"
    if retry_after(response) is not None:  # 429 of a proxy that counts requests, too
        return True
    spoken = str(document(response).get("type", "")).startswith("/problems/")
    return response.status_code in {502, 503, 504} and not spoken


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait, at least one; None where it names none."""
    header = response.headers.get("retry-after", "")
    return float(max(1, int(header))) if header.isdecimal() else None


def document(response: httpx.Response) -> dict[str, Any]:
    """Return the problem in an answer, or one that says what came instead (from a proxy, say)."""
    if response.headers.get("content-type", "").startswith("application/problem+json") and (
        problem := json_object(response)
    ):
        return problem
    detail = response.text[:200]
    if place := response.headers.get("location"):
        detail = f"it sends on to {place}; give the address of the service itself"
    return {"status": response.status_code, "title": response.reason_phrase, "detail": detail}


def somebody_else(response: httpx.Response, lacking: str) -> dict[str, Any]:
    """Problem of an answer that this service does not give."""
    kind = response.headers.get("content-type", "nothing")
    place = response.url.copy_with(userinfo=b"", query=None)
    return {
        "status": response.status_code,
        "title": "This is another server",
        "detail": f"{len(response.content)} bytes of {kind} without {lacking} came from {place}: that is no U-Net "
        f"service, or a proxy drops it; give the address of one, such as {EXAMPLE}",
    }


def json_object(response: httpx.Response) -> dict[str, Any]:
    """JSON object of an answer; empty where it holds none."""
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
