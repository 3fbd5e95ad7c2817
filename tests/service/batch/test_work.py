"""Going on after failures, and telling a finished result from one of another time."""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from model.images import UndecodableImage
from service.batch.images import Image
from service.batch.ledger import Ledger, NoRoomForResults, key, write_alone
from service.batch.progress import Progress
from service.batch.segmenters import Result
from service.batch.shard import WHOLE, Shard
from service.batch.targets import Work
from service.batch.work import left_to_do, segment_all

MODEL = {"name": "tiny", "version": "1.0.0", "sha256": "0", "variants": {"int8": "0"}}


@dataclass
class Scripted:
    """Copies an image's bytes, or raises what is named for it."""

    identity: Mapping[str, Any] = field(
        default_factory=lambda: {"service": "1", "model": MODEL, "options": {"output": "mask"}}
    )
    raises: Mapping[str, Exception] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    closed: int = 0

    def segment(self, image: Path) -> Result:
        self.seen.append(image.name)
        if image.name in self.raises:
            raise self.raises[image.name]
        return Result(image.read_bytes(), {"service": self.identity["service"], "model": self.identity["model"]})

    def close(self) -> None:
        self.closed += 1


def works(folder: Path, *names: str) -> list[Work]:
    for name in names:
        (folder / name).write_bytes(name.encode())
    return [Work(Image(folder / name, PurePosixPath(name)), folder / "out" / name) for name in names]


def do(work: list[Work], segmenter: Scripted, out: Path, in_flight: int = 1) -> list[tuple[str, str]]:
    ledger = Ledger(out)
    with ledger.opened(lambda _: None) as interrupted:
        todo = left_to_do(work, ledger, segmenter.identity, interrupted)
        failures = segment_all(todo, segmenter, ledger, in_flight, Progress(len(todo), 0), notes={})
    return [(failure.image.name, failure.type) for failure in failures]


@pytest.mark.parametrize("in_flight", [1, 3])
def test_bad_files_do_not_stop_the_rest_and_are_tried_again(tmp_path: Path, in_flight: int) -> None:
    work = works(tmp_path, "one", "bad", "worse", "gone", "two")
    work[3].source.unlink()
    raises = {"bad": UndecodableImage("broken"), "worse": ZeroDivisionError("why")}
    failures = do(work, Scripted(raises=raises), tmp_path / "out", in_flight)
    assert failures == [
        ("bad", "/problems/undecodable-image"),
        ("gone", "file-error"),
        ("worse", "/problems/internal-error"),
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".unet", "one", "two"]
    again = Scripted()
    assert do(work, again, tmp_path / "out") == [("gone", "file-error")]
    assert again.seen == ["bad", "worse"]


def test_no_result_stays_of_what_an_image_was_before_it_became_unreadable(tmp_path: Path) -> None:
    work = works(tmp_path, "same", "changed")
    do(work, Scripted(), tmp_path / "out")
    work[1].source.write_bytes(b"junk")
    raises = dict.fromkeys(("same", "changed"), UndecodableImage("broken"))
    ledger = Ledger(tmp_path / "out")
    with ledger.opened(lambda _: None):
        failures = segment_all(work, Scripted(raises=raises), ledger, 1, Progress(2, 0), notes={})
    said = {failure.image.name: failure.message for failure in failures}
    assert said == {"same": "broken", "changed": "broken; the result of what was there before has been removed"}
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()} - {"0-of-1"}
    assert left == {"same", "same.json"}


@pytest.mark.parametrize(
    "change",
    [
        {"service": "2"},
        {"model": {**MODEL, "sha256": "1"}},
        {"model": {**MODEL, "variants": {"int8": "1"}}},
        {"model": {**MODEL, "version": "1.0.1"}},
        {"options": {"output": "labels"}},
    ],
    ids=["software", "weights", "int8", "package", "options"],
)
def test_a_result_of_another_time_is_not_taken_for_done(tmp_path: Path, change: dict[str, Any]) -> None:
    work = works(tmp_path, "a")
    do(work, Scripted(), tmp_path / "out")
    same = Scripted()
    do(work, same, tmp_path / "out")
    assert same.seen == []
    other = Scripted(identity={**same.identity, **change})
    do(work, other, tmp_path / "out")
    assert other.seen == ["a"]


@pytest.mark.parametrize("what", ["image", "result", "shortened", "receipt"])
def test_what_changed_or_went_is_done_again(tmp_path: Path, what: str) -> None:
    work = works(tmp_path, "a")
    do(work, Scripted(), tmp_path / "out")
    receipt = tmp_path / "out" / ".unet" / "receipts" / "a.json"
    if what == "image":
        work[0].source.write_bytes(b"new content")
    elif what == "result":
        work[0].target.unlink()
    elif what == "shortened":
        work[0].target.write_bytes(b"")
    else:
        receipt.write_text(receipt.read_text()[:40])
    again = Scripted()
    do(work, again, tmp_path / "out")
    assert again.seen == ["a"]
    assert work[0].target.read_bytes() == work[0].source.read_bytes()


