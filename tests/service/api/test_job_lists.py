"""``GET /jobs``: one's own jobs, the newest first, a page at a time, and nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.jobs.folder import JobsFolder
from service.jobs.inventory import Inventory
from service.settings import Settings
from tests.app_client import AppClient, running_app
from tests.jobs import job_record
from tests.problems import assert_problem
from tests.service.api.test_jobs import ALICE, BOB, IMAGE, submit, until


def listed(client: AppClient, user: Mapping[str, str], path: str = "/jobs", **params: Any) -> dict[str, Any]:
    answer = client.get(path, headers=user, params=params or None)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def ids(document: Mapping[str, Any]) -> list[str]:
    return [job["id"] for job in document["jobs"]]


def test_ones_own_jobs_are_listed_newest_first_and_as_each_tells_itself(
    keyed: AppClient, gate: threading.Event
) -> None:
    named = {"Content-Disposition": 'attachment; filename="cells/cells.png"'}
    turns = keyed.app.state.engine._admission.order.turns
    before = ids(listed(keyed, ALICE))
    jobs = [submit(keyed, headers={**ALICE, **named}), *(submit(keyed, headers=ALICE) for _ in range(turns + 1))]
    until(lambda: keyed.get(f"/jobs/{jobs[turns - 1]}", headers=ALICE).json()["state"] == "running")
    theirs = submit(keyed, headers=BOB)
    newest = listed(keyed, ALICE)
    assert ids(newest) == [*reversed(jobs), *before]
    told = {job["id"]: job for job in newest["jobs"]}
    assert [told[job]["file_name"] for job in jobs[:2]] == ["cells.png", None]
    assert [told[job]["state"] for job in jobs] == ["running"] * turns + ["queued"] * 2
    assert [told[job]["jobs_before"] for job in jobs] == [None] * turns + [1, 2], "theirs is next"
    assert told[jobs[-1]]["seconds_left"] is not None
    assert told[jobs[0]]["links"] == {"job": f"/jobs/{jobs[0]}", "result": None}
    assert ids(listed(keyed, BOB)) == [theirs]
    gate.set()
    for job in jobs:
        keyed.get(f"/jobs/{job}", params={"wait": 20}, headers=ALICE)
    done = listed(keyed, ALICE, limit=1)["jobs"][0]
    alone = keyed.get(done["links"]["job"], headers=ALICE).json()
    assert {name: value for name, value in done.items() if name != "links"} == alone
    assert keyed.get(done["links"]["result"], headers=ALICE).content == keyed.segment(IMAGE, headers=ALICE).content
    assert keyed.request("DELETE", done["links"]["job"], headers=ALICE).status_code == 204
    assert done["id"] not in ids(listed(keyed, ALICE))


def test_pages_go_on_where_the_last_one_ended_whatever_is_deleted_meanwhile(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("alice:alice-key-0123456789\nbob:bob-key-0123456789\n")
    folder, sent = JobsFolder(tmp_path / "jobs", 1 << 20, 60), datetime(2026, 1, 2, tzinfo=UTC)
    made = [f"{number:032x}" for number in range(7)]
    for number, job in enumerate(made):
        at_once = sent + timedelta(microseconds=number // 2)  # two at a time
        folder.create(job_record(job).with_report(submitted=at_once))
    folder.create(job_record("b" * 32, user="bob"))
    (tmp_path / "jobs" / ("c" * 32)).mkdir()
    more = {"api_keys_file": tmp_path / "keys", "jobs_dir": tmp_path / "jobs"}
    with running_app(settings.model_copy(update=more)) as client:
        first = listed(client, ALICE, limit=3)
        assert ids(first) == made[:3:-1]
        assert first["jobs"][0]["links"]["job"] == f"/jobs/{made[6]}"
        assert client.request("DELETE", f"/jobs/{made[4]}", headers=ALICE).status_code == 204
        second = listed(client, ALICE, first["next"])
        assert ids(second) == made[3:0:-1]
        third = listed(client, ALICE, second["next"])
        assert (ids(third), third["next"]) == (made[:1], None)
        assert ids(listed(client, BOB)) == ["b" * 32]


def test_nothing_is_listed_where_nobody_can_be_told_whose_it_is(client: AppClient) -> None:
    submit(client)
    told = assert_problem(client.get("/jobs"), 403, "jobs-not-listed")
    assert "GET /jobs/ID" in told["detail"]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"limit": 0}, "limit is '0', it should be greater than or equal to 1"),
        ({"limit": 101}, "limit is '101', it should be less than or equal to 100"),
        ({"before": "yesterday"}, "before is 'yesterday', it should be as next of the answer before has it"),
        ({"before": f"2026-01-02T00:00:00,{'a' * 32}"}, "a time with its zone"),
        ({"before": "2026-01-02T00:00:00Z,../../etc"}, "a comma and an id"),
        ({"after": 1}, "parameter 'after' does not exist; there are limit, before"),
    ],
)
def test_pages_that_are_none_are_refused(keyed: AppClient, params: dict[str, Any], said: str) -> None:
    assert said in assert_problem(keyed.get("/jobs", params=params, headers=ALICE), 422, "invalid-parameter")["detail"]


def test_a_folder_that_cannot_be_read_is_said(keyed: AppClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(_: Inventory) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Inventory, "entries", refusing)
    told = assert_problem(keyed.get("/jobs", headers=ALICE), 503, "job-unavailable")
    assert "Input/output error" in told["detail"]
