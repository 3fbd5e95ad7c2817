"""One running service, one calibrated 16 bit image, and lab software as programs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from urllib.parse import quote, unquote

import httpx
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from service.client import Client
from tests.images import disc
from tests.live import LiveServer, live_tiny

HERE = Path(__file__).resolve().parent
CLIENTS = HERE.parents[1] / "clients"
PIXEL_UM = 0.325
SECRET = "9f+8/e@7:d%6c5b4a32z1y0x"  # noqa: S105 - of this test; its signs need encoding in an address
LARGE = np.zeros((4096, 4096), np.uint16)  # more bytes than the sockets of both ends hold
IMAGE = np.tile(disc(64, 64).astype(np.uint16) * 200, (4, 6))  # 24 discs on 256 x 384 px


LONGEST_S = 120  # that a program may run
AWAY_S = 1.5  # more than programs wait before they ask a service again that was lost
LOSSES_OF_A_JOB = ("none", "early", "half", "away")


@dataclass(frozen=True, slots=True)
class Cells:
    """An image file, and what the service finds in it when asked straight."""

    path: Path
    labels: NDArray[np.uint16]
    rois: bytes


@dataclass(frozen=True, slots=True)
class Program:
    """A command, run in a folder of its own with home and temporary files in it."""

    command: tuple[str, ...]
    folder: Path
    screen: str = ""
    """Where its windows are shown."""

    @property
    def temporary(self) -> Path:
        return self.folder / "temporary"

    def environment(self) -> dict[str, str]:
        """Variables of the program, whose temporary folder is there then."""
        self.temporary.mkdir(exist_ok=True)
        # programs that run for two seconds are not worth compiling twice: a third of their time
        java = f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Djava.io.tmpdir={self.temporary} -Duser.home={self.folder}"
        environment = {
            **os.environ,
            "HOME": str(self.folder),
            "TMPDIR": str(self.temporary),
            "JAVA_TOOL_OPTIONS": java,
        }
        if self.screen:
            environment["DISPLAY"] = self.screen
        return environment

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["timeout", "--kill-after=5", str(LONGEST_S), *self.command, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    def left_behind(self) -> list[str]:
        """Names of files of ours among the temporary ones."""
        return sorted(path.name for path in self.temporary.rglob("*") if path.name.startswith(("unet", "oct")))


@dataclass(frozen=True, slots=True)
class KeptGroovy:
    """Groovy that has been started, and runs scripts one after the other as if it were started for each."""

    program: Program
    process: subprocess.Popen[str]

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        asked = json.dumps([*map(str, arguments)])
        end = threading.Timer(LONGEST_S, self.process.kill)
        end.start()
        try:
            print(asked, file=self.process.stdin, flush=True)
            status, said, errors = json.loads(self.process.stdout.readline())
        finally:
            end.cancel()
        return subprocess.CompletedProcess(asked, status, said, errors)

    def left_behind(self) -> list[str]:
        return self.program.left_behind()


@dataclass(slots=True)
class Proxy:
    """What stands before the service and loses answers: the paths asked for, and the bodies that came with them."""

    url: str
    asked: list[str] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer requests on a free port in a thread; yields the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def refusal(status: int, retry_after: str | None = None) -> httpx.Response:
    """What a service says that does not do what it is asked for; when to ask again where it is given."""
    headers = {"Content-Type": "application/problem+json"}
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    return httpx.Response(status, headers=headers, json={"type": "/problems/refused", "detail": "it is refused"})


@contextmanager
def losing_proxy(server: LiveServer, losses: Iterable[str | httpx.Response]) -> Iterator[Proxy]:
    """A proxy on a free port; of each answer its next loss keeps ``half`` of the body, or ``nothing``, then hangs up.

    One that goes ``away`` hangs up, too, and refuses connections for a while, as a service that is replaced does.
    One that comes ``early`` says that a job is not done; an answer is given in place of the service's. Answers come
    whole where a loss is ``none``, and when ``losses`` are used up.
    """
    left, over = iter(losses), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server: ThreadingHTTPServer

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            proxy.sent.append(body)
            wishes = {name: self.headers[name] for name in ("Prefer",) if name in self.headers}
            self.pass_on(lambda: httpx.post(server.url + self.path, content=body, headers=wishes, timeout=60))

        def do_GET(self) -> None:
            self.pass_on(lambda: httpx.get(server.url + self.path, timeout=60))

        def pass_on(self, ask: Callable[[], httpx.Response]) -> None:
            proxy.asked.append(self.path)
            loss = next(left, "none")
            self.close_connection = loss in {"half", "nothing", "away"}
            if loss == "away":
                self.be_replaced()
            if loss in {"nothing", "away"}:
                return
            if loss == "early":
                loss = httpx.Response(409, json={"detail": "it is queued"})
            answer = loss if isinstance(loss, httpx.Response) else ask()
            self.send_response(answer.status_code)
            for name in ("Content-Type", "Content-Length", "Location", "Retry-After", "X-UNet-Receipt"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            self.wfile.write(answer.content[: len(answer.content) // 2] if loss == "half" else answer.content)

        def be_replaced(self) -> None:
            self.server.shutdown()
            self.server.socket.close()
            self.connection.shutdown(socket.SHUT_RDWR)
            if not over.wait(AWAY_S):
                self.server.socket = socket.socket()
                self.server.server_bind()
                self.server.server_activate()
                threading.Thread(target=self.server.serve_forever).start()

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        proxy = Proxy(url)
        try:
            yield proxy
        finally:
            over.set()


def of_a_replica_that_has_ended(problem: str) -> httpx.Response:
    """What is said of a job that nobody works on any more."""
    headers = {"Content-Type": "application/problem+json", "Retry-After": "1"}
    return httpx.Response(503, headers=headers, json={"type": f"/problems/{problem}", "detail": "it is lost"})


LOST_JOBS: tuple[str | httpx.Response, ...] = (
    "none",
    of_a_replica_that_has_ended("job-lost"),
    "none",
    of_a_replica_that_has_ended("unknown-job"),
)
"""Losses of a job that is sent, and lost, and sent again, and lost again."""


def assert_asked_as_a_job(proxy: Proxy) -> None:
    """Sent once, then asked for its result: too early, twice in vain, also of a service that is away, and once more."""
    sent, *asked = proxy.asked
    assert sent.startswith("/segment?")
    assert "respond_async=true" in unquote(sent)
    assert len(asked) == len(LOSSES_OF_A_JOB)
    assert len(set(asked)) == 1
    assert re.fullmatch(r"/jobs/[0-9a-f]{32}/result\?wait=50", asked[0])


@contextmanager
def hasty_server(*refusals: str) -> Iterator[Proxy]:
    """A server that hangs up before it has read more than the headers; says its next refusal first, where there is one.

    Bytes that nobody reads make the kernel reset the connection, in the middle of a body of some megabytes.
    """
    left = iter(refusals)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hasty.asked.append(self.path)
            if detail := next(left, ""):
                body = json.dumps({"detail": detail}).encode()
                self.send_response(413)
                self.send_header("Content-Type", "application/problem+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        hasty = Proxy(url)
        yield hasty


@contextmanager
def busy_server(retry_after: str) -> Iterator[Proxy]:
    """A server that refuses 20 requests with ``Retry-After``, and each later one without."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            busy.asked.append(self.path)
            self.send_response(503)
            if len(busy.asked) <= 20:
                self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(b"busy")

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        busy = Proxy(url)
        yield busy


