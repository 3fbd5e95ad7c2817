"""The folder of jobs as several processes see it: a real folder, clocks that tests turn."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.jobs import room
from service.jobs.errors import JobUnavailable, NoRoomForJobs, ResultTooLarge, UnknownJob
from service.jobs.files import clear, read_record, replace_record, stamp_of
from service.jobs.folder import LOST_AFTER_S, JobsFolder
from service.jobs.inventory import Entry, Inventory
from service.jobs.listing import of_user
from service.jobs.record import Record
from tests.jobs import job_record
from tests.permissions import open_to_all, unprivileged

KEEP_S = 100.0
LOST = {"type": "/problems/job-lost", "status": 503}
ONE, TWO, THREE = (digit * 32 for digit in "abc")


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def lost(found: Record) -> Record:
    return found.failed(LOST)


def watch(clock: Clock, folder: JobsFolder, seconds: float) -> None:
    """Let time pass as it does for a service, which looks every few seconds."""
    until = clock.now + seconds
    while clock.now < until:
        clock.now = min(until, clock.now + 5)
        folder.sweep(lost)


def reader(content: bytes) -> Callable[[int], bytes]:
    return io.BytesIO(content).read


def finished(folder: JobsFolder, job_id: str, size: int = 0, *, fetched: bool = False, user: str = "alice") -> None:
    folder.create(job_record(job_id, user=user))
    folder.keep_result(job_id, size, reader(bytes(size)))
    folder.write(job_record(job_id, "done", user))
    if fetched:
        folder.sent(job_id, range(1), 1)


def test_what_is_written_is_what_another_process_reads(tmp_path: Path) -> None:
    one, other = (JobsFolder(tmp_path, 100, KEEP_S) for _ in range(2))
    one.create(job_record(ONE))
    assert other.read(ONE) == one.read(ONE)
    one.keep_result(ONE, 3, reader(b"abc"))
    one.write(job_record(ONE, state="done"))
    assert other.read(ONE).report.state == "done"
    with other.open_result(ONE, 3) as result:
        assert result.read() == b"abc"


def test_a_job_without_a_sign_of_life_is_given_up_by_others(tmp_path: Path) -> None:
    clock = Clock()
    owner, other = JobsFolder(tmp_path, 100, KEEP_S), JobsFolder(tmp_path, 100, KEEP_S, clock)
    owner.create(job_record(ONE))
    owner.sweep(lost)
    other.sweep(lost)
    watch(clock, other, LOST_AFTER_S)
    owner.write(job_record(ONE).with_report(pixels_done=1))
    watch(clock, other, LOST_AFTER_S + 5)
    assert other.read(ONE).report.state == "running", "it was written in between"
    clock.now += 5
    assert [(tally.lost, tally.states) for tally in (other.sweep(lost) for _ in range(2))] == [
        (1, {"failed": 1}),
        (0, {"failed": 1}),
    ]
    assert other.read(ONE).report.problem == LOST | {"request_id": "r"}
    with pytest.raises(UnknownJob):
        owner.write(job_record(ONE))  # so that the owner, where it comes back, drops the work
    assert other.read(ONE).report.state == "failed"


class SteppedInventory(Inventory):
    """Its disk's clock is set while it is watched."""

    step_s = 0.0

    def now(self) -> float:
        return super().now() + self.step_s


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_clock_that_is_set_neither_loses_nor_expires_what_was_written_since_the_start(
    tmp_path: Path, step_s: float
) -> None:
    clock = Clock()
    owner, other = JobsFolder(tmp_path, 100, KEEP_S), JobsFolder(tmp_path, 100, KEEP_S, clock)
    other.room.inventory = stepped = SteppedInventory(tmp_path, clock)
    owner.create(job_record(ONE))
    finished(owner, TWO)
    owner.create(job_record(THREE))
    other.sweep(lost)
    owner.write(job_record(THREE, state="done"))
    stepped.step_s = step_s
    clock.now += 5
    assert other.sweep(lost).states == {"running": 1, "done": 2}
    watch(clock, other, KEEP_S - 5)
    assert other.read(THREE).report.state == "done"
    watch(clock, other, 10)
    with pytest.raises(UnknownJob):
        other.read(THREE)


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
    folder.create(job_record(ONE))
    folder.sweep(lost)
    clock.now = 10 * KEEP_S
    assert folder.sweep(lost).states == {"running": 1}


