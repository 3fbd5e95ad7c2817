"""What turns one image file into one result: the engine in this process, or a server."""

from __future__ import annotations

import asyncio
import concurrent.futures
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Protocol

from model.images import ReadLimits, open_image
from service.batch.loops import end_tasks
from service.batch.readable import readable
from service.client import Client
from service.engine.engine import Engine
from service.engine.errors import Overloaded
from service.engine.request import Answer, SegmentRequest
from service.engine.stages.progress import Progress
from service.formats import ENCODERS, UNPLACED
from service.settings import Settings
from service.telemetry import Metrics

SERVER_AWAY_S = 1800.0
"""Most seconds that an image waits for a server that is busy, and all of them for one that is away, from its last
answer on: long enough to update a fleet, or wake one."""

RESULT_S = 86_400.0
"""Most seconds that a result may take, a day as in this process: the server's own deadline comes first."""


def notes_of(receipt: Mapping[str, Any]) -> tuple[str, ...]:
    """What a receipt says of how the image was read."""
    return tuple(receipt.get("input", {}).get("notes", ()))


class Segmenter(Protocol):
    """Segments image files; may be called from several threads."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What results depend on besides the image: software, package and options; fit for JSON."""
        ...

    @property
    def waits_for(self) -> Sequence[str]:
        """Why images wait that are in work now, a sentence for each that does."""
        ...

    @property
    def done_of(self) -> Mapping[Path, float]:
        """Of images that are in work now, the share of their pixels that is through the net, where it is known."""
        ...

    def segment(self, image: Path, into: IO[bytes]) -> Mapping[str, Any]:
        """Segment one image, write the result piece by piece into a file, an empty one; returns the receipt."""
        ...

    def close(self) -> None:
        """Break off what is under way, in whatever thread, and take nothing more."""
        ...


def seen_identity(identity: Mapping[str, Any], receipt: Mapping[str, Any]) -> dict[str, Any]:
    """``identity`` with the software and package that a receipt names: a server may be updated in the middle."""
    return {**identity, "service": receipt["service"], "model": _model(receipt["model"])}


def _model(card: Mapping[str, Any]) -> dict[str, Any]:
    """Which package a server speaks of; older servers have no variants."""
    return {name: card[name] for name in ("name", "version", "sha256")} | {"variants": card.get("variants", {})}