def test_an_old_receipt_does_not_vouch_for_a_new_result(tmp_path: Path) -> None:
    """Killed after the result and before its receipt, with other options than before; then the first options again."""
    (work,) = works(tmp_path, "a")
    do([work], Scripted(), tmp_path / "out")
    ledger = Ledger(tmp_path / "out")
    with ledger.begun(work) as part, pytest.raises(TypeError):
        ledger.finish(work, part, b"X", {"options": object()})
    assert work.target.read_bytes() == b"X"
    assert not ledger.finished(work, Scripted().identity)


def test_what_a_process_was_killed_over_comes_last(tmp_path: Path) -> None:
    work = works(tmp_path, "a", "b", "c")
    parts = tmp_path / "out" / ".unet" / "parts" / "0-of-1"
    parts.mkdir(parents=True)
    (parts / f"{key(work[0])}.1234").write_bytes(b"half")
    segmenter = Scripted()
    do(work, segmenter, tmp_path / "out")
    assert segmenter.seen == ["b", "c", "a"]
    assert list(parts.iterdir()) == []


def test_a_full_disk_ends_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    segmenter = Scripted()
    with pytest.raises(NoRoomForResults, match="make room"):
        do(works(tmp_path, *"abcdefgh"), segmenter, tmp_path / "out")
    assert len(segmenter.seen) < 4
    assert segmenter.closed == 1


def test_a_full_disk_is_said_when_failures_are_listed_and_images_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    ledger = Ledger(tmp_path / "out")
    (work,) = works(tmp_path, "a")
    with ledger.opened(lambda _: None):
        with monkeypatch.context() as patched:
            patched.setattr("os.fsync", full)
            with pytest.raises(NoRoomForResults, match="what is finished stays so"):
                ledger.report([{"image": "a"}], [])
        with monkeypatch.context() as patched:
            patched.setattr(Path, "touch", full)
            with pytest.raises(NoRoomForResults, match="No space left on device"), ledger.begun(work):
                pytest.fail("there is no room for it")


def test_a_ledger_knows_its_results_and_what_they_were_made_from(tmp_path: Path) -> None:
    one, other = works(tmp_path, "a", "b")
    do([one], Scripted(), tmp_path / "out")
    ledger = Ledger(tmp_path / "out")
    assert ledger.has(one.image, one.target)
    assert not ledger.has(other.image, one.target)
    assert not ledger.has(other.image, other.target)
    assert [ledger.made(path) for path in (one.target, other.target, one.source)] == [True, False, False]


def test_failures_are_listed_for_each_shard_and_the_list_goes_with_them(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Shard(1, 4))
    with ledger.opened(lambda _: None):
        path = ledger.report([{"image": "a"}], [])
        assert path == tmp_path / "failures-1-of-4.json"
        assert '"image": "a"' in path.read_text()
        ledger.report([], [])
        assert not path.exists()


def run_shard(shard: Shard, work: list[Work], segmenter: Scripted, out: Path) -> None:
    """A share from its start to its list of failures, as the command does it."""
    mine = [item for item in work if shard.takes(item.image.name)]
    ledger = Ledger(out, shard)
    with ledger.opened(lambda _: pytest.fail("it waits for another")) as interrupted:
        todo = left_to_do(mine, ledger, segmenter.identity, interrupted)
        failures = segment_all(todo, segmenter, ledger, 1, Progress(len(todo), 0), notes={})
        ledger.report([failure.as_json() for failure in failures], [item.source for item in mine])


def listed(out: Path) -> dict[str, list[str]]:
    """Names of the images in each list of failures."""
    return {
        path.name: [Path(entry["image"]).name for entry in json.loads(path.read_text())]
        for path in out.glob("failures*.json")
    }


@pytest.mark.parametrize("shard", [WHOLE, Shard(0, 1000)], ids=str)
def test_a_list_keeps_images_of_other_runs_until_they_have_a_result_or_are_gone(tmp_path: Path, shard: Shard) -> None:
    out, work = tmp_path / "out", works(tmp_path, *"abcd")
    ledger = Ledger(out, shard)

    def run(done: str, failed: str) -> list[str]:
        images = {item.source.name: item.source for item in work}
        with ledger.opened(lambda _: pytest.fail("it waits for another")):
            ledger.report([{"image": str(images[name])} for name in failed], [images[name] for name in done])
        return [name for names in listed(out).values() for name in names]

    assert run("ab", "ab") == ["a", "b"]
    assert run("bcd", "dc") == ["d", "c", "a"]
    work[3].source.unlink()
    assert run("b", "") == ["c", "a"]
    assert run("c", "c") == ["c", "a"]
    assert run("a", "") == ["c"]
    assert run("c", "") == []
    assert not list(out.glob("failures*"))