def test_room_is_made_of_what_was_fetched_oldest_first(tmp_path: Path) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    for age, job_id in enumerate((ONE, TWO, THREE)):
        finished(folder, job_id, 30, fetched=job_id != ONE)
        os.utime(tmp_path / job_id / "job.json", (0, 1000.0 + age))
    folder.create(job_record("d" * 32))
    folder.keep_result("d" * 32, 39, reader(bytes(39)))
    assert {path.name[0] for path in tmp_path.iterdir()} == {".", "a", "c", "d"}
    folder.create(job_record("e" * 32))
    with pytest.raises(
        NoRoomForJobs, match=r"take 69 bytes, 69 of them .* 71 more are needed; the limit is 100 bytes.* UNET_JOBS_MB"
    ):
        folder.keep_result("e" * 32, 71, reader(bytes(71)))
    assert {path.name[0] for path in tmp_path.iterdir()} == {".", "a", "c", "d", "e"}, "nothing is deleted in vain"


def test_jobs_are_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_JOBS", 2)
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    finished(folder, ONE, 1)
    finished(folder, TWO, 1, fetched=True)
    folder.create(job_record(THREE))
    with pytest.raises(UnknownJob):
        folder.read(TWO)
    with pytest.raises(
        NoRoomForJobs, match=r"2 jobs are kept, 2 of .*: 1 are not over, the results of 1 nobody.* limit is 2 jobs"
    ):
        folder.create(job_record("d" * 32))
    assert {path.name[0] for path in tmp_path.iterdir()} == {".", "a", "c"}


def test_a_result_is_fetched_once_parts_that_were_sent_hold_all_of_it(tmp_path: Path) -> None:
    folder, other = JobsFolder(tmp_path, 100, KEEP_S), JobsFolder(tmp_path, 100, KEEP_S)
    finished(folder, ONE, 60)
    for replica, part in ((folder, range(50, 60)), (other, range(30)), (folder, range(31, 50)), (folder, range(31))):
        assert not (tmp_path / ONE / "fetched").exists(), part
        replica.sent(ONE, part, 60)
    assert (tmp_path / ONE / "fetched").exists()


def test_a_result_in_very_many_parts_does_not_fill_the_disk_with_their_list(tmp_path: Path) -> None:
    folder = JobsFolder(tmp_path, 10_000, KEEP_S)
    finished(folder, ONE, 9000)
    for first in range(1, 1000, 2):
        folder.sent(ONE, range(first, first + 1), 9000)
    assert (tmp_path / ONE / "sent").stat().st_size < 2100
    folder.sent(ONE, range(9000), 9000)
    assert (tmp_path / ONE / "fetched").exists()


def test_failed_jobs_make_room_before_fetched_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_JOBS", 3)
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    finished(folder, ONE, 1, fetched=True)
    for job_id in (TWO, THREE):
        folder.create(job_record(job_id))
        folder.write(lost(job_record(job_id)))
    os.utime(tmp_path / ONE / "job.json", (0, 0))
    os.utime(tmp_path / THREE / "job.json", (0, 1000))
    left = [{"a", "b", "d"}, {"a", "d", "e"}, {"d", "e", "f"}]
    for new, expected in zip("def", left, strict=True):
        folder.create(job_record(new * 32))
        assert {path.name[0] for path in tmp_path.iterdir()} - {"."} == expected


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "replace"])
def test_what_was_fetched_goes_for_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    folder = JobsFolder(tmp_path, 1000, KEEP_S)
    finished(folder, ONE, 30)
    finished(folder, TWO, 30, fetched=True)
    real: dict[str, Any] = {"mkdir": Path.mkdir, "open": os.open, "write": os.write, "replace": Path.replace}

    def full(*arguments: Any, **options: Any) -> Any:
        here = {"mkdir": ".new-", "open": "result"}.get(call, "")
        if (tmp_path / TWO).exists() and here in str(arguments[0]):
            raise OSError(28, "No space left on device")
        return real[call](*arguments, **options)

    monkeypatch.setattr(f"os.{call}" if call in {"open", "write"} else f"pathlib.Path.{call}", full)
    finished(folder, THREE, 31)
    assert {path.name[0] for path in tmp_path.iterdir()} == {".", "a", "c"}, "what nobody has fetched stays"
    assert (tmp_path / THREE / "result").read_bytes() == bytes(31)


