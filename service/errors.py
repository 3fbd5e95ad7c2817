"""What each error becomes over HTTP: one table from error class to problem type, status and title (RFC 9457).

``model``, ``service.formats`` and ``service.engine`` raise errors that know nothing of HTTP; those that only a request
can cause are in :mod:`service.request_errors`. A test walks all subclasses and fails where one is not in the table.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from model import errors as model_errors
from model.images import errors as image_errors
from service import request_errors
from service.engine import errors as engine_errors
from service.formats import errors as format_errors
from service.jobs import errors as job_errors
from service.problem_kind import ProblemKind

INTERNAL = ProblemKind("internal-error", 500, "The service failed", "Report the `request_id`; the log has the cause.")
_NET_FAILED = ProblemKind("inference-failed", 500, "The net failed", "Report the `request_id`; the log has the cause.")
INVALID_PARAMETER = ProblemKind(
    "invalid-parameter",
    422,
    "A parameter is not valid",
    "`detail` names each parameter, its value and what is allowed.",
)
_BAD_REQUEST = ProblemKind("bad-request", 400, "The request is malformed", "Look at `/docs` for how a request is made.")

HTTP_PROBLEMS: Mapping[int, ProblemKind] = {
    400: _BAD_REQUEST,
    404: ProblemKind("not-found", 404, "There is nothing at this path", "See `/docs` for the paths that exist."),
    405: ProblemKind(
        "method-not-allowed", 405, "The path does not take this method", "Use a method that the `Allow` header names."
    ),
}
"""Refusals by the router, by status."""

PROBLEMS: Mapping[type[Exception], ProblemKind] = {
    request_errors.RequestError: _BAD_REQUEST,
    request_errors.EmptyBody: ProblemKind(
        "empty-body", 400, "The request has no body", "Send the image as the body, or as field `image`."
    ),
    request_errors.MissingImage: ProblemKind(
        "missing-image", 400, "The multipart body has no image", "Name the file field `image` and give it a file name."
    ),
    request_errors.BrokenMultipart: ProblemKind(
        "broken-multipart",
        400,
        "The multipart body is malformed",
        "Send one form, whole, with a single file field `image`.",
    ),
    request_errors.BrokenInference: ProblemKind(
        "broken-inference",
        400,
        "The inference request is malformed",
        "`detail` names the member; `GET /v2/models/{name}` has the tensors.",
    ),
    request_errors.UploadTooSlow: ProblemKind(
        "upload-too-slow", 408, "The body took too long to arrive", "Send less, or over a faster line."
    ),
    request_errors.NoRoomForUpload: ProblemKind(
        "no-room-for-upload",
        503,
        "There is no room for the body",
        "Try again after `Retry-After`; give the temporary folder more room, or raise `UNET_UPLOAD_LIMIT_MB`.",
    ),
    request_errors.BodyTooLarge: ProblemKind(
        "body-too-large",
        413,
        "The body is too large",
        "Compress inside the file (TIFF with Deflate or ZSTD), crop, or raise `UNET_MAX_BODY_MB`.",
    ),
    request_errors.RangeNotSatisfiable: ProblemKind(
        "range-not-satisfiable",
        416,
        "The result has no such bytes",
        "Ask for bytes below the size in `Content-Range`, or for all: without `Range`.",
    ),
    request_errors.EncodedBody: ProblemKind(
        "encoded-body", 415, "The body has a content encoding", "Send the file without `Content-Encoding`."
    ),
    request_errors.Unauthorized: ProblemKind(
        "unauthorized",
        401,
        "The service wants a key",
        "Send a key that the operator gave you: `Authorization: Bearer KEY`, or in the address: `https://any:KEY@host`.",
    ),
    request_errors.InvalidParameter: INVALID_PARAMETER,
    image_errors.FormatError: INTERNAL,
    image_errors.UndecodableImage: ProblemKind(
        "undecodable-image",
        422,
        "The image cannot be decoded",
        "Write the file again; it is damaged, cut off, or of a kind that `detail` names.",
    ),
    image_errors.AxesMismatch: ProblemKind(
        "axes-mismatch", 422, "The image has other axes", "Give `axes` a letter for each axis, or leave it out."
    ),
    image_errors.UnsupportedImageFormat: ProblemKind(
        "unsupported-image-format", 415, "Unknown image format", "Send TIFF, PNG, JPEG, BMP or `.npy`."
    ),
    image_errors.ImageTooLarge: ProblemKind(
        "image-too-large",
        413,
        "The image has too many pixels",
        "Crop, send fewer planes, or raise `UNET_MAX_PIXELS`. Nothing was decoded.",
    ),
    format_errors.UnknownFormat: ProblemKind(
        "unknown-format", 406, "There is no such output format", "Ask for one of the formats that the message lists."
    ),
    format_errors.UnsupportedOutput: ProblemKind(
        "unsupported-output",
        406,
        "The format cannot hold this output",
        "Ask for the format that `detail` names, mostly `tiff`.",
    ),
    format_errors.TooManyValues: ProblemKind(
        "too-many-values", 413, "The answer has too many values for JSON", "Ask for them as `binary_data`, or crop."
    ),
    engine_errors.EngineError: INTERNAL,
    engine_errors.UnknownModel: ProblemKind(
        "unknown-model", 404, "There is no such model", "Ask for one that `known` lists; `GET /models` has them all."
    ),
    engine_errors.NotReady: ProblemKind(
        "not-ready",
        503,
        "The service is not ready",
        "Try again: packages load in seconds, or another replica answers; `/readyz` says what is missing.",
    ),
    engine_errors.Draining: ProblemKind(
        "draining", 503, "The service is about to stop", "Try again: another replica takes over."
    ),
    engine_errors.Overloaded: ProblemKind(
        "overloaded",
        503,
        "The service has as much work as it can promise",
        "Try again after `Retry-After` seconds: queued pixels over measured speed.",
    ),
    engine_errors.ShareExceeded: ProblemKind(
        "share-exceeded",
        503,
        "The user has an equal share of the service",
        "Try again after `Retry-After` seconds, and send fewer requests at a time: others are served meanwhile.",
    ),
    engine_errors.TooLargeForMemory: ProblemKind(
        "too-large-for-memory",
        413,
        "The image needs too much memory",
        "Crop, ask for `mask` in place of `probabilities` or, under `/v2`, for fewer outputs at a time, or raise "
        "`UNET_MEMORY_BUDGET_MB` or, where `detail` speaks of files, `UNET_SPOOL_LIMIT_MB`.",
    ),
    engine_errors.SpoolFull: ProblemKind(
        "spool-full",
        503,
        "The disk has no room for the image",
        "Make room in `UNET_SPOOL_DIR`, or point it to a larger disk; or, where `detail` speaks of them, allow more "
        "open or mapped files. The image is beyond the memory budget.",
    ),
    engine_errors.DeadlineExceeded: ProblemKind(
        "deadline-exceeded",
        504,
        "The answer would be too late",
        "Ask for a longer `timeout` or, under `/v2`, for fewer outputs at a time, send less, send it as a job, or "
        "raise `UNET_DEADLINE_S` (`UNET_JOB_DEADLINE_S`).",
    ),
    engine_errors.BadParameter: INVALID_PARAMETER,
    job_errors.JobError: INTERNAL,
    job_errors.UnknownJob: ProblemKind(
        "unknown-job",
        404,
        "There is no such job",
        "Send the image again: it is deleted, was kept for `UNET_JOB_KEEP_S` or until its room was needed, or another "
        "user's or replica's.",
    ),
    job_errors.JobExists: ProblemKind(
        "job-exists",
        409,
        "There is a job of this id",
        "Ask for it, where its answer was lost; else choose another `id` at random, or none.",
    ),
    job_errors.JobNotDone: ProblemKind(
        "job-not-done", 409, "The job is not done", "Ask again after `Retry-After` seconds, or with `wait=50`."
    ),
    job_errors.JobLost: ProblemKind(
        "job-lost", 503, "The job has lost its replica", "Send the image again: another replica takes it."
    ),
    job_errors.JobsOff: ProblemKind(
        "jobs-off",
        501,
        "The service takes no jobs",
        "Wait for the answer, without `respond_async` or `Prefer: respond-async`; or set `UNET_JOBS_MB`.",
    ),
    job_errors.JobsNotListed: ProblemKind(
        "jobs-not-listed",
        403,
        "The service lists no jobs",
        "Ask for each by its id, or set `UNET_API_KEYS_FILE`: without keys nobody can be told whose they are.",
    ),
    job_errors.JobUnavailable: ProblemKind(
        "job-unavailable",
        503,
        "The job cannot be read or changed",
        "Try again after `Retry-After`; the operator has to look at the disk of `UNET_JOBS_DIR`.",
    ),
    job_errors.ResultTooLarge: ProblemKind(
        "result-too-large",
        413,
        "The result of the job is too large to be kept",
        "Ask for a format that compresses, or for `mask`, crop, wait for the answer, or raise `UNET_JOBS_MB`.",
    ),
    job_errors.NoRoomForJobs: ProblemKind(
        "no-room-for-jobs",
        503,
        "There is no room for the job",
        "Fetch or delete what is done, or try again after `Retry-After`; raise `UNET_JOBS_MB`, or make room in "
        "`UNET_JOBS_DIR`.",
    ),
    model_errors.ModelError: INTERNAL,
    model_errors.PackageError: INTERNAL,
    model_errors.InvalidPackage: INTERNAL,
    model_errors.UnsupportedPackage: INTERNAL,
    model_errors.BackendUnavailable: ProblemKind(
        "backend-unavailable",
        503,
        "The accelerator is not available",
        "The operator has to look at the accelerator; `/readyz` says more.",
    ),
    model_errors.ImageMismatch: ProblemKind(
        "image-mismatch",
        422,
        "The image does not fit the model",
        "Send the channels that `GET /models/{name}` lists, or choose one with `channel`.",
    ),
    model_errors.NonFiniteImage: ProblemKind(
        "non-finite-image", 422, "The image holds NaN or infinity", "Replace NaN and infinity, or send integers."
    ),
    model_errors.ExtremePixels: ProblemKind(
        "extreme-pixels",
        422,
        "The net cannot compute with such pixels",
        "Replace pixels that are far brighter or darker than all others.",
    ),
    model_errors.PlanError: ProblemKind(
        "tile-budget", 503, "No tile fits the memory budget", "Raise `UNET_MEMORY_BUDGET_MB`."
    ),
    model_errors.InferenceFailed: _NET_FAILED,
    model_errors.NonFiniteOutput: _NET_FAILED,
    model_errors.OutOfDeviceMemory: ProblemKind(
        "out-of-device-memory",
        503,
        "The accelerator is out of memory",
        "Try again after `Retry-After`; lower `UNET_MEMORY_BUDGET_MB`.",
    ),
}
"""Problem by error class; a class that is not listed counts as its nearest listed base."""

KINDS: Collection[ProblemKind] = (*PROBLEMS.values(), *HTTP_PROBLEMS.values())
"""All kinds of failure; some more than once."""

ERROR_TREES = (
    request_errors.RequestError,
    image_errors.FormatError,
    engine_errors.EngineError,
    job_errors.JobError,
    model_errors.ModelError,
)
"""Roots of all errors that are raised on purpose."""


def problem_kind(error: Exception) -> ProblemKind:
    """Problem that ``error`` is for clients; :data:`INTERNAL` for what was never foreseen."""
    return next((PROBLEMS[base] for base in type(error).__mro__ if base in PROBLEMS), INTERNAL)