def assert_patience_ends(script: ModuleType, ask: Callable[[str], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """It pauses between two requests also where nobody wants it to, and looks at the time of all of them."""
    monkeypatch.setattr(script, "_LONGEST_WAIT_S", 1)
    for retry_after, asked in (("0", 2), ("2", 1), ("\N{SUPERSCRIPT TWO}", 1)):
        with busy_server(retry_after) as busy:
            with pytest.raises(Exception, match="503: busy"):
                ask(busy.url)
            assert len(busy.asked) == asked
    monkeypatch.setattr(script, "_LONGEST_S", 0)  # as where each answer comes after minutes
    with busy_server("1") as busy, hasty_server() as hasty:
        with pytest.raises(Exception, match="503: busy"):
            ask(busy.url)
        with pytest.raises(Exception, match="broke off 1 times"):
            ask(hasty.url)
        assert len(busy.asked) == len(hasty.asked) == 1


def assert_no_other_server_is_heard(ask: Callable[[str], object]) -> None:
    """It knows a page that is no result, and follows nobody to another server."""
    with gate(200) as page, pytest.raises(Exception, match=f"{page} is another server, or a page to log in: give the"):
        ask(page)
    for status in (301, 302, 303, 307, 308):
        with gate(200) as elsewhere, gate(status, Location=with_key(elsewhere, SECRET) + "/login") as url:
            with pytest.raises(Exception, match=f"{url} has moved: it answers {status}") as refusal:
                ask(with_key(url, SECRET))
            assert str(refusal.value).endswith(f"and names {elsewhere}/login; give the address there")


BUSY: tuple[str | httpx.Response, ...] = (
    refusal(503, "0"),
    *(refusal(status, "1") for status in (504, 502, 503, 503)),
    "half",
)
"""Losses of a service that has work for some seconds."""

REFUSALS_TO_THE_END = [
    pytest.param([refusal(504)], id="no word of when"),
    pytest.param([refusal(500)], id="failed"),
    pytest.param([refusal(503, "1000")], id="too long"),
    pytest.param([refusal(503, "0"), refusal(503, "120")], id="too long together"),
]
"""Refusals of which the last one is final."""

refusals_of_a_proxy = pytest.mark.parametrize(
    ("status", "user", "words"),
    [
        (401, "", "wants user and password, or a key"),
        (401, "alice:secret@", "does not know the user and password, or the key"),
        (403, "alice:secret@", "knows who asks, and does not allow it (403)"),
    ],
    ids=["no key", "another key", "forbidden"],
)
"""Status of a refusal, what stands before the @ of the address, and words that a script has for it."""

refusals_in_words = pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        (None, {"threshold": 7}, "threshold is '7', it should be less than 1"),
        ("http://alice:secret@127.0.0.1:1", {}, "no service answers at http://127.0.0.1:1"),
        ("alice:secret@host", {}, "the address is 'host', it should begin with http"),
    ],
)
"""Address, the service's own where there is none, parameters, and words; none of them has the password."""