def test_no_more_goes_for_a_full_disk_than_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = JobsFolder(tmp_path, 10**6, KEEP_S)
    for age, job_id in enumerate((ONE, TWO)):
        finished(folder, job_id, 10_000, fetched=True)
        os.utime(tmp_path / job_id / "job.json", (0, 1000.0 + age))
    folder.create(job_record(THREE))
    write = os.write

    def full(file: int, part: bytes) -> int:
        if (tmp_path / ONE).exists():
            raise OSError(28, "No space left on device")
        return write(file, part[:7000])

    monkeypatch.setattr("os.write", full)
    folder.keep_result(THREE, 9_000, reader(b"x" * 9_000))
    assert {path.name[0] for path in tmp_path.iterdir()} == {".", "b", "c"}
    assert (tmp_path / THREE / "result").read_bytes() == b"x" * 9_000, "a disk may take a part of it at a time"


def test_what_can_never_be_kept_is_another_matter_and_takes_nothing_away(tmp_path: Path) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    finished(folder, ONE, 30, fetched=True)
    folder.create(job_record(TWO))
    with pytest.raises(ResultTooLarge, match=r"has 101 bytes, the limit .* is 100 bytes.* UNET_JOBS_MB"):
        folder.keep_result(TWO, 101, reader(bytes(101)))
    assert {path.name[0] for path in tmp_path.iterdir()} == {".", "a", "b"}


