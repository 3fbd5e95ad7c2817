"""What each error becomes over HTTP: one table from error class to problem type, status and title (RFC 9457).

``model``, ``service.formats`` and ``service.engine`` raise errors that know nothing of HTTP; those that only a request
can cause are here. A test walks all subclasses and fails where one is not in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from model import errors as model_errors
from model.images import errors as image_errors
from service.engine import errors as engine_errors
from service.formats import errors as format_errors


class RequestError(Exception):
    """Base of what is wrong with a request before the engine sees it."""


class EmptyBody(RequestError):
    """The request has no body."""


class MissingImage(RequestError):
    """The multipart body has no file part called ``image``."""


class BrokenMultipart(RequestError):
    """The multipart body cannot be taken apart."""


class BodyTooLarge(RequestError):
    """The body is larger than the service takes."""

    def __init__(self, found: str, limit_bytes: int) -> None:
        super().__init__(
            f"the body {found}, the limit is {limit_bytes} bytes; compress the image (TIFF with Deflate or ZSTD), crop "
            "it, or raise UNET_MAX_BODY_MB"
        )
        self.limit_bytes = limit_bytes


class UploadTooSlow(RequestError):
    """The body did not arrive in the time allowed."""


class NoRoomForUpload(RequestError):
    """Other uploads hold the room for them, or the temporary folder is full."""

    retry_after_s = 5


class EncodedBody(RequestError):
    """The body is compressed as a whole."""


class InvalidParameter(RequestError):
    """A parameter does not exist, or has a value that it cannot have."""


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One kind of failure as clients know it.

    Parameters
    ----------
    slug
        Last part of the problem's ``type``, ``/problems/<slug>``; it never changes.
    status
        HTTP status.
    title
        The kind in a few words, the same for every occurrence.

    """

    slug: str
    status: int
    title: str

    @property
    def uri(self) -> str:
        """``type`` of the problem: a URI reference that the service answers with an explanation."""
        return f"/problems/{self.slug}"


INTERNAL = ProblemKind("internal-error", 500, "The service failed")
_NET_FAILED = ProblemKind("inference-failed", 500, "The net failed")
INVALID_PARAMETER = ProblemKind("invalid-parameter", 422, "A parameter is not valid")

HTTP_PROBLEMS: Mapping[int, ProblemKind] = {
    400: ProblemKind("bad-request", 400, "The request is malformed"),
    404: ProblemKind("not-found", 404, "There is nothing at this path"),
    405: ProblemKind("method-not-allowed", 405, "The path does not take this method"),
}
"""Refusals by the router, by status."""

PROBLEMS: Mapping[type[Exception], ProblemKind] = {
    RequestError: ProblemKind("bad-request", 400, "The request is malformed"),
    EmptyBody: ProblemKind("empty-body", 400, "The request has no body"),
    MissingImage: ProblemKind("missing-image", 400, "The multipart body has no image"),
    BrokenMultipart: ProblemKind("broken-multipart", 400, "The multipart body is malformed"),
    UploadTooSlow: ProblemKind("upload-too-slow", 408, "The body took too long to arrive"),
    NoRoomForUpload: ProblemKind("no-room-for-upload", 503, "There is no room for the body"),
    BodyTooLarge: ProblemKind("body-too-large", 413, "The body is too large"),
    EncodedBody: ProblemKind("encoded-body", 415, "The body has a content encoding"),
    InvalidParameter: INVALID_PARAMETER,
    image_errors.FormatError: INTERNAL,
    image_errors.UndecodableImage: ProblemKind("undecodable-image", 422, "The image cannot be decoded"),
    image_errors.UnsupportedImageFormat: ProblemKind("unsupported-image-format", 415, "The body is no known image"),
    image_errors.ImageTooLarge: ProblemKind("image-too-large", 413, "The image has too many pixels"),
    format_errors.UnknownFormat: ProblemKind("unknown-format", 406, "There is no such output format"),
    format_errors.UnsupportedOutput: ProblemKind("unsupported-output", 406, "The format cannot hold this output"),
    engine_errors.EngineError: INTERNAL,
    engine_errors.UnknownModel: ProblemKind("unknown-model", 404, "There is no such model"),
    engine_errors.NotReady: ProblemKind("not-ready", 503, "The service is not ready"),
    engine_errors.Draining: ProblemKind("draining", 503, "The service is about to stop"),
    engine_errors.Overloaded: ProblemKind("overloaded", 503, "The service has as much work as it can promise"),
    engine_errors.TooLargeForMemory: ProblemKind("too-large-for-memory", 413, "The image needs too much memory"),
    engine_errors.SpoolFull: ProblemKind("spool-full", 503, "The disk has no room for the image"),
    engine_errors.DeadlineExceeded: ProblemKind("deadline-exceeded", 504, "The answer would be too late"),
    engine_errors.BadParameter: INVALID_PARAMETER,
    model_errors.ModelError: INTERNAL,
    model_errors.PackageError: INTERNAL,
    model_errors.InvalidPackage: INTERNAL,
    model_errors.UnsupportedPackage: INTERNAL,
    model_errors.BackendUnavailable: ProblemKind("backend-unavailable", 503, "The accelerator is not available"),
    model_errors.ImageMismatch: ProblemKind("image-mismatch", 422, "The image does not fit the model"),
    model_errors.NonFiniteImage: ProblemKind("non-finite-image", 422, "The image holds NaN or infinity"),
    model_errors.ExtremePixels: ProblemKind("extreme-pixels", 422, "The net cannot compute with such pixels"),
    model_errors.PlanError: ProblemKind("tile-budget", 503, "No tile fits the memory budget"),
    model_errors.InferenceFailed: _NET_FAILED,
    model_errors.NonFiniteOutput: _NET_FAILED,
    model_errors.OutOfDeviceMemory: ProblemKind("out-of-device-memory", 503, "The accelerator is out of memory"),
}
"""Problem by error class; a class that is not listed counts as its nearest listed base."""

ERROR_TREES = (RequestError, image_errors.FormatError, engine_errors.EngineError, model_errors.ModelError)
"""Roots of all errors that are raised on purpose."""


def problem_kind(error: Exception) -> ProblemKind:
    """Problem that ``error`` is for clients; :data:`INTERNAL` for what was never foreseen."""
    return next((PROBLEMS[base] for base in type(error).__mro__ if base in PROBLEMS), INTERNAL)
