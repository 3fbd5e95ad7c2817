"""Whoever waits for a job of another replica holds none up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.jobs.folder import JobsFolder
from tests.e2e.test_running import metric, wait_for_metric
from tests.jobs import job_record
from tests.live import LiveServer, live_server

JOB = "a" * 32


@pytest.fixture
def drain_delay_s() -> float:
    return 0


@pytest.fixture
def idle(packages: Path, tmp_path: Path, drain_delay_s: float) -> Iterator[LiveServer]:
    """A replica with nothing in work, beside one that gives no sign of life."""
    JobsFolder(tmp_path / "jobs", 1 << 20, 60).create(job_record(JOB, user=None))
    with live_server(tmp_path, packages, jobs_dir=tmp_path / "jobs", drain_delay_s=drain_delay_s) as server:
        yield server


@pytest.mark.parametrize("path", [f"/jobs/{JOB}", f"/jobs/{JOB}/result"])
def test_who_hangs_up_is_not_waited_for(idle: LiveServer, path: str) -> None:
    cancelled = metric(idle.url, "unet_cancelled_total")
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{idle.url}{path}", params={"wait": 50}, timeout=httpx.Timeout(30, read=0.3))
    wait_for_metric(idle.url, "unet_cancelled_total", cancelled + 1)
    assert metric(idle.url, "unet_cancelled_total", reason="waiting") == 1


@pytest.mark.parametrize("drain_delay_s", [3])
def test_a_replica_that_drains_answers_at_once_how_far_another_is(idle: LiveServer) -> None:
    """If it held the answer back the job would be lost by then."""
    with ThreadPoolExecutor(1) as background:
        answer = background.submit(httpx.get, f"{idle.url}/jobs/{JOB}", params={"wait": 50}, timeout=60)
        idle.terminate()
        assert answer.result().json()["state"] == "running"
        assert "Retry-After" in answer.result().headers
        assert idle.process.wait(30) == 0