def held_by(folder: Path) -> dict[str, list[str]]:
    """Digits of the ids of jobs, by user."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("?" * 32)):
        found.setdefault(str(read_record(path).user), []).append(path.name[0])
    return found


def dated(folder: Path, digits: str) -> None:
    for age, digit in enumerate(digits):
        os.utime(folder / (digit * 32) / "job.json", (0, 1000.0 + age))


def test_who_holds_more_than_an_equal_share_of_the_jobs_makes_way_for_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MOST_JOBS", 4)
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    for digit in "3210":
        finished(folder, digit * 32, 1)
    dated(tmp_path, "3210")
    with pytest.raises(NoRoomForJobs, match="4 jobs are kept, 4 of them of the user who asks"):
        folder.create(job_record(ONE, user="alice"))
    for digit in "ab":
        folder.create(job_record(digit * 32, user="bob"))
    assert held_by(tmp_path) == {"alice": ["0", "1"], "bob": ["a", "b"]}, "the oldest have gone"
    for user in ("alice", "bob"):
        with pytest.raises(NoRoomForJobs, match="4 jobs are kept, 2 of them of the user who asks: 2 are not over"):
            folder.create(job_record("c" * 32, user=user))
    with pytest.raises(NoRoomForJobs):
        folder.create(job_record("c" * 32, user="bob"))
    folder.create(job_record("d" * 32, user="carol"))
    assert held_by(tmp_path) == {"alice": ["0"], "bob": ["a", "b"], "carol": ["d"]}, "what is in work stays"


def test_jobs_of_one_user_that_are_not_over_keep_no_other_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_JOBS", 4)
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    for digit in "0123":
        folder.create(job_record(digit * 32, user="alice"))
    for digit in "ab":
        folder.create(job_record(digit * 32, user="bob"))
    share = r"6 jobs .*, {} .*; the limit is 4 jobs, or 8 for who has no more than 2, a share of 2 users: .* delete"
    for user, own in (("alice", 4), ("bob", 2)):
        with pytest.raises(NoRoomForJobs, match=share.format(own)):
            folder.create(job_record("c" * 32, user=user))
    folder.keep_result("a" * 32, 3, reader(b"abc"))
    folder.create(job_record("c" * 32, user="carol"))
    folder.create(job_record("d" * 32, user="dave"))
    with pytest.raises(NoRoomForJobs, match=r"8 jobs are kept, 0 of .* nobody has fetched; [^:]*: try again in 60 s$"):
        folder.create(job_record("e" * 32, user="erin"))
    assert held_by(tmp_path) == {"alice": [*"0123"], "bob": [*"ab"], "carol": ["c"], "dave": ["d"]}


def test_who_holds_more_than_an_equal_share_of_the_bytes_makes_way_for_others_alone(tmp_path: Path) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    for digit in "3210":
        finished(folder, digit * 32, 25)
    dated(tmp_path, "3210")
    folder.create(job_record(ONE, user="bob"))
    folder.keep_result(ONE, 26, reader(bytes(26)))
    assert held_by(tmp_path) == {"alice": ["0", "1"], "bob": ["a"]}
    folder.create(job_record(TWO, user="bob"))
    with pytest.raises(NoRoomForJobs, match="take 76 bytes, 26 of them of the user who asks, and 25 more"):
        folder.keep_result(TWO, 25, reader(bytes(25)))
    assert held_by(tmp_path)["alice"] == ["0", "1"], "half of it is hers, and nothing goes in vain"


def test_no_room_means_no_jobs(tmp_path: Path) -> None:
    with pytest.raises(NoRoomForJobs):
        JobsFolder(tmp_path, 0, KEEP_S).create(job_record(ONE))


def test_a_deleted_job_is_gone_for_its_owner_too(tmp_path: Path) -> None:
    owner, other = (JobsFolder(tmp_path, 100, KEEP_S) for _ in range(2))
    owner.create(job_record(ONE))
    other.delete(ONE)
    for call in (lambda: owner.write(job_record(ONE)), lambda: other.delete(ONE), lambda: other.open_result(ONE, 3)):
        with pytest.raises(UnknownJob):
            call()
    assert [path.name for path in tmp_path.iterdir()] == [".clock"]
    assert ONE not in owner._own


def test_the_result_of_a_deleted_job_is_that_of_none(tmp_path: Path) -> None:
    owner, other = (JobsFolder(tmp_path, 100, KEEP_S) for _ in range(2))
    owner.create(job_record(ONE))
    other.delete(ONE)
    with pytest.raises(UnknownJob):
        owner.keep_result(ONE, 3, reader(b"abc"))
    with pytest.raises(UnknownJob):
        owner.write(lost(job_record(ONE)))
    assert not owner._own


def test_a_record_that_is_none_is_unknown_and_hurts_nobody(tmp_path: Path) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    finished(folder, ONE)
    (tmp_path / TWO).mkdir()
    (tmp_path / THREE).mkdir()
    (tmp_path / THREE / "job.json").write_text('{"report": 1}')
    (tmp_path / "lost+found").mkdir()
    assert folder.sweep(lost).states == {"done": 1, "unreadable": 2}
    with pytest.raises(UnknownJob):
        folder.read(THREE)


def spoil(folder: Path, how: str) -> None:
    if how == "loop":
        folder.symlink_to(folder)
        return
    folder.mkdir()
    if how == "folder":
        (folder / "job.json").mkdir()
    elif how == "inner loop":
        (folder / "job.json").symlink_to("job.json")
    elif how == "pipe":
        os.mkfifo(folder / "job.json")
    elif how == "device":
        (folder / "job.json").symlink_to("/dev/zero")
    elif how != "nothing":
        (folder / "job.json").write_text("" if how == "empty" else '{"version": 9}')
    (folder / "result").write_bytes(bytes(7))


@pytest.mark.parametrize(
    "how", ["loop", "folder", "inner loop", "pipe", "device", "nothing", "empty", "another version"]
)
def test_one_that_cannot_be_read_hurts_no_other_counts_and_goes_in_time(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    folder = JobsFolder(tmp_path, 100, 10 * KEEP_S, clock)
    spoil(tmp_path / TWO, how)
    folder.create(job_record(ONE))
    tally = folder.sweep(lost)
    assert tally.states == {"running": 1, "unreadable": 1}
    assert tally.result_bytes == (0 if how == "loop" else 7)
    for call in (folder.read, lambda job_id: folder.open_result(job_id, 3)):
        with pytest.raises((UnknownJob, JobUnavailable)):
            call(TWO)
    folder.sweep(lost)
    assert [TWO in line for line in caplog.messages] == [True], "it is told once"
    clock.now += 10 * KEEP_S + 1
    assert folder.sweep(lost).states == {"running": 1}
    assert {path.name for path in tmp_path.iterdir()} == {".clock", ONE}


def test_one_that_cannot_be_removed_hurts_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    folder = JobsFolder(tmp_path, 100, KEEP_S, clock)
    for job_id in (ONE, TWO):
        finished(folder, job_id)
    folder.sweep(lost)
    rename = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.name == ONE:
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(JobUnavailable, match=r"Permission denied.* UNET_JOBS_DIR"):
        folder.delete(ONE)
    clock.now += KEEP_S + 1
    for _ in range(2):
        assert folder.sweep(lost).states == {"done": 1}
    assert folder.read(ONE).report.state == "done"
    assert [ONE in line for line in caplog.messages] == [True], "it is told once"


def test_one_that_nobody_may_look_into_hurts_no_other() -> None:
    with open_to_all() as place:
        place.chmod(0o777)
        with unprivileged():
            folder = JobsFolder(place / "jobs", 100, KEEP_S)
            finished(folder, ONE)
            finished(folder, TWO)
            (place / "jobs" / ONE).chmod(0)
            assert folder.sweep(lost).states == {"done": 1, "unreadable": 1}
            with pytest.raises(JobUnavailable):
                folder.read(ONE)
            folder.create(job_record(THREE))
            (place / "jobs" / ONE).chmod(0o700)
            assert folder.sweep(lost).states == {"done": 2, "running": 1}, "as soon as it can be read again"


class LateInventory(Inventory):
    """Something happens after it has listed the folder."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def entries(self) -> list[Entry]:
        found = super().entries()
        self.meanwhile()
        return found


