"""Interrupts: said in one line and never a traceback, whatever they come upon; what was under way is broken off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from service.client import RECEIPT
from tests.images import disc, png
from tests.importing import signalled_while_importing
from tests.live import LiveServer, live_server
from tests.packages import write_tiny_package

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such signals there")

IMAGES = 9
IN_FLIGHT = 3
WAIT_S = 60
"""Longer than anything here takes, and far below what the client would wait for an answer."""

WHILE_LOADING = """
import signal, sys, threading
from service import cli
from service.engine import engine

ended = threading.Event()

def load(*_):
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    ended.wait(60)
    raise OSError("nobody waits for it")

engine.load_registry = load
status = cli.main(sys.argv[1:])
ended.set()
sys.exit(status)
"""

WHILE_IMPORTING = signalled_while_importing("service.commands", "SIGINT", "service")

TWICE = """
import signal, sys
from service import cli
from service.batch import segmenters

def stuck(self):
    signal.raise_signal(signal.SIGINT)
    raise AssertionError("the second interrupt has not ended the process")

segmenters.Client.close = stuck
segmenters.Client.version = lambda self: signal.raise_signal(signal.SIGINT)
segmenters.Client.model = lambda self, reference: {"name": "tiny", "version": "1", "sha256": "0"}
sys.exit(cli.main(sys.argv[1:]))
"""

WHILE_COUNTING = """
import signal, sys
from service import cli
from service.batch import work

count, numbers = work.Tally.count, [signal.SIGINT]

def interrupted(self, *arguments):
    if numbers:
        signal.raise_signal(numbers.pop())
    count(self, *arguments)

work.Tally.count = interrupted
sys.exit(cli.main(sys.argv[1:]))
"""


@dataclass(slots=True)
class Stalling:
    """A service that finishes a few images, then none; knows who has hung up."""

    url: str
    stalled: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    hung_up: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@contextmanager
def stalling(server: LiveServer, finished: int) -> Iterator[Stalling]:
    """Pass requests on to a service, but of images only the first few."""
    left = [None] * finished
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass_on(httpx.get(server.url + self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                passes = bool(left)
                del left[:1]
            if passes:
                self._pass_on(httpx.post(server.url + self.path, content=body))
                return
            here.stalled.release()
            if self.rfile.read(1) == b"":
                here.hung_up.release()
            self.close_connection = True

        def _pass_on(self, answer: httpx.Response) -> None:
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            if RECEIPT in answer.headers:
                self.send_header(RECEIPT, answer.headers[RECEIPT])
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        here = Stalling(f"http://127.0.0.1:{listening.server_port}")
        serving = threading.Thread(target=listening.serve_forever)
        serving.start()
        try:
            yield here
        finally:
            listening.shutdown()
            serving.join()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(IMAGES):
        (folder / f"{number}.png").write_bytes(png(disc(60 + number)))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("server")
    write_tiny_package(folder / "packages")
    with live_server(folder, folder / "packages") as running:
        yield running


def started(*arguments: str | Path, script: str | None = None) -> subprocess.Popen[str]:
    how = ["-m", "service"] if script is None else ["-c", script]
    command = [sys.executable, *how, "segment", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Status, standard output and standard error."""
    try:
        out, err = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    return process.returncode, out, err


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and path.parent.name != "locks"}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_hangs_up_and_the_same_command_goes_on(
    images: Path, tmp_path: Path, server: LiveServer, number: signal.Signals, status: int
) -> None:
    out = tmp_path / "out"
    with stalling(server, finished=2) as stalled:
        process = started(images, "-o", out, "--url", stalled.url, "--in-flight", str(IN_FLIGHT))
        for _ in range(IN_FLIGHT):
            assert stalled.stalled.acquire(timeout=WAIT_S)
        process.send_signal(number)
        said = ended(process)
        for _ in range(IN_FLIGHT):
            assert stalled.hung_up.acquire(timeout=WAIT_S), "the service still works for nobody"
    assert said == (
        status,
        "",
        f"unet-service: interrupted after 2 of {IMAGES} images; the same command goes on with the rest\n",
    )
    done = [json.loads(path.read_bytes())["name"] for path in (out / ".unet" / "receipts").iterdir()]
    assert files(out) == {f"{Path(name).stem}_mask.png{more}" for name in done for more in ("", ".json")}
    assert len(done) == 2
    assert ended(started(images, "-o", out, "--url", server.url))[:2] == (
        0,
        f"wrote 7 results to {out}, 2 were there\n",
    )


def test_an_interrupt_while_a_result_is_counted_leaves_none_uncounted(
    images: Path, tmp_path: Path, server: LiveServer
) -> None:
    out = tmp_path / "out"
    said = ended(started(images, "-o", out, "--url", server.url, script=WHILE_COUNTING))
    made = len(list((out / ".unet" / "receipts").iterdir()))
    assert 0 < made < IMAGES
    assert said[0] == 130
    assert f"interrupted after {made} of {IMAGES} images" in said[2]


def test_an_interrupted_run_lists_what_had_failed_and_keeps_what_was_listed_of_the_rest(
    images: Path, tmp_path: Path, server: LiveServer
) -> None:
    out = tmp_path / "out"
    for image in images.iterdir():
        image.write_bytes(b"junk")
    assert ended(started(images, "-o", out, "--url", server.url))[0] == 1
    for entry in (entries := json.loads((out / "failures.json").read_bytes())):
        entry["message"] = "of the first run"
    (out / "failures.json").write_text(json.dumps(entries))
    with stalling(server, finished=2) as stalled:
        process = started(images, "-o", out, "--url", stalled.url, "--in-flight", str(IN_FLIGHT))
        for _ in range(IN_FLIGHT):
            assert stalled.stalled.acquire(timeout=WAIT_S)
        process.send_signal(signal.SIGTERM)
        status, _, said = ended(process)
    assert status == 143
    assert f"interrupted after 2 of {IMAGES} images (2 failed); the same command goes on with the rest; " in said
    assert f"2 failed, {out}/failures.json lists them\n" in said
    messages = [entry["message"] for entry in json.loads((out / "failures.json").read_bytes())]
    assert len(messages) == IMAGES
    assert sum(message != "of the first run" for message in messages) == 2


def test_an_interrupt_while_one_image_is_away_writes_nothing(images: Path, tmp_path: Path, server: LiveServer) -> None:
    target = tmp_path / "out" / "mask.png"
    with stalling(server, finished=0) as stalled:
        process = started(images / "0.png", "-o", target, "--url", stalled.url)
        assert stalled.stalled.acquire(timeout=WAIT_S)
        process.send_signal(signal.SIGINT)
        said = ended(process)
        assert stalled.hung_up.acquire(timeout=WAIT_S)
    words = f"unet-service: interrupted; {target} is not written, the same command begins anew\n"
    assert said == (130, "", words)
    assert not target.parent.exists()


@pytest.mark.parametrize("script", [WHILE_LOADING, WHILE_IMPORTING], ids=["packages", "modules"])
def test_an_interrupt_while_something_loads_is_said_and_nothing_else(images: Path, tmp_path: Path, script: str) -> None:
    said = ended(started(images / "0.png", "--out", tmp_path / "out", script=script))
    assert said == (130, "", "unet-service: interrupted\n")


def test_a_second_interrupt_ends_the_process_without_a_word(images: Path, tmp_path: Path) -> None:
    said = ended(started(images, "--out", tmp_path / "out", "--url", "http://127.0.0.1:1", script=TWICE))
    assert said == (-signal.SIGINT, "", "")
