"""The folder of jobs as several processes see it: a real folder, clocks that tests turn."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.jobs import folder as folder_module
from service.jobs.errors import NoRoomForJobs, UnknownJob
from service.jobs.folder import LOST_AFTER_S, JobsFolder
from service.jobs.record import JobReport, JobState, Record

KEEP_S = 100.0
ONE, TWO, THREE = (digit * 32 for digit in "abc")


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def record(job_id: str = ONE, state: JobState = "running") -> Record:
    report = JobReport(
        id=job_id,
        state=state,
        model="tiny@1.0.0",
        output="mask",
        format="png",
        pixels=10,
        pixels_done=0,
        seconds_left=None,
        submitted=datetime.now(UTC),
        started=None,
        finished=None,
        bytes=None,
        problem=None,
    )
    return Record(report=report, user="alice", request_id="r")


def lost(found: Record) -> Record:
    return found.failed({"title": "lost"})


def reader(content: bytes) -> Callable[[int], bytes]:
    return io.BytesIO(content).read


def finished(folder: JobsFolder, job_id: str, size: int = 0, *, fetched: bool = False) -> None:
    folder.create(record(job_id))
    folder.keep_result(job_id, size, reader(bytes(size)))
    folder.write(record(job_id, "done"))
    if fetched:
        folder.fetched(job_id)


def test_what_is_written_is_what_another_process_reads(tmp_path: Path) -> None:
    one, other = (JobsFolder(tmp_path, 100, KEEP_S) for _ in range(2))
    one.create(record())
    assert other.read(ONE) == one.read(ONE)
    one.keep_result(ONE, 3, reader(b"abc"))
    one.write(record(state="done"))
    assert other.read(ONE).report.state == "done"
    with other.open_result(ONE) as result:
        assert result.read() == b"abc"


def test_a_job_without_a_sign_of_life_is_given_up_by_others(tmp_path: Path) -> None:
    clock = Clock()
    owner, other = JobsFolder(tmp_path, 100, KEEP_S), JobsFolder(tmp_path, 100, KEEP_S, clock)
    owner.create(record())
    owner.sweep(lost)
    for clock.now in (0.0, LOST_AFTER_S):
        assert other.sweep(lost).states == {"running": 1}
    owner.write(record())
    clock.now += 1
    other.sweep(lost)
    clock.now += LOST_AFTER_S
    other.sweep(lost)
    assert other.read(ONE).report.state == "running", "it was written in between"
    clock.now += 1
    other.sweep(lost)
    assert other.read(ONE).report.problem == {"title": "lost", "request_id": "r"}
    with pytest.raises(UnknownJob):
        owner.write(record())  # so that the owner, where it comes back, drops the work
    assert other.read(ONE).report.state == "failed"


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_clock_that_jumps_neither_loses_nor_expires_what_was_seen_before(tmp_path: Path, jump_s: float) -> None:
    clock = Clock()
    owner, other = JobsFolder(tmp_path, 100, KEEP_S), JobsFolder(tmp_path, 100, KEEP_S, clock)
    owner.create(record(ONE))
    finished(owner, TWO)
    other.sweep(lost)
    for path in tmp_path.rglob("*"):
        if path.name != ".clock":
            continue
        found = path.stat()
        os.utime(path, (found.st_atime + jump_s, found.st_mtime + jump_s))
    clock.now = 10
    assert other.sweep(lost).states == {"running": 1, "done": 1}


def test_what_is_done_is_kept_for_its_time_and_counts_from_before_a_restart(tmp_path: Path) -> None:
    finished(JobsFolder(tmp_path, 100, KEEP_S), ONE)
    clock = Clock(5.0)
    folder = JobsFolder(tmp_path, 100, KEEP_S, clock)
    assert folder.sweep(lost).states == {"done": 1}
    clock.now += KEEP_S + 1
    assert folder.sweep(lost).states == {}
    assert [path.name for path in tmp_path.iterdir()] == [".clock"]
    finished(folder, TWO)
    written = tmp_path / TWO / "job.json"
    os.utime(written, (0, written.stat().st_mtime - KEEP_S - 10))
    assert JobsFolder(tmp_path, 100, KEEP_S).sweep(lost).states == {}


def test_one_that_runs_is_never_expired(tmp_path: Path) -> None:
    clock = Clock()
    folder = JobsFolder(tmp_path, 100, KEEP_S, clock)
    folder.create(record())
    folder.sweep(lost)
    clock.now = 10 * KEEP_S
    assert folder.sweep(lost).states == {"running": 1}


def test_room_is_made_of_what_was_fetched_oldest_first(tmp_path: Path) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    for age, job_id in enumerate((ONE, TWO, THREE)):
        finished(folder, job_id, 30, fetched=job_id != ONE)
        os.utime(tmp_path / job_id / "job.json", (0, 1000.0 + age))
    folder.create(record("d" * 32))
    folder.keep_result("d" * 32, 39, reader(bytes(39)))
    assert {path.name[0] for path in tmp_path.iterdir()} == {".", "a", "c", "d"}
    folder.create(record("e" * 32))
    with pytest.raises(NoRoomForJobs, match=r"4 jobs are kept, .* UNET_JOBS_MB"):
        folder.keep_result("e" * 32, 71, reader(bytes(71)))
    assert {path.name[0] for path in tmp_path.iterdir()} == {".", "a", "c", "d", "e"}, "nothing is deleted in vain"


def test_jobs_are_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "MOST_JOBS", 2)
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    finished(folder, ONE, 1)
    finished(folder, TWO, 1, fetched=True)
    folder.create(record(THREE))
    with pytest.raises(UnknownJob):
        folder.read(TWO)
    with pytest.raises(NoRoomForJobs, match="limits are 2 jobs"):
        folder.create(record("d" * 32))
    assert {path.name[0] for path in tmp_path.iterdir()} == {".", "a", "c"}


def test_no_room_means_no_jobs(tmp_path: Path) -> None:
    with pytest.raises(NoRoomForJobs):
        JobsFolder(tmp_path, 0, KEEP_S).create(record())


def test_a_deleted_job_is_gone_for_its_owner_too(tmp_path: Path) -> None:
    owner, other = (JobsFolder(tmp_path, 100, KEEP_S) for _ in range(2))
    owner.create(record())
    other.delete(ONE)
    for call in (lambda: owner.write(record()), lambda: other.delete(ONE), lambda: other.open_result(ONE)):
        with pytest.raises(UnknownJob):
            call()
    assert [path.name for path in tmp_path.iterdir()] == [".clock"]


def test_a_record_that_is_none_is_unknown_and_hurts_nobody(tmp_path: Path) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    finished(folder, ONE)
    (tmp_path / TWO).mkdir()
    (tmp_path / THREE).mkdir()
    (tmp_path / THREE / "job.json").write_text('{"report": 1}')
    (tmp_path / "lost+found").mkdir()
    assert folder.sweep(lost).states == {"done": 1}
    with pytest.raises(UnknownJob):
        folder.read(THREE)


def test_what_a_killed_process_left_half_made_is_cleared_away(tmp_path: Path) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    for name in (f".new-{ONE}", f".gone-{TWO}", f".new-{THREE}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result").write_bytes(b"abc")
        if THREE not in name:
            os.utime(tmp_path / name, (0, 0))
    folder.sweep(lost)
    assert {path.name for path in tmp_path.iterdir()} == {".clock", f".new-{THREE}"}


def test_a_sign_of_life_is_given_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    folder.create(record())
    os.utime(tmp_path / ONE / "job.json", (0, 0))
    folder._own[ONE] = ((tmp_path / ONE / "job.json").stat().st_ino, 0)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            folder.write(record(state="done"))
    assert (tmp_path / ONE / "job.json").stat().st_mtime > 1000
    assert [path.name for path in (tmp_path / ONE).iterdir()] == ["job.json"]
    folder.write(record(state="done"))
    assert folder.read(ONE).report.state == "done"
