"""One server, asked from any number of threads."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import partial
from itertools import islice
from typing import IO, Any
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray

from .answers import RECEIPT, ServiceProblem, json_object, somebody_else  # noqa: TID252 - the folder can stand anywhere
from .exchange import Exchange  # noqa: TID252
from .jobs import Job, array_of  # noqa: TID252
from .keys import key_for  # noqa: TID252
from .request import SEGMENT, Image, Option, Request  # noqa: TID252

_MOST_THREADS = 32
_Params = Mapping[str, Option]


class Client:
    """One server; keeps its connections open, so use it as a context manager or close it. Threads may share it.

    Parameters
    ----------
    url
        Where the service is, such as ``http://127.0.0.1:8000``; ``http://any:KEY@host`` sends the key as password.
    api_key
        Sent as ``Authorization: Bearer KEY`` to a service that asks for keys (its setting ``UNET_API_KEYS_FILE``); None
        takes the one in environment variable ``UNET_API_KEY``, if any, for the service ``UNET_API_KEY_URL`` alone where
        that is set.
    timeout_s
        Seconds to wait for a result, and for any other answer, but for these no longer than 600. A connection at whose
        other end nobody is any more ends in two minutes, and the image is sent again.
    max_wait_s
        Most seconds to wait in all before asking again: where the server is busy (503, or a proxy's 429, with
        Retry-After), and where an answer was lost (a connection that broke off, 504 of a proxy). Where a server is away
        that has answered before (no connection, or 502 or 503 of a proxy), all requests wait for it together, so many
        seconds since it went. The same image has the same answer: asking twice is safe.
    transport
        Another way to the server than a socket.
    sleep
        How to wait; closing ends the usual way of it at once.
    waiting
        Told in a sentence, once for each time that the server is away, that requests begin to wait for it.

    Raises
    ------
    ServiceUnreachable
        Where ``url`` is none, or the key has a character that cannot be sent.

    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 600.0,
        max_wait_s: float = 120.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], object] | None = None,
        waiting: Callable[[str], object] | None = None,
    ) -> None:
        key = key_for(url, api_key, os.environ)
        self._exchange = Exchange(
            url, key, timeout_s=timeout_s, max_wait_s=max_wait_s, transport=transport, sleep=sleep, waiting=waiting
        )
        self._lock = threading.Lock()
        self._queue: deque[Callable[[], None]] = deque()
        self._threads = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up: requests and jobs that are not done fail with :class:`HungUp` at once, and so do later ones.

        Where the service works on jobs (``respond_async``), it is told to drop them: that takes it 5 s at most.
        """
        self._exchange.close()

    def segment(self, image: Image, **options: Option) -> bytes:
        """Segment one image.

        Parameters
        ----------
        image
            A file, a file's content, or an array (y, x), (y, x, channels), (planes, y, x), or as ``axes`` says.
        options
            Parameters of ``POST /segment``: model, output, format, threshold, min_area, min_score, link, channel, axes,
            mirror, scale, pixel_size, origin, downsample, timeout, respond_async: with that the service works on it as
            a job, of which is asked every 25 s, so that no proxy on the way hangs up on an answer that takes long.

        Returns
        -------
        bytes
            In the format asked for; PNG where none is.

        Raises
        ------
        ServiceProblem
            Where the server refuses, or is another than this service.
        ServiceUnreachable
            Where it does not answer; :class:`ServiceGone` where it has been away for ``max_wait_s`` seconds.
        HungUp
            Where the client is closed.

        """
        return self.answer(image, **options).content

    def answer(self, image: Image, **options: Option) -> httpx.Response:
        """Segment one image as :meth:`segment` does; returns the whole answer, headers and so the receipt included."""
        return self._done_here(Request("POST", SEGMENT, options, image))

    def segment_into(
        self, into: IO[bytes], image: Image, *, name: str | None = None, **options: Option
    ) -> dict[str, Any]:
        """Segment one image as :meth:`segment` does, write the result to a file as it comes, and return the receipt.

        The file is written from its start, and again from there where an answer breaks off; the result of a job
        (``respond_async=True``) goes on where it broke off. It is not kept in memory.
        ``name`` is what the service takes the file to be called, its own name where None.
        """
        response = self._done_here(Request("POST", SEGMENT, options, image, into, name))
        receipt: dict[str, Any] = json.loads(response.headers[RECEIPT])
        return receipt

    def segment_array(self, image: Image, **options: Option) -> NDArray[Any]:
        """Segment one image as :meth:`segment` does, and return an array: (y, x) or with leading stack axes."""
        return array_of(self.segment(image, **{**options, "format": "npy"}))

    def submit(self, image: Image, **options: Option) -> Job:
        """Segment one image in another thread, 32 at a time; the result is an array where no ``format`` is asked for.

        An array is copied, so that it may be changed afterwards.
        """
        as_array = options.get("format") is None
        job = self._exchange.begin(Job(as_array=as_array))
        given = {**options, "format": "npy"} if as_array else options
        kept = image.copy() if isinstance(image, np.ndarray) else image
        with self._lock:
            self._queue.append(partial(self._exchange.run, job, Request("POST", SEGMENT, given, kept)))
            one_more = self._threads < _MOST_THREADS
            self._threads += one_more
        if one_more:
            threading.Thread(target=self._work, name="unet-client", daemon=True).start()
        return job

    def map(
        self,
        images: Iterable[Image],
        *,
        workers: int = 4,
        progress: Callable[[int, int | None], object] | None = None,
        **options: Option,
    ) -> Iterator[Any]:
        """Segment images, ``workers`` at a time; gives what :meth:`Job.result` does, in the order of the images.

        Where one fails, ``next`` raises why, and goes on with the next image when it is called again. Images are taken
        as results are: results that nobody asks for hold up the rest. Those on their way are cancelled where the
        iterator is dropped. A server that is away for all of ``max_wait_s`` is not waited for anew by the rest; each of
        them asks once. ``progress(done, total)`` is called for each, failed or not, in the thread that asks;
        ``total`` is None where ``images`` has no length.
        """
        if not 1 <= workers <= _MOST_THREADS:
            raise ValueError(f"workers is {workers}; use 1 to {_MOST_THREADS}")
        return map(Job.result, self._in_order(images, workers, progress, options))

    def plan(self, size_yx: tuple[int, int], planes: int = 1, **options: Option) -> dict[str, Any]:
        """Return what ``GET /plan`` says of an image of this size: ``expected_seconds``, ``refusal`` and more.

        Parameters
        ----------
        size_yx
            Height and width, px.
        planes
            Of a stack.
        options
            Other parameters of ``GET /plan``: model, output, format, channel, mirror, scale, pixel_size, timeout,
            respond_async.

        Raises
        ------
        ServiceProblem, ServiceUnreachable
            As for :meth:`segment`.

        """
        asked = {"size": f"{size_yx[0]}x{size_yx[1]}", "planes": planes, **options}
        return self._told("/plan", "expected_seconds", asked)

    def models(self) -> dict[str, Any]:
        """Return what ``GET /models`` lists: ``models``, ``loading`` and ``refused``, among others."""
        return self._told("/models", "models")

    def model(self, reference: str | None = None) -> dict[str, Any]:
        """Return what ``GET /models/{reference}`` tells of a package: of the default one for None.

        While a server that has just started loads its packages it is waited for as one that is busy.

        Raises
        ------
        ServiceProblem
            Where there is no such package.

        """
        if reference is None:
            listed = self.models()
            if not listed["models"] and not listed.get("refused"):
                self._told("/readyz", "ready")  # until then refused with Retry-After
                listed = self.models()
            default = [entry for entry in listed["models"] if entry["default"]]
            if not default:
                problem = {"status": 503, "title": "There is no default model", "detail": "name a model"}
                raise ServiceProblem(problem)
            reference = f"{default[0]['name']}@{default[0]['version']}"
        return self._told(f"/models/{quote(reference, safe='@')}", "name")

    @property
    def waits_for(self) -> list[str]:
        """Why requests wait now to be asked again, one sentence for each that does."""
        return self._exchange.waits_for

    def version(self) -> str:
        """Return the version of the server's software."""
        return str(self._told("/openapi.json", "info")["info"]["version"])

    def _told(self, path: str, holding: str, params: _Params | None = None) -> dict[str, Any]:
        """JSON that the service answers with, which holds at least that field."""
        response = self._done_here(Request("GET", path, params or {}))
        found = json_object(response)
        if holding not in found:
            raise ServiceProblem(somebody_else(response, f"field {holding!r}"))
        return found

    def _done_here(self, request: Request) -> httpx.Response:
        job = self._exchange.begin(Job())
        self._exchange.run(job, request)
        return job.answer()

    def _work(self) -> None:
        """Do what is in the queue, until there is nothing."""
        while True:
            with self._lock:
                if not self._queue:
                    self._threads -= 1
                    return
                run = self._queue.popleft()
            run()

    def _in_order(
        self,
        images: Iterable[Image],
        workers: int,
        progress: Callable[[int, int | None], object] | None,
        options: _Params,
    ) -> Iterator[Job]:
        total = len(images) if isinstance(images, Sized) else None
        left, done, jobs = iter(images), 0, deque[Job]()
        with self._exchange.asked_together():
            try:
                while True:
                    jobs.extend(self.submit(image, **options) for image in islice(left, workers - len(jobs)))
                    if not jobs:
                        return
                    jobs[0].wait()
                    done += 1
                    if progress is not None:
                        progress(done, total)
                    yield jobs.popleft()
            finally:
                for job in jobs:
                    job.cancel()
