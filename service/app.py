"""The application: one engine, the list of middleware, the handlers, the routers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from service.api import jobs, models, pages, plan, probes, segment
from service.api.keys import ApiKeys, KeyCheck
from service.api.middleware import AccessLog, BodyLimit, HeadAsGet, LastResort, RequestId, UnaskedBody
from service.api.open_inference import routes as open_inference
from service.api.openapi import with_problems_alone
from service.api.problems import HANDLERS, problem_of
from service.api.proxies import TrustedProxies
from service.api.segment import answer_headers
from service.api.upload_room import UploadRoom
from service.engine.engine import Engine
from service.errors import KINDS
from service.jobs.owner import Jobs
from service.settings import Settings
from service.telemetry import Metrics

_LOG = logging.getLogger("unet.app")
_READ_BY_PAGES = (
    "X-UNet-Receipt",
    "Server-Timing",
    "Retry-After",
    "X-Request-ID",
    "Location",
    "Preference-Applied",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Inference-Header-Content-Length",
)
_DESCRIPTION = """\
Sends images through U-Nets (Ronneberger, Fischer and Brox, 2015) and returns masks, numbered objects or probabilities.

`curl --data-binary @cells.tif 'HOST/segment?output=labels&format=tiff' -o labels.tif`

Every failure is `application/problem+json` (RFC 9457).
"""


def create_app(settings: Settings) -> FastAPI:
    """Build the application; its engine starts with the lifespan, in the background, so that probes answer at once.

    Parameters
    ----------
    settings
        All there is to set; nothing is read from the environment here.

    Raises
    ------
    InvalidSettings
        Where the file of keys cannot be used.

    """
    metrics = Metrics()
    for kind in KINDS:  # from 0: a counter that appears with the first refusal hides it from rates, and so from alerts
        metrics.rejected.labels(reason=kind.slug)
    keys = None if settings.api_keys_file is None else ApiKeys(settings.api_keys_file)
    engine = Engine(settings, metrics)
    kept = Jobs(engine, settings, metrics, answer_headers, problem_of)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(engine.start(), name="unet-engine-start")
        starting.add_done_callback(_report)
        await kept.start()
        try:
            yield
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            engine.drain()
            await kept.stop()
            await engine.stop()

    app = FastAPI(
        title="U-Net segmentation",
        description=_DESCRIPTION,
        version=version("unet-service"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would cost the client its upload, and say nothing
        lifespan=lifespan,
        middleware=[
            Middleware(RequestId),
            Middleware(UnaskedBody),
            Middleware(TrustedProxies, trusted=settings.trusted_proxies, header=settings.client_header),
            Middleware(AccessLog, metrics=metrics),
            # around whatever refuses: pages shall read refusals too, and preflights come without a key
            *_for_pages_elsewhere(settings.cors_origins),
            Middleware(LastResort, shutdown_grace_s=settings.shutdown_grace_s, metrics=metrics),
            Middleware(KeyCheck, keys=keys, metrics=metrics),
            Middleware(HeadAsGet),
            Middleware(BodyLimit, limit_bytes=settings.max_body_bytes, metrics=metrics),
        ],
        exception_handlers=dict(HANDLERS),
    )
    app.state.settings = settings
    app.state.metrics = metrics
    app.state.engine = engine
    app.state.jobs = kept
    app.state.upload_room = UploadRoom(settings.spool_mb << 20, settings.upload_limit_bytes, kept.temporary_bytes)
    app.state.json_turn = asyncio.Lock()
    for router in (
        segment.router,
        jobs.router,
        plan.router,
        models.router,
        open_inference.router,
        probes.router,
        pages.router,
    ):
        app.include_router(router)
    app.mount(pages.SWAGGER_PATH, StaticFiles(directory=pages.SWAGGER_ASSETS), name="swagger-ui")
    # written once, here: it takes 30 ms, which the event loop does not have
    app.openapi_schema = with_problems_alone(app.openapi(), keys=keys is not None)
    return app


def _for_pages_elsewhere(origins: str) -> list[Middleware]:
    """Let pages of these origins send and read everything, but nothing that a browser adds by itself (passwords)."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins.split(","),
            allow_methods=["*"],  # what a path takes it says itself
            allow_headers=["*"],
            allow_private_network=True,  # a page from the internet, a service in the laboratory: the origin decides
            expose_headers=_READ_BY_PAGES,
        )
    ]


def _report(starting: asyncio.Task[None]) -> None:
    if not starting.cancelled() and (error := starting.exception()):
        _LOG.critical("the engine did not start: %s", error, exc_info=error)
