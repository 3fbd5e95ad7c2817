"""Clients that send one image again and again, and count what they get."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np

from service.client import Client
from tests.images import disc, npy

IMAGE = np.pad(disc(64, 64), ((0, 936), (0, 936)))
"""1000 x 1000 px: as .npy too large for the proxy to send it a second time, so that nothing but the drain saves it."""
LARGE = npy(IMAGE)
SMALL = npy(disc(64, 64))

_PAUSE_S = 0.05
"""Between an answer and the next image of clients that are not patient: without, they take the processor from the
containers they watch."""


@dataclass(slots=True)
class Tally:
    """What the clients of one load got so far."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)
    sent: int = 0
    """Images, each counted once however often it was asked for."""
    sent_px: int = 0
    waits: int = 0
    """How often a client of the package waited before it asked again."""

    def wait_for(self, more: int, seconds: float = 60.0) -> None:
        """Wait for that many further answers."""
        target, until = self.answered + more, time.monotonic() + seconds
        while self.answered < target:
            assert time.monotonic() < until, f"{target - self.answered} answers are missing, {self.failed[:3]}"
            time.sleep(0.02)

    def __str__(self) -> str:
        return f"{len(self.failed)} failed of {self.answered + len(self.failed)}"


def post(url: str, body: bytes) -> bytes:
    """Send an image once, on a connection of its own; without any patience."""
    answer = httpx.post(f"{url}/segment?format=npy", content=body, timeout=60)
    if answer.status_code != 200:
        raise RuntimeError(f"{answer.status_code} {answer.text[:200]}")
    return answer.content


@contextmanager
def load(url: str, *bodies: bytes, patient: bool = False, totals: Tally | None = None) -> Iterator[Tally]:
    """Send each of these images over and over, each from a client of its own, for the length of a ``with`` block.

    Parameters
    ----------
    url
        Where to.
    bodies
        Images as .npy; the answers must be equal every time.
    patient
        Whether clients ask again as the documentation says, with the package's own client; else every failure counts.
    totals
        What all loads of a test sent and waited so far is added up here.

    """
    tally, lock, stop = Tally(), threading.Lock(), threading.Event()
    tallies = [tally] if totals is None else [tally, totals]

    def sleep(seconds: float) -> None:
        with lock:
            for each in tallies:
                each.waits += 1
        time.sleep(seconds)

    def keep_sending(body: bytes, send: Callable[[bytes], bytes]) -> None:
        expected, pixels = None, math.prod(np.load(io.BytesIO(body)).shape)
        while not stop.is_set():
            with lock:
                for each in tallies:
                    each.sent += 1
                    each.sent_px += pixels
            try:
                got = send(body)
                expected = expected or got
                problem = None if got == expected else "another mask than before"
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            with lock:
                tally.answered += problem is None
                if problem:
                    tally.failed.append(problem)
            if not patient:
                stop.wait(_PAUSE_S)

    def client(body: bytes) -> None:
        if patient:
            with Client(url, sleep=sleep) as package:
                keep_sending(body, lambda image: package.segment(image, format="npy"))
        else:
            keep_sending(body, lambda image: post(url, image))

    threads = [threading.Thread(target=client, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stop.set()
        for thread in threads:
            thread.join()
