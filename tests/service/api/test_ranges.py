"""Parts of a job's result: what a download that broke off goes on with is what it would have got."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app_client import AppClient
from tests.images import disc, png
from tests.problems import assert_problem
from tests.service.api.test_jobs import IMAGE, submit

SIZE = 4928  # of the mask, 60 x 80 px, as .npy


@pytest.fixture(scope="module")
def job(client: AppClient) -> str:
    made = submit(client, IMAGE, params={"format": "npy"})
    assert client.get(f"/jobs/{made}", params={"wait": 20}).json()["bytes"] == SIZE
    return made


@pytest.fixture(scope="module")
def whole(client: AppClient, job: str) -> bytes:
    answer = client.get(f"/jobs/{job}/result")
    assert (answer.status_code, answer.headers["accept-ranges"]) == (200, "bytes")
    return answer.content


@pytest.mark.parametrize(
    ("asked", "first", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("Bytes=4000-", 4000, SIZE),
        ("bytes=4000-9999999", 4000, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        ("bytes=-9999999", 0, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
    ],
)
def test_a_part_is_what_it_is_of_the_whole(  # noqa: PLR0917 - a table
    client: AppClient, job: str, whole: bytes, asked: str, first: int, stop: int
) -> None:
    etag = client.request("HEAD", f"/jobs/{job}/result").headers["etag"]
    for more in ({}, {"If-Range": etag}):
        part = client.get(f"/jobs/{job}/result", headers={"Range": asked, **more})
        assert (part.status_code, part.content) == (206, whole[first:stop])
        assert part.headers["content-range"] == f"bytes {first}-{stop - 1}/{SIZE}"
        assert part.headers["content-length"] == str(stop - first)
        assert part.headers["content-type"] == "application/x-npy"
        assert "x-unet-receipt" in part.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=5-4"},
        {"Range": "bytes=-"},
        {"Range": "bytes=0-1,5-6"},
        {"Range": "rows=0-1"},
        {"Range": f"bytes={'9' * 30}-"},
        {"Range": "bytes=100-199", "If-Range": '"another"'},
        {"Range": "bytes=100-199", "If-Range": "Wed, 21 Oct 2026 07:28:00 GMT"},
    ],
)
def test_what_is_no_range_of_this_result_is_answered_whole(
    client: AppClient, job: str, whole: bytes, headers: dict[str, str]
) -> None:
    answer = client.get(f"/jobs/{job}/result", headers=headers)
    assert (answer.status_code, answer.content) == (200, whole)
    assert "content-range" not in answer.headers


def test_another_result_under_an_id_that_is_chosen_again_is_sent_whole(client: AppClient) -> None:
    path = f"/jobs/{'d' * 32}"
    chosen = {"Prefer": f"respond-async; id={'d' * 32}"}
    assert client.segment(IMAGE, headers=chosen, params={"format": "npy"}).status_code == 202
    first = client.get(f"{path}/result", params={"wait": 20})
    assert client.request("DELETE", path).status_code == 204
    assert client.segment(png(255 - disc()), headers=chosen, params={"format": "npy"}).status_code == 202
    goes_on = {"Range": "bytes=1000-", "If-Range": first.headers["etag"]}
    second = client.get(f"{path}/result", params={"wait": 20}, headers=goes_on)
    assert (second.status_code, len(second.content)) == (200, SIZE)
    assert second.content != first.content


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=999999-", "bytes=-0"])
def test_what_lies_behind_the_end_is_refused_with_the_size(client: AppClient, job: str, asked: str) -> None:
    answer = client.get(f"/jobs/{job}/result", headers={"Range": asked})
    told = assert_problem(answer, 416, "range-not-satisfiable")
    assert told["detail"].startswith(f"the range is '{asked}', the result has {SIZE} bytes, from 0 to {SIZE - 1}")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


def test_head_tells_of_all_and_a_job_is_fetched_once_all_of_it_has_been_sent(client: AppClient) -> None:
    job = submit(client, IMAGE, params={"format": "npy"})
    assert client.get(f"/jobs/{job}", params={"wait": 20}).json()["state"] == "done"
    path = f"/jobs/{job}/result"
    head = client.request("HEAD", path, headers={"Range": "bytes=1-"})
    assert (head.status_code, head.headers["content-length"]) == (200, str(SIZE))
    fetched: Path = client.app.state.jobs.path / job / "fetched"
    for asked in (f"bytes={SIZE - 9}-", "bytes=-900", "bytes=100-4500", f"bytes=4600-{SIZE - 1}", "bytes=0-98"):
        assert client.get(path, headers={"Range": asked}).status_code == 206
        assert not fetched.exists(), f"byte 99 has not been sent, the last was {asked}"
    assert client.get(path, headers={"Range": "bytes=99-"}).status_code == 206
    assert fetched.exists()
