"""Jobs over HTTP: accepted as a request is, looked after by any replica, answered as a request would have been."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from service.jobs.files import replace_record, stamp_of
from service.jobs.folder import JobsFolder
from service.jobs.inventory import Tally
from service.jobs.record import Record
from service.jobs.running import Running
from service.settings import Settings
from tests.app_client import AppClient, ready_app, running_app
from tests.images import disc, npy_declaring, png, tiff
from tests.problems import assert_problem

IMAGE = png(disc())
ASYNC = {"Prefer": "respond-async"}
ALICE, BOB = ({"Authorization": f"Bearer {name}-key-0123456789"} for name in ("alice", "bob"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs") / "shared"


@pytest.fixture(scope="module")
def replicas(settings: Settings, folder: Path) -> Iterator[tuple[AppClient, AppClient]]:
    """Two services that share a folder of jobs."""
    shared = settings.model_copy(update={"jobs_dir": folder})
    with running_app(shared) as one, running_app(shared) as other:
        one.wait_until_ready()
        other.wait_until_ready()
        yield one, other


@pytest.fixture(scope="module")
def one(replicas: tuple[AppClient, AppClient]) -> AppClient:
    return replicas[0]


def submit(client: AppClient, image: bytes = IMAGE, **options: Any) -> str:
    answer = client.segment(image, headers={**ASYNC, **options.pop("headers", {})}, **options)
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["id"]
    return job


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_job_is_accepted_at_once_and_says_where_to_ask(one: AppClient, gate: threading.Event) -> None:
    answer = one.segment(tiff(disc()), headers={"Prefer": "handling=lenient, Respond-Async; x=1"})
    assert answer.status_code == 202
    report = answer.json()
    assert answer.headers["location"] == f"/jobs/{report['id']}"
    assert answer.headers["preference-applied"] == "respond-async"
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert report["state"] in {"queued", "running"}
    assert (report["model"], report["output"], report["format"]) == ("tiny@1.10.0", "mask", "png")
    assert report["pixels"] == disc().size
    assert report["submitted"].endswith("Z")
    assert report["finished"] is None
    gate.set()


def test_a_job_waits_for_memory_that_others_hold(one: AppClient) -> None:
    ledger = one.app.state.engine._admission
    release = ledger.keep(ledger.memory_limit, 0)
    try:
        assert_problem(one.segment(IMAGE), 503, "overloaded")
        job = submit(one)
        assert one.get(f"/jobs/{job}", params={"wait": 0.5}).json()["state"] == "queued"
    finally:
        release()
    assert one.get(f"/jobs/{job}", params={"wait": 20}).json()["state"] == "done"


@pytest.mark.parametrize(
    "asked",
    [
        {"headers": ASYNC},
        {"params": {"respond_async": "true"}},
        {"files": {"image": ("a.png", IMAGE), "respond_async": (None, "1")}, "content": None},
    ],
    ids=["header", "query", "form"],
)
def test_the_result_is_the_answer_that_a_request_would_have_got(one: AppClient, asked: dict[str, Any]) -> None:
    job = one.request("POST", "/segment", **{"content": IMAGE, **asked}).json()["id"]
    done = one.get(f"/jobs/{job}", params={"wait": 20})
    result, plain = one.get(f"/jobs/{job}/result"), one.segment(IMAGE)
    assert (result.status_code, result.content) == (200, plain.content)
    assert set(result.headers) == {*plain.headers, "accept-ranges", "etag"}
    same = {"content-type", "content-length", "content-disposition", "vary"}
    assert {name: result.headers[name] for name in same} == {name: plain.headers[name] for name in same}
    receipts = [json.loads(answer.headers["x-unet-receipt"]) | {"stages_ms": {}} for answer in (result, plain)]
    assert receipts[0] == receipts[1]
    report = done.json()
    assert "retry-after" not in done.headers
    assert (report["state"], report["bytes"], report["problem"]) == ("done", len(plain.content), None)
    assert report["pixels_done"] == report["pixels"]
    assert report["submitted"] <= report["started"] <= report["finished"]


@pytest.mark.parametrize("form", ["tiff", "npy", "geojson", "csv"])
def test_every_format_comes_as_it_would_at_once(one: AppClient, form: str) -> None:
    asked = {"output": "labels", "format": form}
    result = one.get(f"/jobs/{submit(one, params=asked)}/result", params={"wait": 20})
    plain = one.segment(IMAGE, params=asked)
    assert result.headers["content-type"] == plain.headers["content-type"]
    assert len(result.content) == len(plain.content) if form != "npy" else result.content == plain.content


def test_a_result_is_no_answer_before_there_is_one(one: AppClient, gate: threading.Event) -> None:
    job = submit(one)
    early = one.get(f"/jobs/{job}/result", params={"wait": 0.05})
    assert early.status_code == 409
    assert early.json()["type"] == "/problems/job-not-done"
    assert early.headers["retry-after"] == str(early.json()["retry_after_s"])
    gate.set()
    assert one.get(f"/jobs/{job}/result", params={"wait": 20}).status_code == 200


def test_what_would_be_refused_is_refused_at_once_and_leaves_nothing(one: AppClient, folder: Path) -> None:
    before = set(folder.iterdir())
    assert_problem(one.segment(b"no image", headers=ASYNC), 415, "unsupported-image-format")
    assert_problem(one.segment(IMAGE, headers=ASYNC, params={"model": "nobody"}), 404, "unknown-model")
    assert_problem(one.segment(npy_declaring((2001, 2000)), headers=ASYNC), 413, "image-too-large")
    too_long = one.segment(IMAGE, headers=ASYNC, params={"timeout": 3601})
    assert "UNET_JOB_DEADLINE_S" in assert_problem(too_long, 422, "invalid-parameter")["detail"]
    assert set(folder.iterdir()) == before
    assert one.segment(IMAGE, headers=ASYNC, params={"timeout": 3600}).status_code == 202
    assert_problem(one.segment(IMAGE, params={"timeout": 3600}), 422, "invalid-parameter")


def test_a_job_that_fails_says_why_as_the_answer_would_have(replicas: tuple[AppClient, AppClient]) -> None:
    image = disc().astype(np.float32)
    image[3, 3] = np.nan
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    ids = {"X-Request-ID": "from-here", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    job = submit(replicas[0], tiff(image), headers=ids)
    plain = assert_problem(replicas[0].segment(tiff(image)), 422, "non-finite-image")
    for replica in replicas:
        report = replica.get(f"/jobs/{job}", params={"wait": 20}).json()
        assert (report["state"], report["pixels_done"]) == ("failed", 0)
        assert report["problem"] == plain | {"request_id": "from-here", "trace_id": trace}
        result = replica.get(f"/jobs/{job}/result")
        assert (result.status_code, result.json()) == (422, report["problem"])
        assert result.headers["content-type"] == "application/problem+json"


def test_any_replica_answers_for_every_job(replicas: tuple[AppClient, AppClient], gate: threading.Event) -> None:
    one, other = replicas
    job = submit(one)
    until(lambda: one.get(f"/jobs/{job}").json()["state"] == "running")
    until(lambda: other.get(f"/jobs/{job}").json()["state"] == "running")
    assert other.get(f"/jobs/{job}/result").status_code == 409
    gate.set()
    result = other.get(f"/jobs/{job}/result", params={"wait": 20})
    assert (result.status_code, result.content) == (200, one.segment(IMAGE).content)


def test_a_job_that_ends_while_it_is_looked_at_is_not_as_it_was_before(
    one: AppClient, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = JobsFolder.read

    def slow(folder: JobsFolder, job_id: str) -> Record:
        record = read(folder, job_id)
        gate.set()
        until(lambda: read(folder, job_id).report.over and job_id not in one.app.state.jobs._work.running)
        return record

    job = submit(one)
    monkeypatch.setattr(JobsFolder, "read", slow)
    assert one.get(f"/jobs/{job}").json()["state"] == "done"


@pytest.mark.parametrize("at", [0, 1], ids=["its own", "another replica"])
def test_deleting_ends_the_work(
    replicas: tuple[AppClient, AppClient], gate: threading.Event, at: int, folder: Path
) -> None:
    one = replicas[0]
    job = submit(one)
    until(lambda: one.get(f"/jobs/{job}").json()["state"] == "running")
    assert metric(one, "unet_in_flight") == 1
    before = ended(one)
    assert replicas[at].request("DELETE", f"/jobs/{job}").status_code == 204
    assert one.get(f"/jobs/{job}").status_code == 404
    until(lambda: metric(one, "unet_in_flight") == 0)
    for replica in replicas:
        for path in (f"/jobs/{job}", f"/jobs/{job}/result"):
            assert_problem(replica.get(path), 404, "unknown-job")
        assert_problem(replica.request("DELETE", f"/jobs/{job}"), 404, "unknown-job")
    assert not [path for path in folder.iterdir() if job in path.name]
    assert {key: count - before[key] for key, count in ended(one).items() if count != before[key]} == {
        ("deleted", "404"): 1
    }


@pytest.mark.parametrize("before", ["keep_result", "write"])
def test_what_another_replica_deletes_at_its_end_counts_as_deleted(
    replicas: tuple[AppClient, AppClient],
    gate: threading.Event,
    before: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two signs of life: the replica at work learns of it by what it writes last."""
    one, other = replicas
    real = getattr(JobsFolder, before)

    def late(self: JobsFolder, first: Any, *more: Any) -> None:
        if before == "keep_result" or first.report.over:
            other.app.state.jobs._folder.delete(job)
        real(self, first, *more)

    job, counts = submit(one), ended(one)
    monkeypatch.setattr(JobsFolder, before, late)
    gate.set()
    until(lambda: job not in one.app.state.jobs._work.running)
    assert {key: count - counts[key] for key, count in ended(one).items() if count != counts[key]} == {
        ("deleted", "404"): 1
    }
    assert not one.app.state.jobs._folder._own.get(job)
    assert not [path for path in folder.iterdir() if job in path.name]


