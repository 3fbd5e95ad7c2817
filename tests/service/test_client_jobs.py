"""The client's jobs: in other threads, in order, and broken off at once; against a running service where it matters."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.client import RECEIPT, Client, HungUp, Image, ServiceProblem
from tests.e2e.test_running import many_discs, metric, wait_for_metric
from tests.images import disc, npy, tiff
from tests.live import LiveServer, live_tiny, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_tiny(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.mark.parametrize("by", ["closing the client", "cancelling the job"])
def test_hanging_up_raises_at_once_and_the_service_drops_the_work(server: LiveServer, by: str) -> None:
    """The service is stopped meanwhile: it can neither answer nor be the reason why the wait ends."""
    before = [event.get("status") for event in server.events()].count(499)
    with Client(server.url) as client, ThreadPoolExecutor(1) as threads:
        job = client.submit(many_discs(4096), output="labels", mirror=True)
        waiting = threads.submit(job.result)
        wait_for_metric(server.url, "unet_in_flight", 1)
        server.process.send_signal(signal.SIGSTOP)
        try:
            assert not job.done()
            if by == "closing the client":
                client.close()
            else:
                assert job.cancel()
            with pytest.raises(HungUp, match="closed, or the job cancelled"):
                waiting.result(30)
        finally:
            server.process.send_signal(signal.SIGCONT)
        wait_until(lambda: [event.get("status") for event in server.events()].count(499) == before + 1)
        wait_for_metric(server.url, "unet_in_flight", 0)
        assert metric(server.url, "unet_backlog_pixels") == 0
        assert (job.done(), job.cancel()) == (True, False)
        if by == "cancelling the job":
            assert client.segment_array(disc()).shape == disc().shape


def test_closing_ends_a_call_in_any_thread_and_there_is_no_other(server: LiveServer) -> None:
    with ThreadPoolExecutor(1) as threads:
        client = Client(server.url)
        waiting = threads.submit(client.segment, many_discs(4096), output="labels", mirror=True)
        wait_for_metric(server.url, "unet_in_flight", 1)
        server.process.send_signal(signal.SIGSTOP)
        try:
            client.close()
            with pytest.raises(HungUp):
                waiting.result(30)
        finally:
            server.process.send_signal(signal.SIGCONT)
    wait_for_metric(server.url, "unet_in_flight", 0)
    client.close()
    for ask in (client.models, lambda: client.segment(b"image"), lambda: client.submit(b"image")):
        with pytest.raises(HungUp, match="the client is closed; make another"):
            ask()


def server_context(folder: Path) -> ssl.SSLContext:
    """TLS as localhost, with a certificate in ``folder / "certificate.pem"`` that it has signed itself."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    name = ["-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", *kind, *name, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("size", [10, 64_000_000], ids=["after the upload", "during the upload"])
