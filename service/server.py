"""The HTTP server: uvicorn, and what happens between SIGTERM, SIGINT or the end of its terminal and its own.

At the signal readiness fails, and nothing else changes: whoever still comes, because no load balancer has noticed yet,
is answered. ``drain_delay_s`` seconds later the listener closes; then requests in work have ``shutdown_grace_s``
seconds to finish; the exit code is 0.

Where no terminal controls the process, SIGHUP has it look for packages at once.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import socket
import threading
import time
from functools import partial
from types import FrameType

import uvicorn

from service.app import create_app
from service.engine.ending import leave_what_hangs
from service.engine.engine import Engine
from service.jobs.owner import Jobs
from service.lingering import LingerLimits
from service.protocol import LimitedProtocol
from service.settings import Settings
from service.telemetry import fields

_LOG = logging.getLogger("unet.server")
_CLOSE = (b"connection", b"close")
_KEEP_ALIVE_S = 75  # longer than the idle time of common proxies (60 s), so that the proxy is the one to hang up


class CannotListen(Exception):
    """The address cannot be listened on; the message gives it and the cause."""


class Server(uvicorn.Server):
    """uvicorn with one process, one loop, and a drain before its own graceful shutdown."""

    def __init__(self, config: uvicorn.Config, engine: Engine, jobs: Jobs, drain_delay_s: float) -> None:
        super().__init__(config)
        self._engine = engine
        self._jobs = jobs
        self._drain_delay_s = drain_delay_s
        self._leave_at: float | None = None
        self._announced = False
        self._look_asked = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and say where: port 0 is only known now.

        Raises
        ------
        CannotListen
            Where the address is taken, or is none of this machine.

        """
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            # a terminal that is gone would end uvicorn without a drain
            signal.signal(signal.SIGHUP, self.handle_exit if _has_terminal() else self._ask_to_look)
        try:
            await super().startup(sockets)
        except SystemExit as error:
            if not isinstance(error.__context__, OSError):
                raise
            address = f"{self.config.host}:{self.config.port}"
            raise CannotListen(
                f"cannot listen on {address}: {error.__context__}; stop what listens there, or choose another address "
                "(--host, --port, UNET_HOST, UNET_PORT)"
            ) from error
        for server in self.servers:
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                _LOG.info("listening on http://%s:%d", shown, port, extra=fields(host=host, port=port))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal; at a second one leave now.

        The signal is not kept for uvicorn to raise again at the end: an orderly stop exits with 0. Nothing is logged
        in here, where the interrupted code may be in the middle of writing a log line.
        """
        if self._leave_at is None:
            self._leave_at = time.monotonic() + self._drain_delay_s
            self._engine.retire()
            # connections that are kept open would bring their next request to a closed door
            self.config.encoded_headers.append(_CLOSE)
            self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]
            return
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    def _ask_to_look(self, _: int, __: FrameType | None) -> None:
        self._look_asked = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to close the listener."""
        if self._look_asked:
            self._look_asked = False
            self._engine.look_for_packages()
        if self._leave_at is not None:
            if not self._announced:
                self._announced = True
                _LOG.info("draining", extra=fields(drain_delay_s=self._drain_delay_s))
            if time.monotonic() >= self._leave_at:
                self._engine.drain()
                self._jobs.drain()
                self.should_exit = True
        return await super().on_tick(counter)


def _has_terminal() -> bool:
    """Whether a terminal controls this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises
    ------
    CannotListen
        Where the address is taken, or is none of this machine; ``unet-service`` then exits with status 1.

    """
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    # the soft limit is low for programs that call select(); connections, uploads and answers take a file each
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    app = create_app(settings)
    linger = LingerLimits(settings.upload_limit_bytes, settings.deadline_s)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        root_path=settings.root_path,
        proxy_headers=False,
        loop="uvloop",
        http=partial(LimitedProtocol, linger=linger),  # type: ignore[arg-type]  # it is only called
        ws="none",
        lifespan="on",
        workers=1,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
    server = Server(config, app.state.engine, app.state.jobs, settings.drain_delay_s)
    server.server_state.tasks = app.state.jobs.tasks  # waited for, and cancelled with the grace, like requests
    gc.collect()
    gc.freeze()  # modules: to go through all that they hold would stop every thread for 70 ms, now and then
    server.run()
    _LOG.info("stopped")
    leave_what_hangs()
