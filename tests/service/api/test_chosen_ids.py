"""Jobs whose id the client has chosen: it can ask for them, and delete them, though their answer was lost."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from service.jobs.folder import JobsFolder
from service.jobs.record import Record
from service.settings import Settings
from tests.app_client import AppClient, ready_app
from tests.images import disc, png
from tests.live import wait_until
from tests.problems import assert_problem

IMAGE = png(disc())
ALICE, BOB = ({"Authorization": f"Bearer {name}-key-0123456789"} for name in ("alice", "bob"))
ID = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def service(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    """A service with the users alice and bob."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "keys").write_text("alice:alice-key-0123456789\nbob:bob-key-0123456789\n")
    changes = {"api_keys_file": folder / "keys", "jobs_dir": folder / "jobs"}
    with ready_app(settings.model_copy(update=changes)) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_job(service: AppClient) -> Iterator[None]:
    yield
    service.request("DELETE", f"/jobs/{ID}", headers=ALICE)


def prefer(*preferences: str) -> dict[str, str]:
    return {**ALICE, "Prefer": ", ".join(preferences)}


@pytest.mark.parametrize(
    "header",
    [
        f"respond-async; id={ID}",
        f"wait=5, Respond-Async;x=1; ID={ID};y",
        f"respond-async;id={ID}, a; id=b",
        f'respond-async; id = "{ID}"',
    ],
)
def test_a_job_has_the_id_that_its_client_chose_and_is_that_users_alone(service: AppClient, header: str) -> None:
    answer = service.segment(IMAGE, headers=prefer(header))
    assert (answer.status_code, answer.json()["id"], answer.headers["location"]) == (202, ID, f"/jobs/{ID}")
    assert service.get(f"/jobs/{ID}/result", params={"wait": 20}, headers=ALICE).status_code == 200
    assert_problem(service.request("DELETE", f"/jobs/{ID}", headers=BOB), 404, "unknown-job")
    assert service.request("DELETE", f"/jobs/{ID}", headers=ALICE).status_code == 204


@pytest.mark.parametrize(
    "header",
    [
        "respond-async; id=1",
        f"respond-async; id={ID}0",
        f"respond-async, wait=1; id={ID}",
        f"respond-async; id={ID.upper()}",
    ],
)
def test_what_is_no_id_is_passed_over(service: AppClient, header: str) -> None:
    answer = service.segment(IMAGE, headers=prefer(header))
    assert answer.status_code == 202
    assert answer.json()["id"] != ID
    service.request("DELETE", f"/jobs/{answer.json()['id']}", headers=ALICE)


@pytest.mark.parametrize("user", [ALICE, BOB], ids=["the same user", "another"])
def test_an_id_is_given_once(service: AppClient, user: dict[str, str]) -> None:
    chosen = prefer(f"respond-async; id={ID}")
    assert service.segment(IMAGE, headers=chosen).status_code == 202
    folder = service.app.state.jobs.path
    refusal = service.segment(png(disc(30, 30)), headers=chosen | user)
    assert ID in assert_problem(refusal, 409, "job-exists")["detail"]
    assert [path.name for path in folder.iterdir() if path.is_dir()] == [ID]
    assert service.get(f"/jobs/{ID}", headers=ALICE).json()["pixels"] == disc().size, "the first one goes on"


def test_an_id_is_not_given_again_while_this_replica_works_on_what_another_has_deleted(service: AppClient) -> None:
    chosen = prefer(f"respond-async; id={ID}")
    beating = service.app.state.jobs._work._beating
    beating.get_loop().call_soon_threadsafe(beating.cancel)
    wait_until(beating.done)  # it would notice within a second
    admission = service.app.state.engine._admission
    release = admission.keep(admission.memory_limit, 0)  # the job waits for memory
    try:
        assert service.segment(IMAGE, headers=chosen).status_code == 202
        shutil.rmtree(service.app.state.jobs.path / ID)
        refusal = service.segment(png(disc(30, 30)), headers=chosen)
    finally:
        release()
        beating.get_loop().call_soon_threadsafe(service.app.state.jobs._work.start)
    assert_problem(refusal, 409, "job-exists")
    wait_until(lambda: ID not in service.app.state.jobs._work.running)
    assert service.segment(png(disc(30, 30)), headers=chosen).status_code == 202
    result = service.get(f"/jobs/{ID}/result", params={"wait": 20}, headers=ALICE)
    assert np.asarray(Image.open(io.BytesIO(result.content))).shape == disc(30, 30).shape


def test_who_hangs_up_while_the_id_is_taken_by_another_job_deletes_none(
    service: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = prefer(f"respond-async; id={ID}")
    assert service.segment(IMAGE, headers=chosen).status_code == 202
    withdrawn: list[Record] = []
    withdraw = JobsFolder.withdraw

    def noted(jobs: JobsFolder, record: Record) -> None:
        withdraw(jobs, record)
        withdrawn.append(record)

    monkeypatch.setattr(JobsFolder, "withdraw", noted)
    create = JobsFolder.create

    begun = threading.Event()

    def hung_up(jobs: JobsFolder, record: Record) -> None:
        begun.wait(20)
        request.cancel()
        wait_until(lambda: service.app.state.engine._admission.in_flight == 0)
        create(jobs, record)

    wait_until(lambda: ID not in service.app.state.jobs._work.running)  # else it is refused before it is made
    wait_until(lambda: service.app.state.engine._admission.in_flight == 0)
    monkeypatch.setattr(JobsFolder, "create", hung_up)
    request = service.begin("POST", "/segment", content=IMAGE, headers=chosen)
    begun.set()
    wait_until(lambda: bool(withdrawn))
    assert service.get(f"/jobs/{ID}", headers=ALICE).status_code == 200