def test_no_replica_says_that_a_job_is_done_before_all_do(
    replicas: tuple[AppClient, AppClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = replicas
    writing, go_on = threading.Event(), threading.Event()
    real = JobsFolder.write

    def late(self: JobsFolder, record: Record) -> None:
        if record.report.over:
            writing.set()
            go_on.wait(20)
        real(self, record)

    monkeypatch.setattr(JobsFolder, "write", late)
    job = submit(one)
    try:
        assert writing.wait(20)
        assert {replica.get(f"/jobs/{job}").json()["state"] for replica in replicas} <= {"queued", "running"}
        assert one.get(f"/jobs/{job}/result").json()["type"] == "/problems/job-not-done"
    finally:
        go_on.set()
    assert one.get(f"/jobs/{job}", params={"wait": 20}).json()["state"] == "done"
    assert other.get(f"/jobs/{job}/result").status_code == 200


def test_a_job_that_another_replica_took_for_lost_is_dropped_and_counted_there(
    one: AppClient, gate: threading.Event, folder: Path
) -> None:
    job, before = submit(one), ended(one)
    until(lambda: one.get(f"/jobs/{job}").json()["state"] == "running")
    found = JobsFolder(folder, 1 << 20, 60).read(job)
    replace_record(folder / job, found.failed({"type": "/problems/job-lost", "status": 503}))
    until(lambda: metric(one, "unet_in_flight") == 0)
    assert one.get(f"/jobs/{job}").json()["state"] == "failed"
    assert ended(one) == before


def test_a_job_of_a_replica_that_has_gone_is_counted_as_lost(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replicas: tuple[AppClient, AppClient],
    folder: Path,
) -> None:
    done = submit(replicas[0])
    assert replicas[0].get(f"/jobs/{done}", params={"wait": 20}).json()["state"] == "done"
    left = JobsFolder(folder, 1 << 20, 60).read(done).with_report(state="running", finished=None, bytes=None)
    JobsFolder(tmp_path / "left", 1 << 20, 60).create(left)
    monkeypatch.setattr("service.jobs.folder.LOST_AFTER_S", 0.0)
    monkeypatch.setattr("service.jobs.keeper._SWEEP_S", 0.05)
    with running_app(settings.model_copy(update={"jobs_dir": tmp_path / "left"})) as client:
        until(lambda: ended(client)["lost", "503"] == 1)
        assert client.get(f"/jobs/{done}").json()["problem"]["type"] == "/problems/job-lost"
        until(lambda: metric(client, "unet_jobs", state="failed") == 1)
        assert ended(client) == {("failed", "500"): 0, ("failed", "504"): 0, ("deleted", "404"): 0, ("lost", "503"): 1}


def test_who_hangs_up_while_a_job_is_made_leaves_none(
    one: AppClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(folder.iterdir())
    entered, go_on = threading.Event(), threading.Event()
    made: list[str] = []
    create = JobsFolder.create

    def held(jobs: JobsFolder, record: Record) -> None:
        entered.set()
        go_on.wait(20)
        create(jobs, record)
        made.append(record.report.id)

    monkeypatch.setattr(JobsFolder, "create", held)
    request = one.begin("POST", "/segment", content=IMAGE, headers=ASYNC)
    assert entered.wait(20)
    request.cancel()
    until(lambda: metric(one, "unet_in_flight") == 0)
    go_on.set()
    until(lambda: bool(made))
    until(lambda: set(folder.iterdir()) == before)
    assert made[0] not in one.app.state.jobs._folder._own


def test_who_hangs_up_while_a_job_is_deleted_deletes_it_all_the_same(
    one: AppClient, gate: threading.Event, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(one)
    entered, go_on = threading.Event(), threading.Event()
    delete = JobsFolder.delete

    def held(jobs: JobsFolder, job_id: str) -> None:
        entered.set()
        go_on.wait(20)
        delete(jobs, job_id)

    monkeypatch.setattr(JobsFolder, "delete", held)
    request = one.begin("DELETE", f"/jobs/{job}")
    assert entered.wait(20)
    request.cancel()
    go_on.set()
    until(lambda: one.get(f"/jobs/{job}").status_code == 404)
    until(lambda: job not in one.app.state.jobs._work.running)
    assert job not in one.app.state.jobs._folder._own


def test_signs_of_life_come_while_jobs_are_swept_made_and_dropped(
    one: AppClient, gate: threading.Event, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(one)
    entered, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> Tally:
        entered.set()
        go_on.wait(20)
        return Tally({}, 0)

    monkeypatch.setattr(JobsFolder, "sweep", slow)
    try:
        assert entered.wait(20)
        monkeypatch.setattr(JobsFolder, "create", slow)
        making = one.begin("POST", "/segment", content=IMAGE, headers=ASYNC)
        monkeypatch.setattr(Running, "current", broken_once(Running.current))
        for _ in range(2):
            before = stamp_of(folder / job)
            until(partial(lambda before: stamp_of(folder / job) != before, before))
        making.cancel()
    finally:
        go_on.set()


def broken_once(method: Callable[[Running], Record]) -> Callable[[Running], Record]:
    """Fail once, as nobody foresaw."""
    calls = itertools.count()

    def broken(running: Running) -> Record:
        if next(calls) == 0:
            raise ZeroDivisionError
        return method(running)

    return broken


def test_deleting_frees_a_result(one: AppClient, folder: Path) -> None:
    job = submit(one)
    assert one.get(f"/jobs/{job}/result", params={"wait": 20}).status_code == 200
    assert one.request("DELETE", f"/jobs/{job}").status_code == 204
    assert not (folder / job).exists()


def test_nobody_but_the_service_can_read_the_files(one: AppClient, folder: Path) -> None:
    job = submit(one)
    one.get(f"/jobs/{job}/result", params={"wait": 20})
    until((folder / job / "fetched").exists)
    assert {path.stat().st_mode & 0o777 for path in (folder / job).iterdir()} == {0o600}
    assert (folder / job).stat().st_mode & 0o777 == 0o700


def test_headers_alone_are_no_fetch(one: AppClient, folder: Path) -> None:
    job = submit(one)
    one.get(f"/jobs/{job}", params={"wait": 20})
    head = one.request("HEAD", f"/jobs/{job}/result")
    assert (head.status_code, head.content) == (200, b"")
    assert not (folder / job / "fetched").exists()


@pytest.mark.parametrize(
    "job", ["0" * 32, "%2e%2e", "%00", "a" * 3000, ".clock", "0" * 31 + "G", "0" * 32 + "%0a", "..%2f..%2fetc"]
)
def test_an_id_that_is_none_is_unknown(one: AppClient, job: str) -> None:
    for method, path in (("GET", f"/jobs/{job}"), ("GET", f"/jobs/{job}/result"), ("DELETE", f"/jobs/{job}")):
        answer = one.request(method, path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.json()["detail"]) < 500


@pytest.mark.parametrize("wait", ["-1", "51", "inf", "nan", "x"])
def test_nobody_waits_longer_than_proxies_do(one: AppClient, wait: str) -> None:
    assert_problem(one.get(f"/jobs/{'0' * 32}", params={"wait": wait}), 422, "invalid-parameter")


def test_a_parameter_that_does_not_exist_is_told_those_that_do(one: AppClient) -> None:
    problem = assert_problem(one.get(f"/jobs/{'a' * 32}", params={"foo": 1}), 422, "invalid-parameter")
    assert problem["detail"] == "parameter 'foo' does not exist; there are wait"


def test_a_job_is_its_users_alone(keyed: AppClient) -> None:
    job = submit(keyed, headers=ALICE)
    for path in (f"/jobs/{job}", f"/jobs/{job}/result"):
        assert_problem(keyed.get(path, headers=BOB), 404, "unknown-job")
    assert_problem(keyed.request("DELETE", f"/jobs/{job}", headers=BOB), 404, "unknown-job")
    assert keyed.get(f"/jobs/{job}/result", headers=ALICE, params={"wait": 20}).status_code == 200


def test_users_take_turns_and_a_plan_counts_on_that(keyed: AppClient, gate: threading.Event) -> None:
    def expected_s(user: dict[str, str]) -> float:
        plan = keyed.get("/plan", params={"size": "64x64", "respond_async": True}, headers=user).json()
        assert plan["refusal"] is None
        seconds: float = plan["expected_seconds"]
        return seconds

    def started(job: str, user: dict[str, str]) -> str | None:
        answer = keyed.get(f"/jobs/{job}", params={"wait": 20 if gate.is_set() else 0}, headers=user)
        when: str | None = answer.json()["started"]
        return when

    at_once = keyed.app.state.engine._admission.order.turns
    large = tiff(disc(900, 900, 300))
    jobs = [submit(keyed, large if place >= at_once else IMAGE, headers=ALICE) for place in range(at_once + 20)]
    until(lambda: all(started(job, ALICE) for job in jobs[:at_once]))
    assert not any(started(job, ALICE) for job in jobs[at_once:])
    assert metric(keyed, "unet_jobs_backlog_seconds") > 0
    assert metric(keyed, "unet_backlog_seconds") == 0
    assert expected_s(BOB) < expected_s(ALICE) / 4
    thumbnail = submit(keyed, headers=BOB)
    answers = [
        keyed.get(f"/jobs/{job}", headers=user)
        for job, user in ((jobs[0], ALICE), (thumbnail, BOB), (jobs[at_once], ALICE), (jobs[-1], ALICE))
    ]
    working, *queued = [answer.json() for answer in answers]
    assert working["jobs_before"] is None
    places = [report["jobs_before"] for report in queued]
    assert places[0] in range(at_once)
    assert places[2] == 20
    assert places[1] < places[2]
    assert 0 <= queued[0]["seconds_left"] < queued[2]["seconds_left"]
    again = [int(answer.headers["retry-after"]) for answer in answers]
    assert again[3] == min(30, max(1, round(queued[2]["seconds_left"] / 2)))
    gate.set()
    later = sorted(started(job, ALICE) or "" for job in jobs[at_once:])
    assert (started(thumbnail, BOB) or "") < later[at_once - 1]


def test_one_that_never_gets_its_turn_says_how_long_it_waited(keyed: AppClient, gate: threading.Event) -> None:
    before = [submit(keyed, headers=ALICE) for _ in range(keyed.app.state.engine._admission.order.turns)]
    late = submit(keyed, params={"timeout": 2}, headers=ALICE)
    report = keyed.get(f"/jobs/{late}", params={"wait": 20}, headers=ALICE).json()
    assert (report["state"], report["started"], report["problem"]["status"]) == ("failed", None, 504)
    assert report["problem"]["detail"] == (
        "the answer was not ready in the 2 s allowed, for 2 s of which the job waited for its turn, to the end; raise "
        "the timeout or send less at a time"
    )
    assert metric(keyed, "unet_jobs_ended_total", outcome="failed", status="504") == 1
    gate.set()
    for job in before:
        assert keyed.get(f"/jobs/{job}/result", params={"wait": 20}, headers=ALICE).status_code == 200


def test_results_of_a_service_without_a_folder_end_with_it(settings: Settings, tmp_path: Path) -> None:
    with ready_app(settings) as client:
        folder: Path = client.app.state.jobs.path
        job = submit(client)
        assert client.get(f"/jobs/{job}/result", params={"wait": 20}).status_code == 200
        assert (folder / job).exists()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


@pytest.mark.parametrize("shared", [True, False], ids=["a folder", "none"])
def test_a_service_that_stops_waits_only_for_results_that_can_be_fetched(
    settings: Settings, tmp_path: Path, gate: threading.Event, shared: bool
) -> None:
    with ready_app(settings.model_copy(update={"jobs_dir": tmp_path if shared else None})) as client:
        job = submit(client)
        assert len(client.app.state.jobs.tasks) == int(shared)
        waiting = client.begin("GET", f"/jobs/{job}/result", params={"wait": 20})
        gate.set()
        assert waiting.result(20).status_code == 200, "whoever waits still gets it"


def test_a_job_that_cannot_be_deleted_goes_on(
    one: AppClient, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    job = submit(one)
    with monkeypatch.context() as patched:
        patched.setattr(JobsFolder, "_set_aside", refusing)
        problem = assert_problem(one.request("DELETE", f"/jobs/{job}"), 503, "job-unavailable")
    assert "Read-only file system" in problem["detail"]
    gate.set()
    assert one.get(f"/jobs/{job}/result", params={"wait": 20}).status_code == 200


def test_one_that_cannot_be_read_is_unavailable_and_hurts_no_other(one: AppClient, folder: Path) -> None:
    job = "f" * 32
    (folder / job / "job.json").mkdir(parents=True)
    for method, path in (("GET", f"/jobs/{job}"), ("GET", f"/jobs/{job}/result"), ("DELETE", f"/jobs/{job}")):
        assert_problem(one.request(method, path), 503, "job-unavailable")
    assert one.get(f"/jobs/{submit(one)}/result", params={"wait": 20}).status_code == 200


def test_what_is_not_done_when_the_service_ends_is_told_to_come_again(
    settings: Settings, tmp_path: Path, gate: threading.Event
) -> None:
    shared = settings.model_copy(update={"jobs_dir": tmp_path})
    with ready_app(shared) as client:
        job = submit(client)
        until(lambda: client.get(f"/jobs/{job}").json()["state"] == "running")
        # its thread cannot be stopped, and is waited for
        threading.Timer(0.5, gate.set).start()
    with running_app(shared) as client:
        assert_problem_of(client.get(f"/jobs/{job}/result"), 503, "draining")
        assert client.get(f"/jobs/{job}").json()["state"] == "failed"


def test_a_folder_that_hangs_keeps_no_service_from_ending(
    settings: Settings, tmp_path: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, go_on = set[str](), threading.Event()

    def hangs(name: str) -> Callable[..., None]:
        def never(*_: object) -> None:
            hanging.add(name)
            go_on.wait(60)
            hanging.discard(name)

        return never

    monkeypatch.setattr("service.jobs.work._LAST_S", 0.2)
    try:
        with ready_app(settings.model_copy(update={"jobs_dir": tmp_path})) as client:
            submit(client)
            monkeypatch.setattr(JobsFolder, "write", hangs("write"))
            monkeypatch.setattr(JobsFolder, "sweep", hangs("sweep"))
            monkeypatch.setattr(JobsFolder, "keep_result", hangs("keep_result"))
            gate.set()
            until(lambda: hanging == {"write", "sweep", "keep_result"})
        assert hanging == {"write", "sweep", "keep_result"}, "the service has ended before them"
    finally:
        go_on.set()


def test_a_folder_that_cannot_be_used_refuses_jobs_and_nothing_else(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with ready_app(settings.model_copy(update={"jobs_dir": tmp_path / "file" / "jobs"})) as client:
        problem = assert_problem(client.segment(IMAGE, headers=ASYNC), 503, "no-room-for-jobs")
        assert "Not a directory" in problem["detail"]
        assert "UNET_JOBS_DIR" in problem["detail"]
        assert client.segment(IMAGE).status_code == 200
        assert client.get(f"/jobs/{'0' * 32}").status_code == 404


def test_a_service_without_jobs_says_so_before_the_body_and_for_good(settings: Settings) -> None:
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(IMAGE)
        yield IMAGE

    with ready_app(settings.model_copy(update={"jobs_mb": 0})) as client:
        asked: list[dict[str, Any]] = [{"headers": ASYNC}, {"params": {"respond_async": "true"}}]
        form = {"files": {"image": ("a.png", IMAGE), "respond_async": (None, "1")}}
        for options in (*({"content": body(), **more} for more in asked), form):
            answer = client.request("POST", "/segment", **options)
            assert "UNET_JOBS_MB is 0" in assert_problem(answer, 501, "jobs-off")["detail"]
            assert "retry-after" not in answer.headers
        assert not read
        plan = client.get("/plan", params={"size": "64x64", "respond_async": "true"}).json()
        assert plan["refusal"]["type"] == "/problems/jobs-off"
        assert client.get("/plan", params={"size": "64x64"}).json()["refusal"] is None
        assert client.segment(IMAGE).status_code == 200


def test_a_disk_that_is_full_fails_the_job_and_nothing_else(one: AppClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.truncate", full)
        job = submit(one)
        report = one.get(f"/jobs/{job}", params={"wait": 20}).json()
    assert report["state"] == "failed"
    assert report["problem"]["type"] == "/problems/no-room-for-jobs"
    assert "No space left on device" in report["problem"]["detail"]
    assert one.get(f"/jobs/{submit(one)}/result", params={"wait": 20}).status_code == 200


def test_results_that_fill_their_room_make_way_once_fetched(settings: Settings) -> None:
    with ready_app(settings.model_copy(update={"jobs_mb": 1})) as client:
        large = {"output": "probabilities", "format": "npy"}
        image = png(disc(300, 300))  # 720 kB
        kept = submit(client, image, params=large)
        assert client.get(f"/jobs/{kept}", params={"wait": 20}).json()["state"] == "done"
        second = submit(client, image, params=large)
        failed = client.get(f"/jobs/{second}", params={"wait": 20}).json()
        assert failed["problem"]["type"] == "/problems/no-room-for-jobs"
        assert client.get(f"/jobs/{kept}/result").status_code == 200, "nobody has fetched it"
        third = submit(client, image, params=large)
        assert client.get(f"/jobs/{third}", params={"wait": 20}).json()["state"] == "done"
        told = assert_problem(client.get(f"/jobs/{kept}"), 404, "unknown-job")["detail"]
        assert "kept for 3600 s, or until others need their room" in told


@pytest.mark.parametrize(("output", "side"), [("mask", 1025), ("labels", 725), ("probabilities", 363)])
def test_a_result_that_can_never_be_kept_is_refused_before_it_is_computed(
    settings: Settings, tmp_path: Path, output: str, side: int
) -> None:
    with ready_app(settings.model_copy(update={"jobs_mb": 1, "jobs_dir": tmp_path})) as client:
        image = png(np.zeros((side, side), np.uint8))
        asked = {"output": output, "format": "npy"}
        problem = assert_problem(client.segment(image, headers=ASYNC, params=asked), 413, "result-too-large")
        assert "the limit for those of all jobs together is 1048576 bytes" in problem["detail"]
        assert not list(tmp_path.glob("?" * 32))
        planned = {**asked, "size": f"{side}x{side}"}
        assert client.get("/plan", params=planned).json()["refusal"] is None, "nobody has to keep it"
        plan = client.get("/plan", params={**planned, "respond_async": "true"}).json()
        assert plan["refusal"] == problem | {"request_id": plan["refusal"].get("request_id")}
        smaller = png(np.zeros((side - 4, side - 4), np.uint8))
        assert client.get(f"/jobs/{submit(client, smaller, params=asked)}/result", params={"wait": 20}).is_success


def test_a_result_that_turns_out_never_to_be_kept_says_so_for_good(settings: Settings) -> None:
    with ready_app(settings.model_copy(update={"jobs_mb": 1})) as client:
        image = png(np.random.default_rng(0).integers(0, 255, (700, 700), np.uint8))
        job = submit(client, image, params={"output": "probabilities", "format": "tiff"})
        answer = client.get(f"/jobs/{job}/result", params={"wait": 20})
        assert answer.json()["type"] == "/problems/result-too-large"
        assert (answer.status_code, "retry-after" in answer.headers) == (413, False)


def test_what_becomes_of_jobs_is_counted_and_their_acceptance_is_no_answer(
    one: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    def counts() -> list[float]:
        ended = [("done", "200"), ("failed", "422"), ("failed", "500")]
        over = [metric(one, "unet_jobs_ended_total", outcome=outcome, status=status) for outcome, status in ended]
        return [*over, metric(one, "unet_jobs_accepted_total"), metric(one, "unet_request_seconds_count")]

    before = counts()
    image = disc().astype(np.float32)
    image[3, 3] = np.nan
    jobs = [submit(one), submit(one, tiff(image))]
    states = [one.get(f"/jobs/{job}", params={"wait": 20}).json()["state"] for job in jobs]
    monkeypatch.setattr("service.engine.stages.encoding.write_body", broken)
    last = one.get(f"/jobs/{submit(one)}", params={"wait": 20}).json()
    assert (states, last["problem"]["status"]) == (["done", "failed"], 500)
    until(lambda: [after - was for after, was in zip(counts(), before, strict=True)] == [1, 1, 1, 3, 0])
    assert one.segment(b"").status_code == 400
    assert metric(one, "unet_request_seconds_count") == before[-1] + 1


def test_metrics_and_log_know_jobs(one: AppClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "unet")
    job = submit(one)
    assert one.get(f"/jobs/{job}", params={"wait": 20}).json()["state"] == "done"
    until(lambda: metric(one, "unet_jobs", state="done") >= 1)
    assert metric(one, "unet_job_result_bytes") > 0
    lines = [record.__dict__.get("fields", {}) for record in caplog.records]
    assert [line["status"] for line in lines if line.get("job") == job and "status" in line] == [202, 200]
    assert any(record.getMessage() == "job done" for record in caplog.records)


def test_a_plan_tells_what_a_job_would_take(one: AppClient) -> None:
    size = {"size": "2000x2000", "timeout": "3000"}
    assert_problem(one.get("/plan", params=size), 422, "invalid-parameter")
    assert one.get("/plan", params={**size, "respond_async": "true"}).json()["refusal"] is None


def metric(client: AppClient, name: str, **labels: str) -> float:
    total: float = sum(s.value for s in samples(client, name) if labels.items() <= s.labels.items())
    return total


def ended(client: AppClient) -> dict[tuple[str, str], float]:
    """Jobs that are over, by outcome and status."""
    return {(s.labels["outcome"], s.labels["status"]): s.value for s in samples(client, "unet_jobs_ended_total")}


def samples(client: AppClient, name: str) -> list[Sample]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return [sample for family in families for sample in family.samples if sample.name == name]


def assert_problem_of(answer: httpx.Response, status: int, slug: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert int(answer.headers["retry-after"]) >= 1
