"""What can be seen from outside: Prometheus metrics and one JSON line per event."""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that the running task serves."""

TRACE_ID: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""Id of the trace that it is part of, 32 hexadecimal digits; None where its client has named none."""

ACCESS_LOG = logging.getLogger("unet.access")
"""One line per request, with its figures."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 60, 100, 250, 300)
_EXTRA = "fields"


class Metrics:
    """The service's metrics, prefix ``unet_``, in a registry of their own.

    Label values are bounded: models that have been served, formats that exist, problem names, status codes.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self.requests = Counter(
            "unet_requests", "Segmentation requests answered", ("model", "format", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "unet_request_seconds",
            "From the request's headers to the end of its answer, where that is no job",
            registry=registry,
            buckets=_SECONDS,
        )
        self.stage_seconds = Histogram(
            "unet_stage_seconds", "Seconds per stage of a request", ("stage",), registry=registry, buckets=_SECONDS
        )
        self.batch_tiles = Histogram(
            "unet_batch_tiles", "Tiles per call of the net", registry=registry, buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        self.pixels = Counter("unet_pixels", "Image pixels segmented, all planes", ("model",), registry=registry)
        self.repeats = Counter(
            "unet_repeats", "Requests for images that came before: the net did not run", ("model",), registry=registry
        )
        self.rejected = Counter("unet_rejected", "Requests answered with a problem", ("reason",), registry=registry)
        self.cancelled = Counter("unet_cancelled", "Requests whose client went away", ("reason",), registry=registry)
        self.jobs_accepted = Counter("unet_jobs_accepted", "Requests that have become jobs", registry=registry)
        self._jobs_ended = Counter(
            "unet_jobs_ended",
            "Jobs of this replica that are over, and lost ones that it found",
            ("outcome", "status"),
            registry=registry,
        )
        for outcome, status in (("failed", "500"), ("failed", "504"), ("deleted", "404"), ("lost", "503")):
            self._jobs_ended.labels(outcome=outcome, status=status)  # from 0: the first is not hidden from rates
        self.jobs = Gauge("unet_jobs", "Jobs in the folder of jobs, whoever shares it", ("state",), registry=registry)
        self.job_result_bytes = Gauge("unet_job_result_bytes", "Room that their results take", registry=registry)
        self.in_flight = Gauge("unet_in_flight", "Requests in the engine", registry=registry)
        self.backlog_pixels = Gauge(
            "unet_backlog_pixels", "Accepted pixels that are not through the net yet", registry=registry
        )
        self.backlog_seconds = Gauge(
            "unet_backlog_seconds",
            "Seconds that requests in work take at the measured speed, jobs left out: scale on this",
            registry=registry,
        )
        self.jobs_backlog_seconds = Gauge(
            "unet_jobs_backlog_seconds",
            "Seconds that jobs of this replica take at the measured speed: no other one can do them",
            registry=registry,
        )
        self.pixels_per_second = Gauge(
            "unet_pixels_per_second", "Measured speed of the default model", registry=registry
        )
        self.ready = Gauge("unet_ready", "1 where new requests should come here", registry=registry)
        start = Gauge(
            "unet_start_time_seconds",
            "When the process started, by host: a new container may have the address of one that went",
            ("host",),
            registry=registry,
        )
        start.labels(socket.gethostname()).set_to_current_time()
        self.model_info = Gauge(
            "unet_model_info",
            "1 for each package that is served",
            ("name", "version", "sha256", "backend", "provider", "precision"),
            registry=registry,
        )
        self.packages_refused = Gauge(
            "unet_packages_refused", "Packages and folders that are named and not served", registry=registry
        )
        self.package_changes = Counter(
            "unet_package_changes",
            "Packages that came to be served, refused or dropped",
            ("outcome",),
            registry=registry,
        )

    def bind(
        self,
        *,
        backlog_pixels: Callable[[], float],
        backlog_seconds: Callable[[], float],
        jobs_backlog_seconds: Callable[[], float],
        pixels_per_second: Callable[[], float],
        in_flight: Callable[[], float],
        ready: Callable[[], bool],
    ) -> None:
        """Let the gauges ask the engine whenever they are read."""
        self.backlog_pixels.set_function(backlog_pixels)
        self.backlog_seconds.set_function(backlog_seconds)
        self.jobs_backlog_seconds.set_function(jobs_backlog_seconds)
        self.pixels_per_second.set_function(pixels_per_second)
        self.in_flight.set_function(in_flight)
        self.ready.set_function(lambda: float(ready()))

    def job_ended(self, outcome: str, status: int) -> None:
        """Count a job that is over, and the status that its result is answered with.

        Parameters
        ----------
        outcome
            ``done``, ``failed``, ``deleted`` (before it was over), or ``lost`` (by another replica).
        status
            Of HTTP.

        """
        self._jobs_ended.labels(outcome=outcome, status=str(status)).inc()

    def jobs_kept(self, states: Mapping[str, int], result_bytes: int) -> None:
        """Note how many jobs there are in each state, and the room that their results take."""
        for state in ("queued", "running", "done", "failed"):
            self.jobs.labels(state=state).set(states.get(state, 0))
        self.job_result_bytes.set(result_bytes)

    def serve(self, models: Iterable[Mapping[str, str]], refused: int) -> None:
        """Note the packages that are served, by labels of ``unet_model_info``, and how many are not."""
        self.model_info.clear()
        for labels in models:
            self.model_info.labels(**labels).set(1)
        self.packages_refused.set(refused)


def fields(**values: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON can hold
    """Return ``extra=`` for a log call: members of the JSON line beside the message."""
    return {_EXTRA: {name: value for name, value in values.items() if value is not None}}


def _ids() -> dict[str, str | None]:
    return {"request_id": REQUEST_ID.get(), "trace_id": TRACE_ID.get()}


class JsonFormatter(logging.Formatter):
    """One JSON object per event: ``time``, ``level``, ``logger``, ``message``, ids of request and trace, and fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one event on one line; a traceback is a field of it."""
        event = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_ids(),
            **getattr(record, _EXTRA, {}),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in event.items() if value is not None}, default=str)


class TextFormatter(logging.Formatter):
    """The same for people, one line for each event and its traceback below; nothing that a client sends forges one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Render one event, its fields as ``name=value`` behind the message."""
        shown = {**_ids(), **getattr(record, _EXTRA, {})}
        pairs = " ".join(f"{name}={_unmistakable(value)}" for name, value in shown.items() if value is not None)
        return f"{super().format(record)} {pairs}".rstrip()

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging calls
        """Render the line without its fields."""
        return "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in super().formatMessage(record)
        )


def _unmistakable(value: object) -> str:
    """What a field holds, as JSON where it might be taken for several or for a line of its own."""
    text = str(value)
    return text if text.isprintable() and not set(text) & set(' "=') else json.dumps(text)


def configure_logging(level: str, form: Literal["json", "text"]) -> None:
    """Send every event of this process, uvicorn's too, to standard error in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("unet").setLevel(level.upper())
    # it warns of every malformed form; the access log has the problem that the client was told
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
