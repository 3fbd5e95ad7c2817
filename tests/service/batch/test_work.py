"""Going on after failures, and telling a finished result from one of another time."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import httpx
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from model.atomic import put
from model.backends import OnnxRuntimeSession
from model.images import UndecodableImage
from service.api.parameters import SegmentParameters
from service.batch.files import replace, stamp, write_alone
from service.batch.images import Image
from service.batch.ledger import Ledger, NoRoomForResults, key
from service.batch.progress import Progress
from service.batch.receipts import NotReplaced
from service.batch.segmenters import by_server, in_process
from service.batch.shard import WHOLE, Shard
from service.batch.targets import Work
from service.batch.work import Tally, left_to_do, segment_all
from service.client import RECEIPT, Client, ServiceGone, ServiceProblem, ServiceUnreachable
from service.settings import Settings
from tests.images import disc
from tests.live import wait_until
from tests.packages import write_tiny_package

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
    waits_for: Sequence[str] = ()
    done_of: Mapping[Path, float] = field(default_factory=dict)

    def segment(self, image: Path, into: IO[bytes]) -> dict[str, Any]:
        self.seen.append(image.name)
        if image.name in self.raises:
            raise self.raises[image.name]
        into.write(image.read_bytes())
        return {"service": self.identity["service"], "model": self.identity["model"]}

    def close(self) -> None:
        self.closed += 1


def works(folder: Path, *names: str) -> list[Work]:
    for name in names:
        (folder / name).write_bytes(name.encode())
    return [Work(Image(folder / name, PurePosixPath(name)), folder / "out" / name) for name in names]


def do(
    work: list[Work], segmenter: Scripted, out: Path, in_flight: int = 1, *, overwrite: bool = False
) -> list[tuple[str, str]]:
    ledger = Ledger(out, overwrite=overwrite)
    with ledger.opened(lambda _: None) as interrupted:
        todo, _ = left_to_do(work, ledger, segmenter.identity, interrupted)
        tally = Tally(Progress(len(todo), 0))
        segment_all(todo, segmenter, ledger, in_flight, tally)
    return sorted((failure.image.name, failure.type) for failure in tally.failures)


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
        tally = Tally(Progress(2, 0))
        segment_all(work, Scripted(raises=raises), ledger, 1, tally)
    said = {failure.image.name: failure.message for failure in tally.failures}
    assert said == {"same": "broken", "changed": "broken; the result of what was there before has been removed"}
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()} - {"0-of-1"}
    assert left == {"same", "same.json"}


@pytest.mark.parametrize(
    "error",
    [
        ServiceUnreachable("no answer"),
        ServiceProblem({"type": "/problems/unauthorized", "status": 401}),
        ServiceProblem({"type": "/problems/overloaded", "status": 503}),
        ServiceProblem({"status": 429}),
        ServiceProblem({"type": "/problems/body-too-large", "status": 413}),
        ServiceProblem({"type": "/problems/invalid-parameter", "status": 422}),
        OSError("the disk is away"),
        ZeroDivisionError(),
    ],
    ids=repr,
)
def test_a_result_stays_where_its_image_has_changed_but_is_not_why_it_fails(tmp_path: Path, error: Exception) -> None:
    (work,) = works(tmp_path, "a")
    do([work], Scripted(), tmp_path / "out")
    work.source.write_bytes(b"changed")
    assert len(do([work], Scripted(raises={"a": error}), tmp_path / "out")) == 1
    assert work.target.read_bytes() == b"a"
    unreadable = ServiceProblem({"type": "/problems/undecodable-image", "status": 422})
    do([work], Scripted(raises={"a": unreadable}), tmp_path / "out")
    assert not work.target.exists()


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


@pytest.mark.parametrize("what", ["image", "result"])
def test_what_changed_or_went_is_done_again(tmp_path: Path, what: str) -> None:
    work = works(tmp_path, "a")
    do(work, Scripted(), tmp_path / "out")
    if what == "image":
        work[0].source.write_bytes(b"new content")
    else:
        work[0].target.unlink()
    again = Scripted()
    do(work, again, tmp_path / "out")
    assert again.seen == ["a"]
    assert work[0].target.read_bytes() == work[0].source.read_bytes()


@pytest.mark.parametrize("files", [1, 2], ids=["before the result", "before its receipt"])
def test_killed_between_a_result_and_its_receipts_the_image_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    """With other options than before; then the first options again: no receipt vouches for the other's result."""
    (work,) = works(tmp_path, "a")
    do([work], Scripted(), tmp_path / "out")
    ledger = Ledger(tmp_path / "out")
    left: list[Callable[..., None]] = [replace, put]
    del left[files:]

    def until_killed(*given: Any) -> None:
        left.pop(0)(*given)

    receipt = {"name": "a", "identity": Scripted().identity, "image": stamp(work.source)}
    with ledger.begun(work) as part, monkeypatch.context() as patched:
        part.write_bytes(b"X")
        for name in ("replace", "put"):
            patched.setattr(f"service.batch.ledger.{name}", until_killed)
        with pytest.raises(IndexError):
            ledger.finish(work, part, receipt)
    assert work.target.read_bytes() == (b"a" if files == 1 else b"X")
    assert not ledger.receipts.state(work, Scripted().identity)
    again = Scripted()
    assert do([work], again, tmp_path / "out") == []
    assert again.seen == ["a"]
    assert work.target.read_bytes() == b"a"


