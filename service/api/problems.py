"""Failures on the wire: RFC 9457 ``application/problem+json``, one shape for all."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Mount
from starlette.types import Scope

from service.api.access import ACCESS, Access
from service.api.invalid import describe_invalid
from service.errors import ERROR_TREES, HTTP_PROBLEMS, INTERNAL, INVALID_PARAMETER, problem_kind
from service.problem_kind import ProblemKind
from service.telemetry import REQUEST_ID, TRACE_ID, Metrics

_LOG = logging.getLogger("unet.api")
_SHOWN = ("retry_after_s", "reason", "known", "limit_bytes", "size_bytes")
_SHOWN_PATH = 200  # characters
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_RETRY_AFTER_S = 30  # where an error cannot tell how long its cause will last
# the one scheme that browsers and most client programs can speak by themselves; Bearer is taken, too
_CHALLENGE = 'Basic realm="unet-service", charset="UTF-8"'
CLIENT_GONE = 499  # nginx's status for it; nobody is there to read it, but the access log is


def problem_response(
    scope: Scope,
    kind: ProblemKind,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the answer for one failure.

    Parameters
    ----------
    scope
        Of the request. Under ``/v2`` the Open Inference Protocol has member ``error`` for what ``detail`` says.
    kind
        Type, status and title.
    detail
        What happened this time: the number found, the limit and the remedy.
    headers
        Further headers.

    """
    return _carrying(scope, _document(kind, detail), headers)


def _document(kind: ProblemKind, detail: str, extensions: Mapping[str, Any] | None = None) -> dict[str, Any]:
    detail = detail.encode("utf-8", "backslashreplace").decode()  # JSON may name halves of characters
    document: dict[str, Any] = {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": detail}
    trace = {"trace_id": trace_id} if (trace_id := TRACE_ID.get()) else {}
    return document | {"request_id": REQUEST_ID.get()} | trace | dict(extensions or {})


def _carrying(scope: Scope, document: Mapping[str, Any], headers: Mapping[str, str] | None) -> Response:
    if f"{Access.path(scope)}/".startswith("/v2/"):
        document = {**document, "error": document["detail"]}
    return JSONResponse(document, document["status"], headers, "application/problem+json")


def problem_of(error: Exception) -> dict[str, Any]:
    """Return the document for an error that was raised on purpose, or for any other.

    Server errors say nothing of the inside: their text and traceback are in the log, under the request's id.
    """
    kind = problem_kind(error)
    if kind.status == 500:
        _LOG.error("%s: %s", type(error).__name__, error, exc_info=error)
        detail = f"the service failed on this request; its log has the reason under request_id {REQUEST_ID.get()}"
        return _document(kind, detail)
    extensions = {name: getattr(error, name) for name in _SHOWN if hasattr(error, name)}
    if kind.status == 503:
        extensions.setdefault("retry_after_s", _RETRY_AFTER_S)
    return _document(kind, str(error), extensions)


def response_of(scope: Scope, document: Mapping[str, Any]) -> Response:
    """Return the answer that carries a problem, with the headers that belong to it."""
    headers = {}
    if "retry_after_s" in document:
        headers["Retry-After"] = str(document["retry_after_s"])
    elif document["status"] == 416:
        headers["Content-Range"] = f"bytes */{document['size_bytes']}"
    elif document["status"] == 401:
        headers["WWW-Authenticate"] = _CHALLENGE
    return _carrying(scope, document, headers)


def refused(scope: Scope, metrics: Metrics, error: Exception) -> Response:
    """Return the answer to an error, raised on purpose or not, counted and noted for the access log."""
    return _noted(scope, metrics, problem_kind(error), response_of(scope, problem_of(error)))


async def on_foreseen(request: Request, error: Exception) -> Response:
    """Answer an error of one of the trees in :mod:`service.errors`."""
    return refused(request.scope, request.app.state.metrics, error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer a refusal by the router: no such path, or not that method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    kind = HTTP_PROBLEMS.get(status, INTERNAL)
    path, method = request.url.path, request.method
    tidy = "/" + "/".join(part for part in path.split("/") if part)
    known = tidy != path and any(
        not isinstance(route, Mount) and route.matches({**request.scope, "path": tidy})[0] is not Match.NONE
        for route in request.app.routes
    )
    root = request.app.state.settings.root_path
    remedy = f"did you mean {tidy[:_SHOWN_PATH]!r}?" if known else f"see {root}/docs for the paths that do"
    if root and f"{path}/".startswith(f"{root}{root}/"):
        remedy = f"the proxy is to strip {root} (UNET_ROOT_PATH) from the path before it sends the request on"
    details = {
        404: f"{path[:_SHOWN_PATH]!r} does not exist; {remedy}",
        405: f"{path[:_SHOWN_PATH]!r} does not take {method[:20]}; see the Allow header for what it takes",
    }
    headers = {"Allow": ", ".join(sorted(_taken(request)))} if status == 405 else None
    detail = details.get(status, f"the request cannot be understood; see {root}/docs")
    response = problem_response(request.scope, kind, detail, headers=headers)
    return _noted(request.scope, request.app.state.metrics, kind, response)


def _taken(request: Request) -> set[str]:
    """Methods that all routes of the path take together; the router names those of one alone."""
    scope = {**request.scope, "root_path": request.scope.get("app_root_path", request.scope["root_path"])}
    taken = {
        method
        for method in _METHODS
        for route in request.app.routes
        if route.matches({**scope, "method": method})[0] is Match.FULL
        and (method == "GET" or not isinstance(route, Mount))  # which holds files, and says that it takes everything
    }
    return taken | {"HEAD"} if "GET" in taken else taken


async def on_validation_error(request: Request, error: Exception) -> Response:
    """Answer query parameters that do not exist or have impossible values."""
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    operation = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    known = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
    response = problem_response(request.scope, INVALID_PARAMETER, describe_invalid(errors, known))
    return _noted(request.scope, request.app.state.metrics, INVALID_PARAMETER, response)


async def on_client_gone(request: Request, _: Exception) -> Response:
    """End the work for a client that hung up."""
    metrics: Metrics = request.app.state.metrics
    access: Access = request.scope[ACCESS]
    reason = "computing" if access.model else "waiting" if access.job else "upload"
    metrics.cancelled.labels(reason=reason).inc()
    return Response(status_code=CLIENT_GONE)


def _noted(scope: Scope, metrics: Metrics, kind: ProblemKind, response: Response) -> Response:
    metrics.rejected.labels(reason=kind.slug).inc()
    access: Access = scope[ACCESS]
    access.problem = kind.slug
    return response


HANDLERS: Mapping[int | type[Exception], Any] = {
    **dict.fromkeys(ERROR_TREES, on_foreseen),
    HTTPException: on_http_exception,
    RequestValidationError: on_validation_error,
    ClientDisconnect: on_client_gone,
}
"""What the application answers for each error; the middleware ``LastResort`` answers the rest."""