def loaded(path: str) -> ModuleType:
    """A script below ``clients/`` as a module."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), CLIENTS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def installed(*names: str) -> None:
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A service of default settings with package ``tiny``."""
    with live_tiny(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The same behind a key, :data:`SECRET`."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "keys").write_text(f"microscope:{SECRET}\n")
    with live_tiny(folder, api_keys_file=folder / "keys") as running:
        yield running


def with_key(url: str, key: str) -> str:
    """The address with a user name and ``key`` as its password."""
    return url.replace("://", f"://any%20one:{quote(key, safe='')}@")


@contextmanager
def gate(status: int, **headers: str) -> Iterator[str]:
    """A proxy in front of nothing, which answers with ``status`` and a page of its own; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in {"Content-Type": "text/html", "Content-Length": "12", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"<h1>no</h1>\n")

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        yield url


@pytest.fixture(scope="session")
def cells(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """24 objects, 16 bit, calibrated in micrometres; blanks and signs in the path."""
    path = tmp_path_factory.mktemp("data & more") / "my cells.tif"
    scale = 1 / PIXEL_UM
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(scale, scale), metadata={"unit": "micron"})
    with Client(server.url) as client:
        labels = client.segment_array(path, output="labels")
        rois = client.segment(path, output="labels", format="rois")
    assert labels.max() == 24
    return Cells(path, labels, rois)


@pytest.fixture(scope="session")
def screen() -> Iterator[str]:
    """A screen that nobody sees, for one program after the other."""
    installed("Xvfb")
    told, tells = os.pipe()
    with subprocess.Popen(["Xvfb", "-displayfd", str(tells), "-noreset"], pass_fds=[tells]) as server:
        os.close(tells)
        with open(told) as number:  # noqa: PTH123 - it has no path
            yield f":{number.readline().strip()}"
        server.terminate()


@pytest.fixture
def imagej(tmp_path: Path, screen: str) -> Program:
    """ImageJ 1.x."""
    installed("imagej", "curl")
    return Program(("imagej",), tmp_path, screen)


@pytest.fixture
def groovy(tmp_path: Path, screen: str) -> Program:
    """Groovy with ImageJ's classes, as Fiji has them."""
    installed("imagej", "groovy")
    return Program(("groovy", "-cp", "/usr/share/java/ij.jar"), tmp_path, screen)


@pytest.fixture
def cellprofiler(tmp_path: Path) -> Program:
    """Shell with CellProfiler 4."""
    installed("cellprofiler")
    return Program(("bash", "-ec"), tmp_path)


@pytest.fixture(scope="session")
def kept_groovy(tmp_path_factory: pytest.TempPathFactory, screen: str) -> Iterator[KeptGroovy]:
    """The same with QuPath's stand-ins, started once: a start takes ten times as long as a script."""
    installed("imagej", "groovy")
    classes = f"/usr/share/java/ij.jar:{HERE / 'standins'}"
    program = Program(("groovy", "-cp", classes, str(HERE / "kept.groovy")), tmp_path_factory.mktemp("groovy"), screen)
    with subprocess.Popen(
        program.command,
        cwd=program.folder,
        env=program.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield KeptGroovy(program, process)


@pytest.fixture
def octave(tmp_path: Path) -> Program:
    """GNU Octave without a screen."""
    installed("octave-cli", "curl")
    return Program(("octave-cli", "--norc", "--quiet", "--path", str(CLIENTS / "matlab")), tmp_path)