def test_closing_ends_the_connection_and_the_other_side_sees_it(
    scheme: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The larger body is more than the system takes on by itself, so that the client waits until it can send more."""
    context = server_context(tmp_path) if scheme == "https" else None
    if context:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as threads:
        client = Client(f"{scheme}://localhost:{listening.getsockname()[1]}")
        waiting = threads.submit(client.segment, bytes(size))
        accepted, _ = listening.accept()
        with context.wrap_socket(accepted, server_side=True) if context else accepted as connection:
            assert connection.recv(1000).startswith(b"POST /segment")
            client.close()
            with pytest.raises(HungUp):
                waiting.result(30)
            connection.settimeout(30)
            received = 0
            while part := connection.recv(1 << 20):
                received += len(part)
        assert received < 64_000_000
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):  # nobody asks again
            listening.accept()


def test_closing_ends_the_patience_with_a_busy_server() -> None:
    asked = threading.Event()

    def busy(_: httpx.Request) -> httpx.Response:
        asked.set()
        return httpx.Response(503, headers={"Retry-After": "90"})

    client = Client("http://x", transport=httpx.MockTransport(busy))
    job = client.submit(b"image")
    asked.wait()
    asked.clear()
    client.close()
    with pytest.raises(HungUp):
        job.result(30)
    for thread in threading.enumerate():
        if thread.name == "unet-client":
            thread.join(30)
    assert not asked.is_set()  # a second time


def polls(server: LiveServer) -> list[str]:
    """Of which jobs has been asked how far they are."""
    return [event["job"] for event in server.events() if event.get("method") == "GET" and "job" in event]


def deleted(server: LiveServer, job: str) -> bool:
    return httpx.get(f"{server.url}/jobs/{job}").status_code == 404


@pytest.mark.parametrize("respond_async", [False, True], ids=["request", "job of the service"])
def test_an_interrupt_of_a_call_hangs_up(
    server: LiveServer, respond_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.client.exchange._LONGEST_POLL_S", 0.1)
    asked = len(polls(server))
    interrupted = threading.Event()

    def interrupt() -> None:
        wait_for_metric(server.url, "unet_in_flight", 1)
        wait_until(lambda: not respond_async or len(polls(server)) > asked)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        interrupted.set()

    with Client(server.url) as client:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            client.segment(many_discs(4096), output="labels", mirror=True, respond_async=respond_async)
        assert interrupted.wait(30)
        thread.join()
        assert not respond_async or deleted(server, polls(server)[asked])
        wait_for_metric(server.url, "unet_in_flight", 0)
        assert client.segment_array(disc()).shape == disc().shape


def test_a_job_has_an_array_or_the_bytes_asked_for_and_its_receipt(server: LiveServer, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(disc()))
    with Client(server.url) as client:
        for image in (path, str(path), path.read_bytes(), disc()):
            job = client.submit(image, output="labels")
            np.testing.assert_array_equal(job.result() > 0, disc() > 110)
            assert job.done()
            assert json.loads(job.answer().headers[RECEIPT])["input"]["size_yx"] == list(disc().shape)
        assert client.submit(path, format="tiff").result() == client.segment(path, format="tiff")


def test_an_array_may_be_changed_as_soon_as_it_is_submitted() -> None:
    gate = threading.Event()
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        gate.wait(30)
        bodies.append(request.read())
        return httpx.Response(200, headers={RECEIPT: "{}"}, content=npy(disc()))

    frame = np.zeros((2, 2), np.uint8)
    with Client("http://x", transport=httpx.MockTransport(answer)) as client:
        jobs = [client.submit(frame) for _ in range(40)]  # the last ones wait for a thread
        frame[:] = 255
        gate.set()
        for job in jobs:
            job.result(30)
    assert set(bodies) == {npy(np.zeros((2, 2), np.uint8))}


def test_who_has_no_time_asks_again() -> None:
    gate = threading.Event()

    def answer(_: httpx.Request) -> httpx.Response:
        gate.wait(30)
        return httpx.Response(200, headers={RECEIPT: "{}"}, content=npy(disc()))

    with Client("http://x", transport=httpx.MockTransport(answer)) as client:
        job = client.submit(b"image")
        with pytest.raises(TimeoutError, match="no result after 0 s; ask again, or cancel"):
            job.result(timeout=0)
        gate.set()
        np.testing.assert_array_equal(job.result(30), disc())


def test_a_map_keeps_the_order_and_no_more_under_way_than_it_may() -> None:
    lock, second = threading.Lock(), threading.Event()
    under_way, most = 0, 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        number = int(request.read())
        with lock:
            under_way += 1
            most = max(most, under_way)
        if number == 0:
            assert second.wait(30)  # the first image is answered last
        second.set()
        with lock:
            under_way -= 1
        return httpx.Response(200, headers={RECEIPT: "{}"}, content=npy(np.array([number])))

    told: list[tuple[int, int | None]] = []
    images = [b"%d" % number for number in range(9)]
    with Client("http://x", transport=httpx.MockTransport(answer)) as client:
        results = client.map(images, workers=2, progress=lambda *now: told.append(now))
        assert [int(result[0]) for result in results] == list(range(9))
        assert told == [(number, 9) for number in range(1, 10)]
        assert most == 2
        assert len(list(client.map(iter(images), progress=lambda *now: told.append(now)))) == 9
        assert told[-1] == (9, None)
        for workers in (0, 33):
            with pytest.raises(ValueError, match=f"workers is {workers}; use 1 to 32"):
                client.map(images, workers=workers)


def test_a_map_waits_as_long_as_a_busy_server_says() -> None:
    lock, refused, slept = threading.Lock(), set[bytes](), list[float]()

    def answer(request: httpx.Request) -> httpx.Response:
        with lock:
            if (body := request.read()) not in refused:
                refused.add(body)
                return httpx.Response(503, headers={"Retry-After": "7"})
        return httpx.Response(200, headers={RECEIPT: "{}"}, content=npy(disc()))

    with Client("http://x", transport=httpx.MockTransport(answer), sleep=slept.append) as client:
        assert len(list(client.map([b"a", b"b", b"c"]))) == 3
    assert slept == [7, 7, 7]


def test_the_failure_of_one_image_leaves_the_others_to_be_had(server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_text("text")
    (tmp_path / "good.tif").write_bytes(tiff(disc()))
    images: list[Image] = [tmp_path / "bad.tif", tmp_path / "good.tif", tmp_path / "none.tif", disc(), b"", disc()]
    outcomes: list[object] = []
    with Client(server.url) as client:
        results = client.map(images, workers=3, output="labels")
        for _ in images:
            try:
                outcomes.append(next(results).shape)
            except (ServiceProblem, OSError) as error:
                outcomes.append(type(error))
        with pytest.raises(StopIteration):
            next(results)
    assert outcomes == [ServiceProblem, disc().shape, FileNotFoundError, disc().shape, ServiceProblem, disc().shape]


def test_a_map_that_is_dropped_or_whose_client_is_closed_asks_for_nothing_more() -> None:
    gate = threading.Event()
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(body := request.read())
        if body != b"0":
            gate.wait(30)
        return httpx.Response(200, headers={RECEIPT: "{}"}, content=npy(disc()))

    images = [b"%d" % number for number in range(9)]
    client = Client("http://x", transport=httpx.MockTransport(answer))
    results = client.map(images, workers=2)
    next(results)
    del results
    results = client.map(images, workers=2)
    client.close()
    gate.set()
    with pytest.raises(HungUp):
        next(results)
    assert set(asked) <= {b"0", b"1"}


def test_a_job_of_the_service_is_waited_for_and_its_result_is_the_same(server: LiveServer) -> None:
    def fetched() -> int:
        paths = [event.get("path", "") for event in server.events()]
        return sum(path.startswith("/jobs/") and path.endswith("/result") for path in paths)

    before = fetched()
    with Client(server.url) as client:
        answer = client.answer(tiff(disc()), output="labels", format="tiff", respond_async=True)
        at_once = client.answer(tiff(disc()), output="labels", format="tiff")
        assert answer.content == at_once.content
        assert json.loads(answer.headers[RECEIPT])["output"]["objects"] == 1
        np.testing.assert_array_equal(client.submit(disc(), respond_async=True).result(), disc() > 110)

    wait_until(lambda: fetched() == before + 2)  # an answer is logged once it has been sent


@contextmanager
def cut_once(server: LiveServer, after: int) -> Iterator[str]:
    """Pass connections on to a server, but for the first that has brought so many bytes of answers, which is cut."""
    left = [after]

    def pass_on(one: socket.socket, other: socket.socket, *, answers: bool) -> None:
        with suppress(OSError):
            while piece := one.recv(1 << 16):
                other.sendall(piece)
                if answers and left:
                    left[0] -= len(piece)
                    if left[0] < 0:
                        left.clear()
                        break
        for line in (one, other):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                behind = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
                lines.extend((client, behind))
                threading.Thread(target=pass_on, args=(client, behind), kwargs={"answers": False}).start()
                threading.Thread(target=pass_on, args=(behind, client), kwargs={"answers": True}).start()

    lines: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(30)
    for line in lines:
        line.close()


def test_a_result_that_breaks_off_goes_on_where_it_did(server: LiveServer, tmp_path: Path) -> None:
    image = disc(1500, 2000, 300)
    before = len(server.events())
    with cut_once(server, after=1 << 20) as url, Client(url, sleep=lambda _: None) as client:
        with (tmp_path / "mask.npy").open("w+b") as into:
            client.segment_into(into, image, format="npy", respond_async=True)
        np.testing.assert_array_equal(np.load(tmp_path / "mask.npy"), client.segment_array(image))

    def fetched() -> list[tuple[int, int]]:
        answers = [event for event in server.events()[before:] if str(event.get("path", "")).endswith("/result")]
        return [(event["status"], event["bytes_out"]) for event in answers]

    wait_until(lambda: len(fetched()) == 2)
    ((_, all_of_it), (_, rest)) = sorted(fetched())
    assert sorted(status for status, _ in fetched()) == [200, 206]
    assert 0 < rest < image.size - (1 << 19), f"of {image.size}, {all_of_it} were sent before"


def test_a_download_that_breaks_off_and_goes_on_has_fetched_the_result(tmp_path: Path) -> None:
    with live_tiny(tmp_path, jobs_dir=tmp_path / "jobs") as running, httpx.Client(base_url=running.url) as http:
        asked = {"format": "npy", "respond_async": "true"}
        job = http.post("/segment", content=npy(disc(2000, 3000, 300)), params=asked).json()["id"]
        path, folder = f"/jobs/{job}/result", tmp_path / "jobs" / job
        wait_until(lambda: http.get(f"/jobs/{job}").json()["state"] == "done")
        with httpx.stream("GET", running.url + path) as broken:
            got = len(next(broken.iter_raw(1 << 16)))
        wait_until(lambda: (folder / "sent").exists() or (folder / "fetched").exists())
        rest = http.get(path, headers={"Range": f"bytes={got}-", "If-Range": broken.headers["etag"]})
        assert (rest.status_code, len(rest.content)) == (206, int(broken.headers["content-length"]) - got)
        wait_until((folder / "fetched").exists)


def test_why_a_job_of_the_service_failed_is_raised(server: LiveServer) -> None:
    image = disc().astype(np.float32)
    image[0, 0] = np.nan
    with Client(server.url) as client:
        with pytest.raises(ServiceProblem) as failure:
            client.segment(image, respond_async=True)
        assert (failure.value.status, failure.value.type) == (422, "/problems/non-finite-image")


def test_nobody_waiting_any_more_ends_the_job_of_the_service(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.client.exchange._LONGEST_POLL_S", 0.1)
    with Client(server.url) as client:
        job = client.submit(many_discs(4096), output="labels", mirror=True, respond_async=True)
        wait_until(lambda: metric(server.url, "unet_backlog_pixels") > 0)
        before = len(server.events())
        wait_until(lambda: any(event.get("path", "").startswith("/jobs/") for event in server.events()[before:]))
        assert job.cancel()
        with pytest.raises(HungUp):
            job.result()
        wait_for_metric(server.url, "unet_backlog_pixels", 0)
        wait_until(lambda: any(event.get("status") == 204 for event in server.events()))


def test_closing_waits_until_the_service_has_dropped_its_jobs(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that ends right after it takes the client's threads with it."""
    monkeypatch.setattr("service.client.exchange._LONGEST_POLL_S", 0.1)
    asked = len(polls(server))
    with Client(server.url) as client:
        for _ in range(2):
            client.submit(many_discs(2048), output="labels", mirror=True, respond_async=True)
        wait_until(lambda: len(set(polls(server)[asked:])) == 2)
    assert all(deleted(server, job) for job in set(polls(server)[asked:]))
    wait_for_metric(server.url, "unet_in_flight", 0)


@pytest.mark.parametrize(
    ("retry_after_s", "max_wait_s", "times"), [(None, 300.0, 1), (7, 300.0, 3), (7, 6.0, 1)], ids=str
)
def test_a_failed_job_is_sent_again_twice_where_it_says_when_and_that_is_soon_enough(
    retry_after_s: int | None, max_wait_s: float, times: int
) -> None:
    asked: list[str] = []
    waited: list[float] = []
    problem = {"status": 503, "type": "/problems/overloaded", "retry_after_s": retry_after_s}

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        over = {"state": "failed", "problem": {name: value for name, value in problem.items() if value is not None}}
        return httpx.Response(202, json={"id": "a"}) if request.method == "POST" else httpx.Response(200, json=over)

    transport = httpx.MockTransport(answer)
    with (
        Client("http://service", transport=transport, max_wait_s=max_wait_s, sleep=waited.append) as client,
        pytest.raises(ServiceProblem) as raised,
    ):
        client.segment(b"image", respond_async=True)
    assert (raised.value.type, raised.value.retry_after_s) == ("/problems/overloaded", retry_after_s)
    assert (asked, waited) == (["POST", "GET"] * times, [7.0] * (times - 1))


@pytest.mark.parametrize("asked_for", ["/jobs/a", "/jobs/a/result"])
@pytest.mark.parametrize("slug", ["unknown-job", "not-found"])
def test_a_job_that_a_new_replica_does_not_know_is_sent_again_thrice_in_all(asked_for: str, slug: str) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        if request.method == "POST":
            return httpx.Response(202, json={"id": "a"})
        if request.url.path != asked_for:
            return httpx.Response(200, json={"id": "a", "state": "done"})
        kind = {"content-type": "application/problem+json"}
        return httpx.Response(404, json={"type": f"/problems/{slug}", "status": 404}, headers=kind)

    with (
        Client("http://service", transport=httpx.MockTransport(answer)) as client,
        pytest.raises(ServiceProblem) as problem,
    ):
        client.segment(b"image", respond_async=True)
    assert problem.value.type == f"/problems/{slug}"
    times = 3 if slug == "unknown-job" else 1
    assert (asked.count("POST /segment"), asked.count(f"GET {asked_for}")) == (times, times)


@pytest.mark.parametrize("slug", ["job-lost", "draining"])
def test_a_job_whose_replica_has_ended_is_sent_again(slug: str) -> None:
    asked: list[str] = []
    lost = {"id": "b", "state": "failed", "problem": {"status": 503, "type": f"/problems/{slug}"}}

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        if request.method == "POST":
            return httpx.Response(202, json={"id": "ab"[asked.count("POST /segment") - 1]})
        if request.url.path.endswith("/result"):
            return httpx.Response(200, content=b"mask", headers={RECEIPT: "{}"})
        return httpx.Response(200, json=lost if request.url.path == "/jobs/a" else {"id": "b", "state": "done"})

    with Client("http://service", transport=httpx.MockTransport(answer)) as client:
        assert client.segment(b"image", respond_async=True) == b"mask"
    assert asked == ["POST /segment", "GET /jobs/a", "POST /segment", "GET /jobs/b", "GET /jobs/b/result"]


def test_a_result_that_another_replica_does_not_see_yet_is_asked_for_again() -> None:
    asked: list[str] = []
    early = {"type": "/problems/job-not-done", "status": 409, "title": "", "detail": ""}

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if request.method == "POST":
            return httpx.Response(202, json={"id": "a"})
        if not request.url.path.endswith("/result"):
            return httpx.Response(200, json={"state": "done"})
        if asked.count("/jobs/a/result") == 1:
            problem = {"Content-Type": "application/problem+json", "Retry-After": "2"}
            return httpx.Response(409, content=json.dumps(early), headers=problem)
        return httpx.Response(200, content=b"mask", headers={RECEIPT: "{}"})

    slept: list[float] = []
    with Client("http://service", transport=httpx.MockTransport(answer), sleep=slept.append) as client:
        assert client.segment(b"image", respond_async=True) == b"mask"
    assert (asked.count("/jobs/a/result"), slept) == (2, [2.0])


def test_what_is_no_job_of_the_service_is_said_so() -> None:
    other = Client("http://other", transport=httpx.MockTransport(lambda _: httpx.Response(202, json=[])))
    with other as client, pytest.raises(ServiceProblem, match="no U-Net"):
        client.segment(b"image", respond_async=True)