def test_who_is_heard_of_after_the_listing_is_not_taken_over(tmp_path: Path) -> None:
    clock = Clock()
    owner, other = JobsFolder(tmp_path, 100, KEEP_S), JobsFolder(tmp_path, 100, KEEP_S, clock)
    owner.create(job_record(ONE))
    owner.create(job_record(TWO))
    other.room.inventory = late = LateInventory(tmp_path, clock)
    other.sweep(lost)
    watch(clock, other, LOST_AFTER_S)

    def heard() -> None:
        owner.keep_result(ONE, 3, reader(b"abc"))
        owner.write(job_record(ONE, state="done"))
        owner.write(job_record(TWO))

    late.meanwhile = heard
    clock.now += 5
    other.sweep(lost)
    assert [other.read(job_id).report.state for job_id in (ONE, TWO)] == ["done", "running"]
    with other.open_result(ONE, 3) as result:
        assert result.read() == b"abc"


@pytest.mark.parametrize("within", [True, False], ids=["while it looks", "between two looks"])
def test_whoever_was_held_up_itself_gives_nobody_up_for_that(tmp_path: Path, within: bool) -> None:
    clock = Clock()
    owner, other = JobsFolder(tmp_path, 100, KEEP_S), JobsFolder(tmp_path, 100, KEEP_S, clock)
    owner.create(job_record(ONE))
    other.room.inventory = late = LateInventory(tmp_path, clock)
    other.sweep(lost)
    if within:
        late.meanwhile = lambda: setattr(clock, "now", clock.now + 10 * LOST_AFTER_S)
    else:
        clock.now += 10 * LOST_AFTER_S
    other.sweep(lost)
    late.meanwhile = lambda: None
    watch(clock, other, 5)
    assert other.read(ONE).report.state == "running"
    watch(clock, other, LOST_AFTER_S)
    assert other.read(ONE).report.state == "failed", "a later silence counts"


def test_a_failed_record_without_its_problem_cannot_be_read(tmp_path: Path) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    for problem in ({"title": "x"}, {"type": "/problems/x", "status": "x"}, {"type": 1, "status": 500}):
        folder.create(job_record(ONE))
        folder.write(job_record(ONE).failed(problem))
        with pytest.raises(UnknownJob):
            folder.read(ONE)
        folder.delete(ONE)


