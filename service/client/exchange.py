"""Requests to one server, each on a connection of its own, asked again where that may help."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np

from .answers import (  # noqa: TID252 - the folder can stand anywhere
    ACCEPTED,
    EXAMPLE,
    RECEIPT,
    ServiceGone,
    ServiceProblem,
    ServiceUnreachable,
    document,
    json_object,
    passes,
    retry_after,
    somebody_else,
)
from .jobs import SHORT_ANSWER_S, HungUp, Job, Line, npy_of, patience  # noqa: TID252
from .keys import NO_ADDRESS  # noqa: TID252
from .outage import Outage  # noqa: TID252
from .request import SEGMENT, Request  # noqa: TID252
from .sink import Sink  # noqa: TID252

_NO_SERVER = {502, 503}  # of a proxy; its 504 may be about one image
_FIRST_WAIT_S = 0.5  # before asking again where nobody says how long to wait; then twice as long each time
_LONGEST_WAIT_S = 30.0
_LONGEST_POLL_S = 25.0  # half of what the service takes: proxies hang up after a minute, some after half of one
_ASKED_AGAIN = 2  # times, where the replica at work on a job has ended, or where it may have room for the job later
# as for an answer that was lost, another may be luckier; one without a shared folder does not know jobs of before it
_REPLICA_HAS_ENDED = {"/problems/job-lost", "/problems/draining", "/problems/unknown-job"}
_DROP_S = 5.0  # for saying that nobody waits for a job any more


class Exchange:
    """The connections to one server and the jobs that they are used for.

    Parameters
    ----------
    url, timeout_s, max_wait_s, transport, sleep, waiting
        As for :class:`Client`.
    key
        Bearer token; empty for none.

    Raises
    ------
    ServiceUnreachable
        Where ``url`` is no address.

    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout_s: float,
        max_wait_s: float,
        transport: httpx.BaseTransport | None,
        sleep: Callable[[float], object] | None,
        waiting: Callable[[str], object] | None,
    ) -> None:
        try:
            self._url = str(httpx.URL(url).copy_with(userinfo=b""))  # a password is not for messages
        except NO_ADDRESS as error:
            shown = re.sub("(?s)^([a-zA-Z]+://)?.*@", r"\1", url)
            # httpx would quote a part of the password
            rule = "in a password # is written as %23, / as %2F, ? as %3F, @ as %40; control characters cannot be in it"
            why = error if shown == url else rule
            raise ServiceUnreachable(f"{shown!r} is no address: {why}; give one such as {EXAMPLE}") from None
        self._connect = partial(
            httpx.Client,
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=patience(min(timeout_s, SHORT_ANSWER_S)),
            transport=transport,
            verify=httpx.create_ssl_context(),  # takes longer to make than all the rest
        )
        self._for_results = patience(timeout_s)
        self._max_wait_s = max_wait_s
        self._outage = Outage(max_wait_s, waiting)
        self._poll_s = min(_LONGEST_POLL_S, timeout_s / 2)
        self._sleep = sleep
        self._reached = False  # whether the server has ever answered
        self._lock = threading.Lock()
        self._closed = False
        self._idle = [Line(self._connect())]
        self._jobs: set[Job] = set()
        self._waits: dict[Job, str] = {}
        self._followed: set[Job] = set()
        """Those on which the service works whether or not the connection stands."""
        self._one_less = threading.Condition(self._lock)

    def begin(self, job: Job) -> Job:
        """Take a job on, so that closing ends it.

        Raises
        ------
        HungUp
            Where it is closed.

        """
        with self._lock:
            if self._closed:
                raise HungUp("the client is closed; make another")
            self._jobs.add(job)
        return job

    def close(self) -> None:
        """Hang up whatever is under way; the service is told to drop its jobs before a script ends."""
        with self._lock:
            self._closed = True
            jobs, idle, self._idle = list(self._jobs), self._idle, []
        for job in jobs:
            job.cancel()
        for line in idle:
            line.http.close()
        with self._one_less:
            self._one_less.wait_for(lambda: not self._followed, _DROP_S)

    def asked_together(self) -> AbstractContextManager[None]:
        """Have what is asked within a ``with`` block wait for a server that is away once, not one after the other."""
        return self._outage.minded()

    @property
    def waits_for(self) -> list[str]:
        """Why requests wait now to be asked again, one sentence for each that does."""
        return list(self._waits.values())

    def run(self, job: Job, request: Request) -> None:
        """Make a job's request in this thread, and settle the job."""
        line, settled = None, False
        try:
            line = self._free_line()
            job.goes_by(line)
            response = self._answer(job, line, request)
            if request.path == SEGMENT and RECEIPT not in response.headers:
                raise ServiceProblem(somebody_else(response, f"header {RECEIPT}"))
            settled = job.settle(response)
        except Exception as error:  # whatever it is, it is for who waits
            settled = job.settle(error)
        finally:
            job.cancel()  # does nothing, but where this thread was interrupted
            with self._lock:
                self._jobs.discard(job)
                again = settled and not self._closed  # what another has settled may be cut by him at any moment
                if line is not None and again:
                    self._idle.append(line)
            if line is not None and not again:
                line.http.close()

    def _free_line(self) -> Line:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Line(self._connect())

    def _answer(self, job: Job, line: Line, request: Request) -> httpx.Response:
        content = npy_of(request.image) if isinstance(request.image, np.ndarray) else request.image

        into = None if request.into is None else Sink(request.into)

        def send() -> httpx.Response:
            timeout = self._for_results if request.path == SEGMENT else None
            ask = partial(line.ask, request.method, request.path, request.query, into=into, timeout=timeout)
            if isinstance(content, bytes):
                return ask(content)
            path = Path(content)
            with path.open("rb") as file:
                name = quote(os.fsencode(path.name if request.name is None else request.name))
                return ask(file, {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"})

        for again in range(_ASKED_AGAIN, -1, -1):
            response = self._until_answered(job, send)
            if response.status_code != ACCEPTED:
                return response
            try:
                over = self._when_over(job, line, f"/jobs/{json_object(response).get('id')}", into)
            except ServiceProblem as problem:
                if problem.type not in _REPLICA_HAS_ENDED or not again:
                    raise
                continue
            if isinstance(over, httpx.Response):
                return over
            wait = 0.0 if over.type in _REPLICA_HAS_ENDED else over.retry_after_s
            if wait is None or wait > self._max_wait_s or not again:
                raise over
            (self._sleep or job.wait)(wait)
        raise AssertionError("the last time returns or raises")

    def _when_over(self, job: Job, line: Line, path: str, into: Sink | None) -> httpx.Response | ServiceProblem:
        """Result of the service's job, or why it failed; where nobody waits any more, the service has to drop it."""
        wait = partial(line.ask, "GET", path, {"wait": self._poll_s})
        self._followed.add(job)
        try:
            while True:
                response = self._until_answered(job, wait)
                report = json_object(response)
                if "state" not in report:
                    raise ServiceProblem(somebody_else(response, "field 'state'"))
                if report["state"] == "failed":
                    return ServiceProblem(report["problem"])
                if report["state"] == "done":
                    return self._until_answered(job, partial(_fetch, line, f"{path}/result", into))
        except ServiceProblem:
            raise
        except BaseException:  # Ctrl-C too
            with suppress(httpx.HTTPError), self._connect(timeout=_DROP_S) as http:
                http.delete(path)
            raise
        finally:
            with self._one_less:
                self._followed.discard(job)
                self._one_less.notify_all()

    def _until_answered(self, job: Job, send: Callable[[], httpx.Response]) -> httpx.Response:
        waited, next_wait = 0.0, _FIRST_WAIT_S
        sleep = self._sleep or job.wait
        cause: Exception
        with self._outage.minded():
            while not job.done():
                wait = None
                try:
                    response = send()
                except httpx.TransportError as error:
                    # a server that ended in the middle of it, or has been there and is being replaced; one that was
                    # never there, or is slow, is another matter
                    broke_off = isinstance(error, (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError))
                    self._reached = self._reached or broke_off
                    away = self._reached and isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
                    again, cause = broke_off or away, ServiceUnreachable(self._no_answer(error))
                    cause.__cause__ = error
                else:
                    self._reached = True
                    if response.is_success:
                        self._outage.over()
                        return response
                    wait, again, cause = retry_after(response), passes(response), ServiceProblem(document(response))
                    away = again and wait is None and response.status_code in _NO_SERVER
                if wait is None:
                    wait, next_wait = next_wait, min(2 * next_wait, _LONGEST_WAIT_S)
                if not away:
                    self._outage.over()
                # while it is away the limit of all requests comes first
                if not again or waited + (0 if away else wait) > self._max_wait_s:
                    raise cause
                self._waits[job] = str(cause)
                try:
                    if not away:
                        sleep(wait)
                    elif since := self._outage.wait(wait, sleep, str(cause)):
                        raise ServiceGone(f"the server has been away since {since:%H:%M:%S}: {cause}") from cause
                finally:
                    del self._waits[job]
                waited += wait
        raise HungUp("there is nobody any more who waits for it")

    def _no_answer(self, error: httpx.TransportError) -> str:
        return f"no answer from {self._url}: {str(error) or type(error).__name__}; is the service running?"


def _fetch(line: Line, path: str, into: Sink | None) -> httpx.Response:
    """Result of a job; one that goes into a file goes on where it broke off."""
    return line.ask("GET", path, headers=into.rest() if into else None, into=into)
