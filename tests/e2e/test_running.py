"""The running service: clients that leave, signals, probes and memory under a large image."""

from __future__ import annotations

import json
import os
import pty
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from service.client import Client
from tests.images import disc, png, tiff
from tests.live import LiveServer, hang_up_means, live_server
from tests.problems import assert_problem


def many_discs(size: int) -> NDArray[np.uint16]:
    """Return a 16 bit image of ``size`` x ``size`` px with a bright disc in each 64 x 64 px."""
    return np.tile(disc(64, 64).astype(np.uint16) * 200, (size // 64, size // 64))


def metric(url: str, name: str, /, **labels: str) -> float:
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    total: float = sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())
    return total


def wait_for_metric(url: str, name: str, expected: float, /, **labels: str) -> None:
    until = time.monotonic() + 30
    while metric(url, name, **labels) != expected:
        assert time.monotonic() < until, f"{name} is {metric(url, name, **labels)}, not {expected}"
        time.sleep(0.01)


def test_the_client_sends_files_and_arrays_to_a_real_service(server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(disc()))
    with Client(server.url) as client:
        from_array = client.segment_array(disc(), output="labels")
        from_file = client.segment_array(tmp_path / "a.tif", output="labels")
        assert client.models()["models"][0]["name"] == "tiny"
        assert client.plan(disc().shape)["refusal"] is None
    np.testing.assert_array_equal(from_array, from_file)
    np.testing.assert_array_equal(from_array > 0, disc() > 110)


LARGE = many_discs(6016)
INFERENCE = json.dumps(
    {
        "inputs": [
            {
                "name": "image",
                "shape": LARGE.shape,
                "datatype": "UINT16",
                "parameters": {"binary_data_size": LARGE.nbytes},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
).encode()


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        pytest.param("/segment", tiff(LARGE), {}, id="segment"),
        pytest.param(
            "/v2/models/tiny/infer",
            INFERENCE + LARGE.tobytes(),
            {"Inference-Header-Content-Length": str(len(INFERENCE))},
            id="infer",
        ),
    ],
)
def test_a_client_that_hangs_up_cancels_its_work(
    server: LiveServer, path: str, body: bytes, headers: dict[str, str]
) -> None:
    cancelled = metric(server.url, "unet_cancelled_total")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}{path}", content=body, headers=headers, timeout=httpx.Timeout(30, read=0.15))
    wait_for_metric(server.url, "unet_cancelled_total", cancelled + 1)
    wait_for_metric(server.url, "unet_in_flight", 0)
    assert metric(server.url, "unet_backlog_pixels") == 0
    assert httpx.post(f"{server.url}/segment", content=png(disc())).status_code == 200


def test_sigterm_during_a_request_answers_it_and_exits_with_0(packages: Path, tmp_path: Path) -> None:
    large = tiff(many_discs(4096))
    with live_server(tmp_path, packages, drain_delay_s=5) as server, ThreadPoolExecutor(1) as background:
        asked = {"output": "labels", "format": "tiff"}
        answer = background.submit(httpx.post, f"{server.url}/segment", content=large, params=asked, timeout=120)
        wait_for_metric(server.url, "unet_in_flight", 1)
        server.terminate()
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        assert httpx.get(f"{server.url}/livez").status_code == 200
        late = httpx.post(f"{server.url}/segment", content=png(disc()))
        assert (late.status_code, late.headers["Connection"]) == (200, "close"), "no balancer may have noticed yet"
        assert answer.result().status_code == 200
        assert server.process.wait(30) == 0
        assert server.events()[-1]["message"] == "stopped"


@pytest.mark.parametrize(("grace_s", "state"), [(60, "done"), (0, "failed")])
def test_sigterm_gives_jobs_the_time_of_requests_and_another_replica_tells(
    packages: Path, tmp_path: Path, grace_s: int, state: str
) -> None:
    jobs = tmp_path / "jobs"
    large = tiff(many_discs(4096))
    with live_server(tmp_path, packages, jobs_dir=jobs, shutdown_grace_s=grace_s) as server:
        asked = {"output": "labels", "format": "tiff", "respond_async": "true"}
        accepted = httpx.post(f"{server.url}/segment", content=large, params=asked, timeout=60)
        assert accepted.status_code == 202
        server.terminate()
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log.read_text()
    with live_server(tmp_path, packages, jobs_dir=jobs) as another:
        assert httpx.get(f"{another.url}{accepted.headers['Location']}").json()["state"] == state
        result = httpx.get(f"{another.url}{accepted.headers['Location']}/result")
        if state == "done":
            assert result.status_code == 200
        else:
            assert (result.status_code, result.json()["type"]) == (503, "/problems/draining")


def test_behind_a_proxy_that_strips_a_prefix_links_carry_it(packages: Path, tmp_path: Path) -> None:
    with live_server(tmp_path, packages, root_path="/unet") as server:
        text = httpx.get(f"{server.url}/docs").text
        assert 'src="/unet/docs/assets/swagger-ui-bundle.js"' in text
        assert "url: '/unet/openapi.json'" in text
        assert httpx.get(f"{server.url}/docs/assets/swagger-ui-bundle.js").status_code == 200
        assert httpx.post(f"{server.url}/segment", content=png(disc())).status_code == 200
        assert metric(server.url, "unet_requests_total", status="200") == 1
        job = httpx.post(f"{server.url}/segment", content=png(disc()), headers={"Prefer": "respond-async"})
        assert job.headers["Location"] == f"/unet/jobs/{job.json()['id']}"
        assert httpx.get(f"{server.url}/openapi.json").json()["servers"] == [{"url": "/unet"}]
        unstripped = assert_problem(httpx.get(f"{server.url}/unet/models"), 404, "not-found")["detail"]
        assert "the proxy is to strip /unet (UNET_ROOT_PATH) from the path" in unstripped
        elsewhere = assert_problem(httpx.get(f"{server.url}/united"), 404, "not-found")["detail"]
        assert elsewhere == "'/unet/united' does not exist; see /unet/docs for the paths that do"


def test_sigterm_during_an_upload_lets_it_finish(packages: Path, tmp_path: Path) -> None:
    body = tiff(many_discs(1024))
    gate = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield body[: len(body) // 2]
        gate.wait(30)
        yield body[len(body) // 2 :]

    with live_server(tmp_path, packages) as server, ThreadPoolExecutor(1) as background:
        answer = background.submit(httpx.post, f"{server.url}/segment", content=slowly(), timeout=60)
        wait_for_metric(server.url, "unet_in_flight", 1)
        server.terminate()
        time.sleep(0.5)
        assert server.process.poll() is None
        gate.set()
        assert answer.result().status_code == 200
        assert server.process.wait(30) == 0


@pytest.mark.parametrize("grace_s", [0, 1])
def test_what_outlives_the_grace_is_told_to_come_again(packages: Path, tmp_path: Path, grace_s: int) -> None:
    gate = threading.Event()

    def never_whole() -> Iterator[bytes]:
        yield png(disc())[:100]
        gate.wait(30)

    large = tiff(many_discs(8192), compression="zlib", rowsperstrip=64)
    with (
        live_server(tmp_path, packages, shutdown_grace_s=grace_s) as server,
        ThreadPoolExecutor(2) as background,
    ):
        computing = background.submit(
            httpx.post, f"{server.url}/segment", content=large, params={"output": "labels"}, timeout=60
        )
        wait_for_metric(server.url, "unet_stage_seconds_count", 1, stage="decode")
        uploading = background.submit(httpx.post, f"{server.url}/segment", content=never_whole(), timeout=60)
        wait_for_metric(server.url, "unet_in_flight", 2)
        server.terminate()
        assert server.process.wait(30) == 0
        gate.set()
        for answer in (computing.result(), uploading.result()):
            problem = assert_problem(answer, 503, "draining")
            assert f"{grace_s} s" in problem["detail"]
            assert int(answer.headers["Retry-After"]) >= 1
        assert "Traceback" not in server.log.read_text()


def test_an_answer_on_its_way_at_the_end_of_the_grace_breaks_off(packages: Path, tmp_path: Path) -> None:
    large = tiff(many_discs(4096))
    asked = {"output": "probabilities", "format": "npy"}
    with (
        live_server(tmp_path, packages, shutdown_grace_s=1, memory_budget_mb=256) as server,
        httpx.stream("POST", f"{server.url}/segment", content=large, params=asked, timeout=60) as answer,
    ):
        assert answer.status_code == 200
        server.terminate()
        assert server.process.wait(30) == 0
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
        assert "Traceback" not in server.log.read_text()
        assert any("send it again" in event["message"] for event in server.events())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_idle_drains_and_exits_with_0(packages: Path, tmp_path: Path, number: signal.Signals) -> None:
    with live_server(tmp_path, packages, drain_delay_s=1) as server:
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        assert [event["message"] for event in server.events()][-2:] == ["draining", "stopped"]


def test_a_terminal_that_is_closed_drains_it(packages: Path, tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    with hang_up_means(signal.SIG_DFL), live_server(tmp_path, packages, terminal=terminal, drain_delay_s=1) as server:
        os.close(terminal)
        os.close(screen)
        assert server.process.wait(30) == 0
        assert [event["message"] for event in server.events()][-2:] == ["draining", "stopped"]


def test_where_nobody_shall_notice_that_the_terminal_is_gone_nothing_ends(packages: Path, tmp_path: Path) -> None:
    """As under ``nohup``."""
    with hang_up_means(signal.SIG_IGN), live_server(tmp_path, packages) as server:
        server.process.send_signal(signal.SIGHUP)
        assert httpx.get(f"{server.url}/readyz").json()["ready"]


def test_a_large_image_keeps_memory_bounded_while_probes_answer(packages: Path, tmp_path: Path) -> None:
    """How quickly they answer is measured by ``benchmarks/probes.py``."""
    large = tiff(many_discs(4096), compression="zlib", rowsperstrip=64)
    with live_server(tmp_path, packages) as server, httpx.Client(base_url=server.url, timeout=120) as probe:
        process = psutil.Process(server.process.pid)
        peak = 0
        with ThreadPoolExecutor(1) as background:
            for output in ("mask", "labels"):
                asked = {"output": output, "format": "tiff"}
                answer = background.submit(
                    httpx.post, f"{server.url}/segment", content=large, params=asked, timeout=120
                )
                while not answer.done():
                    assert probe.get("/livez").status_code == 200
                    peak = max(peak, process.memory_info().rss)
                    time.sleep(0.005)
                assert answer.result().status_code == 200
    assert 0 < peak < 2500 << 20