@pytest.mark.parametrize("what", ["corrected", "emptied", "receipt", "never ours", "other image", "link"])
def test_what_was_changed_or_not_made_here_is_not_replaced(tmp_path: Path, what: str) -> None:
    work = works(tmp_path, "a", "b")
    target, out = work[0].target, tmp_path / "out"
    if what != "never ours":
        do(work, Scripted(), out)
    receipt = out / ".unet" / "receipts" / "a.json"
    if what == "corrected":
        target.write_bytes(b"A")
    elif what == "emptied":
        target.write_bytes(b"")
    elif what == "receipt":
        receipt.write_text(receipt.read_text()[:40])
    elif what == "never ours":
        out.mkdir()
        target.write_bytes(b"by hand")
    elif what == "other image":
        work[0] = Work(Image(work[1].source, PurePosixPath("b")), target)
    else:
        target.unlink()
        target.symlink_to(tmp_path / "nowhere")
    before = None if what == "link" else target.read_bytes()
    other = Scripted(identity={**Scripted().identity, "service": "2"})
    assert do(work, other, out) == [(work[0].source.name, "not-replaced")]
    assert other.seen == ["b"], "the net ran for nothing"
    assert target.is_symlink() if before is None else target.read_bytes() == before
    assert do(work, other, out, overwrite=True) == []
    assert target.read_bytes() == work[0].source.read_bytes()
    assert not target.is_symlink()
    assert do(work, other, out) == []