@contextmanager
def in_process(settings: Settings, request: SegmentRequest) -> Iterator[Segmenter]:
    """Segment in this process, through the engine that also serves."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="unet-batch-loop", daemon=True)  # a second Ctrl-C ends all
    thread.start()
    local = None
    try:
        engine = asyncio.run_coroutine_threadsafe(_started(settings), loop).result()
        local = _Local(engine, loop, request, settings)
        yield local
    finally:
        if local is not None:
            local.close()
            asyncio.run_coroutine_threadsafe(engine.stop(), loop).result()
        # an interrupt comes while the packages load, too
        asyncio.run_coroutine_threadsafe(end_tasks(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _started(settings: Settings) -> Engine:
    engine = Engine(settings, Metrics())
    await engine.start()
    return engine


class _Local:
    def __init__(
        self, engine: Engine, loop: asyncio.AbstractEventLoop, request: SegmentRequest, settings: Settings
    ) -> None:
        self._engine = engine
        self._loop = loop
        self._request = request
        self._running: set[concurrent.futures.Future[Answer]] = set()
        self._waits: dict[Path, str] = {}
        self._progress: dict[Path, Progress] = {}
        self._closed = threading.Event()
        self._asked = {"backend": settings.backend, "precision": settings.precision}
        self._most_pixels = settings.max_pixels
        self._check = partial(_check, request)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            "service": version("unet-service"),
            "model": self._engine.model(self._request.model).identity,
            # as asked for, not as found: a job that goes on on another node need not begin anew
            "options": {**_chosen(self._request), **self._asked},
        }

    @property
    def waits_for(self) -> Sequence[str]:
        return list(self._waits.values())

    @property
    def done_of(self) -> Mapping[Path, float]:
        return {image: found.pixels_done / max(1, found.pixels) for image, found in [*self._progress.items()]}

    def segment(self, image: Path, into: IO[bytes]) -> Mapping[str, Any]:
        with (
            readable(image, self._most_pixels, self._closed.is_set, self._check) as found,
            found.path.open("rb") as file,
        ):
            request = replace(self._request, file_name=found.name)
            while True:
                self._progress[image] = progress = Progress()
                running = asyncio.run_coroutine_threadsafe(self._engine.segment(file, request, progress), self._loop)
                self._running.add(running)
                if self._closed.is_set():
                    running.cancel()
                try:
                    answer = running.result()
                except Overloaded as busy:
                    # the images beside it hold the memory that it needs; they end
                    self._waits[image] = str(busy)
                    self._closed.wait(busy.retry_after_s)
                    del self._waits[image]
                    file.seek(0)
                else:
                    with closing(answer.body) as body:
                        shutil.copyfileobj(body, into)
                    return answer.receipt
                finally:
                    self._running.discard(running)
                    del self._progress[image]

    def close(self) -> None:
        self._closed.set()
        for running in list(self._running):
            running.cancel()


@contextmanager
def by_server(
    url: str, request: SegmentRequest, waiting: Callable[[str], object], *, as_jobs: bool = False
) -> Iterator[Segmenter]:
    """Segment on a server, where asked for by jobs of it.

    It may be away for :data:`SERVER_AWAY_S` seconds, which ``waiting`` is told once.
    """
    with Client(url, timeout_s=RESULT_S, max_wait_s=SERVER_AWAY_S, waiting=waiting) as client:
        yield _Remote(client, request, as_jobs)


@dataclass(frozen=True, slots=True)
class _Remote:
    client: Client
    request: SegmentRequest
    as_jobs: bool
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def identity(self) -> Mapping[str, Any]:
        card = self.client.model(self.request.model)
        return {
            "service": self.client.version(),
            "model": _model(card),
            "options": _chosen(self.request),
        }

    @property
    def waits_for(self) -> Sequence[str]:
        return self.client.waits_for

    @property
    def done_of(self) -> Mapping[Path, float]:
        return {}

    def segment(self, image: Path, into: IO[bytes]) -> Mapping[str, Any]:
        # how it is asked for is no part of a result
        asked = {**_chosen(self.request), "respond_async": True if self.as_jobs else None}
        with readable(image, closed=self.closed.is_set, check=partial(_check, self.request)) as found:
            return self.client.segment_into(into, found.path, name=found.name, model=self.request.model, **asked)

    def close(self) -> None:
        self.closed.set()
        self.client.close()


def _check(request: SegmentRequest, image: IO[bytes]) -> None:
    """Refuse an image whose header tells that the format cannot hold its result.

    Raises
    ------
    UnsupportedOutput
        Where it does.
    AxesMismatch
        Where the image has other axes than the request says.

    """
    with open_image(image, ReadLimits(sys.maxsize, sys.maxsize), request.axes) as reader:
        ENCODERS[request.format].check_planes(reader.header.planes)


def _chosen(request: SegmentRequest) -> dict[str, str | float | bool | None]:
    """Everything asked for but the package, which is known by name, version and hash once it is found."""
    chosen: dict[str, str | float | bool | None] = {
        "output": request.output,
        "format": request.format,
        "threshold": request.threshold,
        "min_area": request.min_area,
        "channel": request.channel,
    }
    # named only where they are asked for, so that results of versions that did not have them stay finished
    if request.min_score is not None:
        chosen["min_score"] = request.min_score
    if request.link is not None:
        chosen["link"] = request.link
    if request.axes is not None:
        chosen["axes"] = request.axes
    if request.mirror:
        chosen["mirror"] = True
    if request.auto_scale or request.scale is not None:
        chosen["scale"] = "auto" if request.auto_scale else request.scale
    if request.pixel_size_um is not None:
        chosen["pixel_size"] = _pair(request.pixel_size_um)
    if request.placement != UNPLACED:
        chosen["origin"] = _pair(request.placement.origin_yx)
        chosen["downsample"] = request.placement.downsample
    return chosen


def _pair(values: tuple[float, float]) -> str:
    """Two numbers as a parameter takes them, without loss."""
    return ",".join(map(repr, values))