def test_a_list_keeps_images_of_a_folder_that_is_away_and_no_folder_twice(tmp_path: Path) -> None:
    away, shut = [{"image": str(tmp_path / name)} for name in ("away/a.tif", "away/shut")]
    ledger = Ledger(tmp_path)
    with ledger.opened(lambda _: None):
        path = ledger.report([shut, away], [])
        ledger.report([shut], [])
        assert json.loads(path.read_text()) == [shut, away]
        path.write_text('["what"]')
        ledger.report([shut], [])
        assert json.loads(path.read_text()) == [shut]


@pytest.mark.parametrize("then", [WHOLE, Shard(1, 3)], ids=str)
def test_lists_of_other_shares_keep_what_was_not_done_since(tmp_path: Path, then: Shard) -> None:
    out, work = tmp_path / "out", works(tmp_path, *"abcdefgh")
    broken = Scripted(raises=dict.fromkeys("abcdefgh", UndecodableImage("broken")))
    run_shard(Shard(0, 2), work, broken, out)
    before = listed(out)["failures-0-of-2.json"]
    mine = {name for name in before if then.takes(PurePosixPath(name))}
    assert mine, "the shares have no image in common: nothing is shown"
    run_shard(then, work, Scripted(raises={min(mine): UndecodableImage("still")}), out)
    rest = [name for name in before if name not in mine]
    now = {f"failures{'' if then == WHOLE else '-1-of-3'}.json": [min(mine)]}
    assert listed(out) == now | ({"failures-0-of-2.json": rest} if rest else {})
    run_shard(WHOLE, work, Scripted(), out)
    assert listed(out) == {}


def test_a_list_loses_folders_that_can_be_looked_into_and_is_left_alone_where_it_is_none(tmp_path: Path) -> None:
    entries = [{"image": str(tmp_path / name)} for name in ("folder", "gone")]
    (tmp_path / "folder").mkdir()
    (tmp_path / "failures-0-of-2.json").write_text(json.dumps(entries))
    other = {"failures-1-of-2.json": "[{}]", "failures-2.json": "[]"}
    for name, text in other.items():
        (tmp_path / name).write_text(text)
    run_shard(WHOLE, [], Scripted(), tmp_path)
    assert json.loads((tmp_path / "failures-0-of-2.json").read_text()) == entries[1:]
    assert {name: (tmp_path / name).read_text() for name in other} == other


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_nothing_of_another_share_is_touched_while_a_process_works_on_it(tmp_path: Path) -> None:
    out, work = tmp_path / "out", works(tmp_path, "a", "b")
    other = Ledger(out, Shard(0, 1000))
    with other.opened(lambda _: None), other.begun(work[0]) as part:
        path = other.report([{"image": str(work[0].source)}], [])
        seen = Scripted()
        run_shard(WHOLE, work, seen, out)
        assert seen.seen == ["a", "b"], "its image is at work, not left over"
        assert part.exists()
        assert listed(out) == {path.name: ["a"]}
    run_shard(WHOLE, work, Scripted(), out)
    assert listed(out) == {}


def test_what_a_process_of_another_share_was_killed_over_comes_last_and_is_removed(tmp_path: Path) -> None:
    out, work = tmp_path / "out", works(tmp_path, *"abcdefgh")
    parts = out / ".unet" / "parts" / "2-of-3"
    parts.mkdir(parents=True)
    now = [Shard(index, 2) for index in (0, 1)]
    halves = {shard: [item for item in work if shard.takes(item.image.name)] for shard in now}
    assert all(len(half) > 1 for half in halves.values()), "no image could come last"
    for half in halves.values():
        (parts / f"{key(half[0])}.1234").write_bytes(b"half")
    (parts / "failures").write_bytes(b"[")
    for shard, half in halves.items():
        segmenter = Scripted()
        run_shard(shard, work, segmenter, out)
        assert segmenter.seen == [item.image.name.name for item in (*half[1:], half[0])]
    assert list(parts.iterdir()) == []


def test_a_result_that_cannot_be_written_leaves_no_debris(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_alone(tmp_path / "taken", b"mask")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_log_gets_a_line_now_and_then_with_the_time_left() -> None:
    now = [0.0]
    stream = io.StringIO()
    progress = Progress(4, 100, stream=stream, clock=lambda: now[0])
    for seconds, size, failed in [(5.0, 10, False), (30.0, 20, True), (40.0, 20, False), (100.0, 50, False)]:
        now[0] = seconds
        progress.advance(size, failed=failed)
    assert stream.getvalue() == "2 of 4 images (1 failed), 30 % of the bytes, 01:10 left\n"
    assert progress.seconds_left() == 0