def test_a_corrected_result_counts_as_there_as_long_as_image_and_options_are_the_same(tmp_path: Path) -> None:
    work = works(tmp_path, "a", "b", "c")
    out = tmp_path / "out"
    do(work, Scripted(), out)
    work[0].target.write_bytes(b"by hand")
    work[1].target.write_bytes(b"")
    work[2].target.write_bytes(b"by hand, too")
    work[2].source.write_bytes(b"changed")
    identity = Scripted().identity
    todo, corrected = left_to_do(work, Ledger(out), identity, frozenset())
    assert ([item.source.name for item in todo], corrected) == (["b", "c"], 1)
    assert do(work, Scripted(), out) == [("b", "not-replaced"), ("c", "not-replaced")]
    other = {**identity, "service": "2"}
    assert left_to_do(work, Ledger(out), other, frozenset())[1] == 0
    assert do(work, Scripted(), out, overwrite=True) == []
    assert work[0].target.read_bytes() == b"a"


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_a_result_of_another_folder_is_neither_replaced_nor_removed_nor_taken_for_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """Cameras number their files anew each day; here both have the same size and time, too."""
    out = tmp_path / "nightly"
    days = []
    for name, content in (("day1", b"one"), ("day2", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_bytes(content)
        os.utime(tmp_path / name / "a", ns=(0, 0))
        days.append(Work(Image(tmp_path / name / "a", PurePosixPath("a")), out / "a"))
    monkeypatch.chdir(tmp_path / "day1")
    do([Work(Image(Path("a"), PurePosixPath("a")), out / "a")], Scripted(), out)
    monkeypatch.chdir(tmp_path / "day2")
    second = Scripted(raises={"a": UndecodableImage("cut")} if cut else {})
    ledger = Ledger(out)
    with ledger.opened(lambda _: None):
        tally = Tally(Progress(1, 0))
        segment_all(left_to_do(days[1:], ledger, second.identity, frozenset())[0], second, ledger, 1, tally)
    (failure,) = tally.failures
    assert failure.type == "not-replaced"
    assert f"was made from '{tmp_path}/day1/a', which is still there; use another -o, or give" in failure.message
    assert second.seen == [], "the net ran for nothing"
    assert days[0].target.read_bytes() == b"one"
    assert not ledger.withdraw(days[1])
    assert do(days[1:], Scripted(), out, overwrite=True) == []
    assert days[0].target.read_bytes() == b"two"


@pytest.mark.parametrize("elsewhere", ["moved", "linked", "copied"])
def test_images_that_lie_elsewhere_today_are_the_same(tmp_path: Path, elsewhere: str) -> None:
    out, there, here = tmp_path / "out", tmp_path / "there", tmp_path / "here"
    there.mkdir()
    (work,) = works(there, "a")
    do([Work(work.image, out / "a")], Scripted(), out)
    if elsewhere == "moved":
        there.rename(here)
    elif elsewhere == "linked":
        here.symlink_to(there)
    else:
        shutil.copytree(there, here)
    moved = [Work(Image(here / "a", PurePosixPath("a")), out / "a")]
    same = Scripted()
    assert do(moved, same, out) == []
    assert same.seen == []
    other = Scripted(identity={**same.identity, "service": "2"})
    assert do(moved, other, out) == []
    assert other.seen == ["a"]


def test_what_is_changed_while_its_image_is_segmented_is_not_replaced(tmp_path: Path) -> None:
    (work,) = works(tmp_path, "a")
    ledger = Ledger(tmp_path / "out")
    with ledger.opened(lambda _: None), ledger.begun(work) as part:
        ledger.check(work)
        work.target.write_bytes(b"by hand")
        with pytest.raises(NotReplaced, match=r"was not made here; move it, or give --overwrite"):
            ledger.finish(work, part, {})
    assert work.target.read_bytes() == b"by hand"


def test_a_corrected_result_stays_where_its_image_changes_and_fails(tmp_path: Path) -> None:
    (work,) = works(tmp_path, "a")
    do([work], Scripted(), tmp_path / "out")
    work.target.write_bytes(b"by hand")
    work.source.write_bytes(b"junk")
    ledger = Ledger(tmp_path / "out", overwrite=True)
    with ledger.opened(lambda _: None):
        segment_all([work], Scripted(raises={"a": UndecodableImage("broken")}), ledger, 1, Tally(Progress(1, 0)))
    assert work.target.read_bytes() == b"by hand"


def test_a_result_whose_name_leaves_no_room_for_more_is_made_once(tmp_path: Path) -> None:
    work = works(tmp_path, "a" * 253)
    segmenter = Scripted()
    for _ in range(2):
        assert do(work, segmenter, tmp_path / "out") == []
    assert len(segmenter.seen) == 1


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


def test_a_server_that_is_gone_ends_the_batch(tmp_path: Path) -> None:
    work = works(tmp_path, *"abcd")
    segmenter = Scripted(raises={"b": ServiceGone("away")})
    with pytest.raises(ServiceGone):
        do(work, segmenter, tmp_path / "out")
    assert "d" not in segmenter.seen
    assert segmenter.closed == 1
    assert work[0].target.exists()


def test_a_result_of_a_server_may_take_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in this process; what the server allows comes first."""
    (work,) = works(tmp_path, "a")
    patience_s: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        patience_s.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, headers={RECEIPT: "{}"}, content=b"mask")

    monkeypatch.setattr("service.batch.segmenters.Client", partial(Client, transport=httpx.MockTransport(answer)))
    into = io.BytesIO()
    with by_server("http://x", SegmentParameters().request("png"), pytest.fail) as segmenter:
        segmenter.segment(work.source, into)
    assert into.getvalue() == b"mask"
    assert patience_s == [86_400]


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
    assert ledger.receipts.made_as(one.image, one.target) is not None
    assert ledger.receipts.made_as(other.image, one.target) is None
    assert ledger.receipts.made_as(other.image, other.target) is None
    assert [ledger.receipts.made(path) for path in (one.target, other.target, one.source)] == [True, False, False]


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
        todo, _ = left_to_do(mine, ledger, segmenter.identity, interrupted)
        tally = Tally(Progress(len(todo), 0))
        segment_all(todo, segmenter, ledger, 1, tally)
        ledger.report([failure.as_json() for failure in tally.failures], [item.source for item in mine])


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


def test_a_list_holds_from_whatever_folder_the_next_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        works(tmp_path / name, "a")
    monkeypatch.chdir(tmp_path / "one")
    run_shard(
        WHOLE,
        [Work(Image(Path("a"), PurePosixPath("a")), out / "a")],
        Scripted(raises={"a": UndecodableImage("broken")}),
        out,
    )
    assert [entry["image"] for entry in json.loads((out / "failures.json").read_text())] == [
        str(tmp_path / "one" / "a")
    ]
    monkeypatch.chdir(tmp_path / "other")
    run_shard(WHOLE, [Work(Image(Path("a"), PurePosixPath("b")), out / "b")], Scripted(), out)
    assert listed(out) == {"failures.json": ["a"]}, "another file of this name was done, not this one"
    run_shard(WHOLE, [Work(Image(Path("../one/a"), PurePosixPath("a")), out / "a")], Scripted(), out)
    assert listed(out) == {}


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
        write_alone(tmp_path / "taken", io.BytesIO(b"mask"))
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


def test_a_log_gets_a_line_though_no_image_is_done_and_says_what_for() -> None:
    now = [0.0]
    stream = io.StringIO()
    progress = Progress(4, 100, stream=stream, clock=lambda: now[0])
    for seconds, size in [(5.0, 0), (20.0, 0), (30.0, 25), (81.0, 0)]:
        now[0] = seconds
        if size:
            progress.advance(size, failed=False)
        progress.look(["503 Overloaded: 9 s", "another"] if seconds < 80 else [], 0)
    assert stream.getvalue().splitlines() == [
        "0 of 4 images, 0 % of the bytes; 2 wait: 503 Overloaded: 9 s",
        "1 of 4 images, 25 % of the bytes, 00:39 left",
    ]


def test_one_image_that_is_nearly_all_of_the_work_has_a_time_left_that_holds() -> None:
    now = [0.0]
    stream = io.StringIO()
    progress = Progress(10, 1000, stream=stream, clock=lambda: now[0])
    for second in range(1, 10):
        now[0] = second
        progress.advance(10, failed=False)
    assert progress.seconds_left() == pytest.approx(91), "as long as the small ones took, for each byte"
    now[0] = 60.0
    assert progress.seconds_left() == pytest.approx(40), "of which the large one has had the rest"
    progress.look([], 0)
    now[0] = 120.0
    progress.look([], 0)
    now[0] = 180.0
    progress.look([], 460)
    assert progress.seconds_left() == pytest.approx(180 * 450 / 550)
    assert stream.getvalue().splitlines() == [
        "9 of 10 images, 9 % of the bytes, 00:40 left",
        "9 of 10 images, 9 % of the bytes",
        "9 of 10 images, 55 % of the bytes, 02:27 left",
    ]
    now[0] = 200.0
    progress.advance(910, failed=False)
    assert progress.seconds_left() == 0


def test_what_is_done_of_images_in_work_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.batch.work._LOOK_S", 0.01)
    (work,) = works(tmp_path, "a")
    work.source.write_bytes(bytes(100))
    told, looked = list[float](), threading.Event()

    class Looking(Progress):
        def look(self, waits_for: Sequence[str], begun_bytes: float) -> None:
            told.append(begun_bytes)
            looked.set()

    class Busy(Scripted):
        def segment(self, image: Path, into: IO[bytes]) -> dict[str, Any]:
            assert looked.wait(30)
            return super().segment(image, into)

    ledger = Ledger(tmp_path / "out")
    with ledger.opened(lambda _: None):
        segment_all([work], Busy(done_of={work.source: 0.25}), ledger, 1, Tally(Looking(1, 100)))
    assert set(told) == {25.0}


def test_an_image_in_this_process_tells_how_much_of_it_is_through_the_net(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, armed, go_on, calls = OnnxRuntimeSession.run, threading.Event(), threading.Event(), itertools.count()

    def held(self: OnnxRuntimeSession, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        if armed.is_set() and next(calls) > 0:
            assert go_on.wait(60)
        return run(self, tiles)

    monkeypatch.setattr(OnnxRuntimeSession, "run", held)
    write_tiny_package(tmp_path / "packages")
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, np.stack([disc(), 255 - disc()]), photometric="minisblack")
    settings = Settings(models_dir=tmp_path / "packages", backend="cpu", threads=1, cache_dir="none")
    request = SegmentParameters().request("tiff")
    with in_process(settings, request) as segmenter, ThreadPoolExecutor(1) as thread, io.BytesIO() as into:
        assert not segmenter.done_of
        armed.set()
        segmented = thread.submit(segmenter.segment, stack, into)
        try:
            wait_until(lambda: segmenter.done_of.get(stack, 0) > 0)
            assert segmenter.done_of == {stack: 0.5}
        finally:
            go_on.set()
        segmented.result(60)
        assert not segmenter.done_of


def test_progress_is_looked_at_while_images_are_in_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.batch.work._LOOK_S", 0.01)
    stream, looked = io.StringIO(), threading.Event()

    class Busy(Scripted):
        def segment(self, image: Path, into: IO[bytes]) -> dict[str, Any]:
            assert looked.wait(30), "nobody looks while an image is in work"
            return super().segment(image, into)

    class Looking(Progress):
        def look(self, waits_for: Sequence[str], begun_bytes: float) -> None:
            super().look(waits_for, begun_bytes)
            if stream.getvalue():
                looked.set()

    ticks = itertools.count(0, 5)
    (work,) = works(tmp_path, "a")
    ledger = Ledger(tmp_path / "out")
    with ledger.opened(lambda _: None):
        tally = Tally(Looking(2, 1, stream=stream, clock=lambda: float(next(ticks))))
        segment_all([work], Busy(waits_for=["503 Overloaded"]), ledger, 1, tally)
    assert stream.getvalue() == "0 of 2 images, 0 % of the bytes; 1 wait: 503 Overloaded\n"
