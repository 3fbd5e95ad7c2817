"""What surrounds every request, as pure ASGI classes; :func:`service.app.create_app` lists them in their order."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.access import ACCESS, PROBES, Access
from service.api.problems import refused
from service.engine.errors import Draining
from service.request_errors import BodyTooLarge
from service.telemetry import ACCESS_LOG, REQUEST_ID, TRACE_ID, Metrics, fields

HEAD = "unet.head"
"""Key of the ASGI scope of requests whose client wants the headers alone."""

_LOG = logging.getLogger("unet.api")
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# W3C Trace Context, section 3.2: of versions to come as much as is known of the first; zeros alone are no id
_TRACEPARENT = re.compile(
    r"(?:(?P<first>00)|(?!00|ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"(?(first)|(?:-[^,]*)?)"
)
_QUIET = PROBES | {"/metrics"}
_SEGMENTS = re.compile(r"/segment|/v2/models/[^/]+(/versions/[^/]+)?/infer")


class RequestId:
    """Gives each request an id: the client's ``X-Request-ID`` where it is sane, else a new one; it is sent back.

    Notes the trace that a valid ``traceparent`` names, too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        request_id = offered if _SANE_ID.fullmatch(offered) else uuid.uuid4().hex
        REQUEST_ID.set(request_id)
        parent = _TRACEPARENT.fullmatch(",".join(headers.getlist("traceparent")))  # of several none is valid
        TRACE_ID.set(parent and parent["trace"])

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


class AccessLog:
    """Writes one log line per request and counts it; probes are logged at level debug."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = Access.path(scope)
        segments = scope["method"] == "POST" and _SEGMENTS.fullmatch(path) is not None
        access = scope[ACCESS] = Access(address=(scope.get("client") or [None])[0], segments=segments)
        started = time.perf_counter()

        async def counting_receive() -> Message:
            message = await receive()
            access.bytes_in += len(message.get("body", b""))
            return message

        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                access.status = message["status"]
            access.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counting_receive, counting_send)
        finally:
            self._note(scope, path, access, time.perf_counter() - started)

    def _note(self, scope: Scope, path: str, access: Access, seconds: float) -> None:
        if access.segments:
            model, form = access.model or "", access.format or ""
            self._metrics.requests.labels(model=model, format=form, status=str(access.status)).inc()
            if access.status == 202:  # its work has not begun: it would hide how long others wait
                self._metrics.jobs_accepted.inc()
            else:
                self._metrics.request_seconds.observe(seconds)
        shown = fields(
            method=scope["method"],
            path=path,
            user=access.user,
            status=access.status,
            ms=round(seconds * 1000, 1),
            bytes_in=access.bytes_in,
            bytes_out=access.bytes_out,
            model=access.model,
            format=access.format,
            pixels=access.pixels,
            job=access.job,
            provider=access.provider,
            problem=access.problem,
            client=access.address,
        )
        ACCESS_LOG.log(logging.DEBUG if path in _QUIET else logging.INFO, "request", extra=shown)


class LastResort:
    """Answers what no handler foresaw with a problem that says nothing of the inside; the log has the traceback.

    uvicorn cancels requests in one case: the service stops, and the time that they had for it is over. They are told to
    come again; of an answer that is under way nothing more can be said, so it breaks off.
    """

    def __init__(self, app: ASGIApp, shutdown_grace_s: int, metrics: Metrics) -> None:
        self._app = app
        self._shutdown_grace_s = shutdown_grace_s
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        started = False

        async def watching_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watching_send)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            if task := asyncio.current_task():
                task.uncancel()
            error = Draining(
                f"the service stops, and this request was not finished in the {self._shutdown_grace_s} s that it had "
                "left for that, if no second signal ended them; send it again, or raise UNET_SHUTDOWN_GRACE_S"
            )
            _LOG.warning("%s", error)
            if not started:
                await refused(scope, self._metrics, error)(scope, receive, send)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            await refused(scope, self._metrics, error)(scope, receive, send)


class UnaskedBody:
    """Ends the connection with an answer that comes before the client was asked for the body that it holds back.

    Who has sent ``Expect: 100-continue`` may send the body all the same, or the next request in its place, and nobody
    could tell them apart (RFC 9110, section 10.1.1). To read a body is to ask for it: uvicorn then sends the 100.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or Headers(scope=scope).get("expect", "").lower() != "100-continue":
            await self._app(scope, receive, send)
            return
        asked = False

        async def asking_receive() -> Message:
            nonlocal asked
            asked = True
            return await receive()

        async def send_as_last(message: Message) -> None:
            if message["type"] == "http.response.start" and not asked:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, asking_receive, send_as_last)


class BodyLimit:
    """Refuses bodies above the limit: by Content-Length before a byte is read, else by counting."""

    def __init__(self, app: ASGIApp, limit_bytes: int, metrics: Metrics) -> None:
        self._app = app
        self._limit = limit_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self._limit:
            error = BodyTooLarge(f"has {declared} bytes", self._limit)
            await refused(scope, self._metrics, error)(scope, receive, send)
            return
        seen = 0

        async def limited_receive() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                # raised inside the application, whose handlers answer it
                raise BodyTooLarge(f"has more than {self._limit} bytes", self._limit)
            return message

        await self._app(scope, limited_receive, send)


class HeadAsGet:
    """Answers HEAD as GET without its body (RFC 9110, section 9.3.2): load balancers and ``curl -I`` ask that way."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_no_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET", HEAD: True}, receive, send_no_body)
