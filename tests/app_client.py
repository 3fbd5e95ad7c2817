"""The whole application in this process, over ASGI, with its real lifespan and engine; requests are synchronous."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings


class AppClient:
    """Sends requests to an application that runs on the loop of a portal."""

    def __init__(self, app: FastAPI, portal: BlockingPortal, http: httpx.AsyncClient) -> None:
        self.app = app
        self._portal = portal
        self._http = http

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._portal.call(partial(self._http.request, method, path, **options))

    def begin(self, method: str, path: str, **options: Any) -> Future[httpx.Response]:
        """Send a request that can be given up: to cancel it is to hang up."""
        return self._portal.start_task_soon(partial(self._http.request, method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def segment(self, image: bytes, **options: Any) -> httpx.Response:
        return self.request("POST", "/segment", content=image, **options)

    def wait_until_ready(self) -> None:
        until = time.monotonic() + 30
        while (answer := self.get("/readyz")).status_code != 200:
            if time.monotonic() > until:
                raise TimeoutError(answer.text)
            time.sleep(0.02)


@contextmanager
def running_app(settings: Settings) -> Iterator[AppClient]:
    """Start an application for the length of a ``with`` block; it may not be ready yet."""
    app = create_app(settings)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
        portal.wrap_async_context_manager(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app, raise_app_exceptions=False), base_url="http://service"
            )
        ) as http,
    ):
        yield AppClient(app, portal, http)


@contextmanager
def ready_app(settings: Settings) -> Iterator[AppClient]:
    """Start an application for the length of a ``with`` block, and wait until it is ready."""
    with running_app(settings) as running:
        running.wait_until_ready()
        yield running