@pytest.mark.parametrize(
    "change",
    [
        {"report": {"id": TWO}},
        {"report": {"id": "../elsewhere"}},
        {"report": {"submitted": "2026-01-01T00:00:00"}},
        {"report": {"finished": None}},
        {"report": {"bytes": None}},
        {"report": {"seconds_left": math.inf}},
        {"report": {"state": "failed", "problem": {"type": "/problems/x", "status": 204}}},
        {"report": {"state": "failed", "problem": {"type": "/problems/x", "status": 99999}}},
        {"headers": {"X-A": "b\r\nX-B: c"}},
        {"headers": {"X-A": "\u20ac"}},
        {"headers": {"X A": "b"}},
        {"media_type": "text/html\n"},
    ],
    ids=str,
)
def test_a_record_of_somebody_else_breaks_no_answer_and_no_list(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    finished(folder, ONE, 3)
    finished(folder, THREE, 3)
    file = tmp_path / ONE / "job.json"
    record = json.loads(file.read_text())
    record["report"] |= change.get("report", {})
    file.write_text(json.dumps(record | {name: value for name, value in change.items() if name != "report"}))
    with pytest.raises(UnknownJob):
        folder.read(ONE)
    records, more = of_user(folder, folder.read(THREE).user or "", None, 10)
    assert ([record.report.id for record in records], more) == ([THREE], False)


def test_nothing_is_cleared_away_or_written_while_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    finished(folder, ONE, 60, fetched=True)
    folder.create(job_record(TWO))
    free: list[bool] = []

    def clearing(path: Path) -> None:
        free.append(not folder.room.lock.locked())
        clear(path)

    def part(_: int, parts: list[bytes] = [bytes(50), b""]) -> bytes:  # noqa: B006 - of one call
        free.append(not folder.room.lock.locked())
        assert folder.sweep(lost).result_bytes == 50, "counted from the start"
        return parts.pop(0)

    monkeypatch.setattr("service.jobs.room.clear", clearing)
    folder.keep_result(TWO, 50, part)
    assert free == [True, True, True]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_a_result_that_cannot_be_written_whole_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    folder.create(job_record(ONE))

    def broken(_: int) -> bytes:
        raise error("closed")

    with pytest.raises(NoRoomForJobs if error is OSError else error):
        folder.keep_result(ONE, 3, broken)
    assert [path.name for path in (tmp_path / ONE).iterdir()] == ["job.json"]


@pytest.mark.parametrize("how", ["link", "folder", "shorter", "fifo"])
def test_nothing_but_the_result_is_handed_out(tmp_path: Path, how: str) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    finished(folder, ONE, 3)
    result = tmp_path / ONE / "result"
    result.unlink()
    if how == "link":
        (tmp_path / "secret").write_bytes(b"abc")
        result.symlink_to(tmp_path / "secret")
    elif how == "folder":
        result.mkdir()
    elif how == "fifo":
        os.mkfifo(result)
    else:
        result.write_bytes(b"ab")
    with pytest.raises(JobUnavailable):
        folder.open_result(ONE, 3)


def test_a_pipe_where_a_fetch_is_noted_is_waited_for_by_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    finished(folder, ONE)
    os.mkfifo(tmp_path / ONE / "fetched")
    folder.sent(ONE, range(1), 1)
    assert f"job {ONE} was fetched, which cannot be noted" in caplog.text


def test_an_unchanged_record_gives_signs_of_life_without_being_written(tmp_path: Path) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    folder.create(job_record(ONE))
    os.utime(tmp_path / ONE / "job.json", (0, 0))
    before = stamp_of(tmp_path / ONE)
    folder._own[ONE] = before, job_record(ONE)
    for _ in range(2):
        kept = folder._own[ONE][1]
        folder.write(kept)
        after = stamp_of(tmp_path / ONE)
        assert after[0] == before[0]
        assert after[1] > before[1]
    folder.write(kept.with_report(pixels_done=3))
    assert folder.read(ONE).report.pixels_done == 3


def test_an_unchanged_record_that_somebody_else_replaced_is_left_to_him(tmp_path: Path) -> None:
    folder = JobsFolder(tmp_path, 100, KEEP_S)
    mine = job_record(ONE)
    folder.create(mine)
    theirs = replace_record(tmp_path / ONE, lost(mine))
    with pytest.raises(UnknownJob):
        folder.write(mine)
    assert stamp_of(tmp_path / ONE) == theirs


def test_a_job_deleted_while_it_is_sent_is_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    JobsFolder(tmp_path, 100, KEEP_S).sent(ONE, range(1), 1)
    assert not caplog.messages


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
    folder.create(job_record(ONE))
    os.utime(tmp_path / ONE / "job.json", (0, 0))
    folder._own[ONE] = stamp_of(tmp_path / ONE), job_record(ONE)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            folder.write(job_record(ONE, state="done"))
    assert (tmp_path / ONE / "job.json").stat().st_mtime > 1000
    assert [path.name for path in (tmp_path / ONE).iterdir()] == ["job.json"]
    folder.write(job_record(ONE, state="done"))
    assert folder.read(ONE).report.state == "done"


def test_an_id_that_is_given_again_is_deleted_while_files_of_the_former_job_are_still_there(tmp_path: Path) -> None:
    folder = JobsFolder(tmp_path, 1000, KEEP_S)
    finished(folder, ONE, 100)
    folder.forget(ONE)
    folder._set_aside(ONE)  # by a process that has not cleared it away yet
    finished(folder, ONE, 100)
    folder.delete(ONE)
    with pytest.raises(UnknownJob):
        folder.read(ONE)
