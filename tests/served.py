"""ASGI applications behind the service's HTTP protocol, on a port of the loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from service.lingering import LingerLimits
from service.protocol import LimitedProtocol


@contextmanager
def served(app: ASGIApp, keep_alive_s: int = 5, lifespan: Literal["on", "off"] = "off") -> Iterator[int]:
    """Serve an application in a thread; gives the port."""
    http = partial(LimitedProtocol, linger=LingerLimits(1 << 20, 10))
    config = uvicorn.Config(
        app,
        port=0,
        loop="uvloop",
        http=http,  # type: ignore[arg-type]  # it is only called
        lifespan=lifespan,
        log_config=None,
        proxy_headers=False,
        timeout_keep_alive=keep_alive_s,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
