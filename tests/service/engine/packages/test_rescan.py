"""Packages that come, change and go: what is served after each look, and what a look leaves for the next one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from model.package import RDF_NAME
from model.session import SessionOptions
from service.engine.errors import UnknownModel
from service.engine.packages.finding import fingerprint
from service.engine.packages.loading import LoadedModel
from service.engine.packages.planning import PlanLimits
from service.engine.packages.registry import load_registry
from service.engine.packages.rescan import Rescan
from tests.packages import put_package, write_tiny_package
from tests.permissions import open_to_all, shut

OPTIONS, LIMITS = SessionOptions(backend="cpu", threads=1), PlanLimits(1 << 22)


def watched(*folders: Path, default: str | None = None) -> Rescan:
    return Rescan(load_registry(folders, default, OPTIONS, LIMITS), default, OPTIONS, LIMITS, None)


def look(rescan: Rescan) -> None:
    """All that is done about one look."""
    for due in rescan.look():
        rescan.load(due.path)
    rescan.drop()


def served(rescan: Rescan) -> list[str]:
    return [model.package.spec.reference for model in rescan.registry.models]


def model(rescan: Rescan, reference: str | None) -> LoadedModel:
    return rescan.registry.get(reference)


def test_a_new_package_is_served_once_two_looks_have_seen_the_same(tmp_path: Path) -> None:
    put_package(tmp_path, "cells")
    rescan = watched(tmp_path)
    put_package(tmp_path, "nuclei")
    look(rescan)
    assert served(rescan) == ["cells@1.0.0"]
    look(rescan)
    assert served(rescan) == ["cells@1.0.0", "nuclei@1.0.0"]
    assert rescan.look() == (), "nothing is loaded twice"


def test_a_pipe_where_a_zip_was_is_refused_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    place = put_package(tmp_path / "made", "cells")
    archive = Path(shutil.make_archive(str(tmp_path / "packages" / "cells"), "zip", place))
    rescan = watched(tmp_path / "packages")
    archive.unlink()
    os.mkfifo(archive)
    for _ in range(2):
        look(rescan)
    assert "no regular file" in rescan.registry.refused["cells.zip"]
    assert served(rescan) == ["cells@1.0.0"]


def test_one_that_is_still_being_copied_is_left_alone(tmp_path: Path) -> None:
    put_package(tmp_path, "cells")
    rescan = watched(tmp_path)
    whole = write_tiny_package(tmp_path / ".source", name="nuclei").path
    (tmp_path / "nuclei").mkdir()
    for name in (RDF_NAME, "README.md", "test_input.npy", "test_output.npy"):
        shutil.copy(whole / name, tmp_path / "nuclei" / name)
        assert rescan.look() == ()
    weights = (whole / "weights.onnx").read_bytes()
    with (tmp_path / "nuclei" / "weights.onnx").open("wb") as file:
        for half in (weights[:100], weights[100:]):
            file.write(half)
            file.flush()
            assert rescan.look() == ()
    look(rescan)
    assert served(rescan) == ["cells@1.0.0", "nuclei@1.0.0"]
    assert rescan.registry.refused == {}


def test_a_copy_that_paused_for_too_long_is_refused_until_it_is_whole(tmp_path: Path) -> None:
    put_package(tmp_path, "cells")
    rescan = watched(tmp_path)
    weights = put_package(tmp_path, "nuclei") / "weights.onnx"
    content = weights.read_bytes()
    weights.write_bytes(content[:100])
    for _ in range(2):
        look(rescan)
    assert "sha256" in rescan.registry.refused["nuclei"]
    weights.write_bytes(content)
    for _ in range(2):
        look(rescan)
    assert served(rescan) == ["cells@1.0.0", "nuclei@1.0.0"]
    assert rescan.registry.refused == {}


def test_a_higher_version_is_what_the_name_means_from_then_on(tmp_path: Path) -> None:
    put_package(tmp_path, "cells", "1.9.0", "cells-1.9")
    rescan = watched(tmp_path)
    put_package(tmp_path, "cells", "1.10.0", "cells-1.10")
    for _ in range(2):
        look(rescan)
    assert model(rescan, "cells") is model(rescan, None) is model(rescan, "cells@1.10.0")
    assert model(rescan, "cells@1.9.0")


def test_the_default_stays_the_one_of_its_name_whatever_comes(tmp_path: Path) -> None:
    put_package(tmp_path, "cells")
    rescan = watched(tmp_path)
    for name, version, place in (("bacteria", "1.0.0", "bacteria"), ("cells", "2.0.0", "cells-2")):
        put_package(tmp_path, name, version, place)
        for _ in range(2):
            look(rescan)
    assert model(rescan, None) is model(rescan, "cells@2.0.0")
    for place in ("cells", "cells-2"):
        shutil.rmtree(tmp_path / place)
    for _ in range(2):
        look(rescan)
    assert model(rescan, None) is model(rescan, "bacteria")


def test_of_what_lies_below_a_package_no_more_than_a_thousand_files_are_looked_at(tmp_path: Path) -> None:
    place = put_package(tmp_path, "cells")
    bare = fingerprint(place)
    for folder in ("pictures", ".git"):
        (place / folder / "deep").mkdir(parents=True)
        for number in range(600):
            (place / folder / f"{number}.txt").touch()
            (place / folder / "deep" / f"{number}.txt").touch()
    seen = fingerprint(place)
    assert set(bare) < set(seen)
    assert len(seen) == len(bare) + 1000
    assert not any(name.startswith(".git") for name, *_ in seen)
    (place / "pictures" / "1.txt").write_text("changed")
    assert fingerprint(place) != seen


def test_a_package_that_was_moved_into_another_does_not_go_unnoticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = put_package(tmp_path, "cells")
    rescan = watched(tmp_path)
    put_package(tmp_path, "cells", "2.0.0", ".cells").rename(place / ".cells")
    for _ in range(3):
        look(rescan)
    assert served(rescan) == ["cells@1.0.0"]
    assert caplog.text.count("cells holds another package, .cells, which is not served") == 1


def test_one_replaced_under_its_version_is_not_said_to_be_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_package(tmp_path, "cells")
    rescan = watched(tmp_path)
    before = model(rescan, None)
    with caplog.at_level("INFO", "unet.engine"):
        put_package(tmp_path, "cells")
        for _ in range(2):
            look(rescan)
        assert model(rescan, None) is not before
        assert "served no longer" not in caplog.text
        put_package(tmp_path, "cells", "2.0.0")
        for _ in range(2):
            look(rescan)
    assert caplog.text.count("cells@1.0.0 is served no longer") == 1


def test_a_package_that_changes_takes_its_own_place_when_it_has_passed(tmp_path: Path) -> None:
    put_package(tmp_path, "cells", "1.0.0")
    rescan = watched(tmp_path)
    put_package(tmp_path, "cells", "2.0.0")
    look(rescan)
    (due,) = rescan.look()
    assert served(rescan) == ["cells@1.0.0"], "while it is loaded"
    rescan.load(due.path)
    rescan.drop()
    assert served(rescan) == ["cells@2.0.0"]
    assert (rescan.registry.refused, rescan.registry.kept) == ({}, {})


@pytest.mark.parametrize("harm", ["weights", "description gone", "description wrong"])
def test_a_package_that_breaks_goes_on_as_it_was(tmp_path: Path, harm: str) -> None:
    place = put_package(tmp_path, "cells")
    rescan = watched(tmp_path)
    before = model(rescan, "cells")
    if harm == "weights":
        (place / "weights.onnx").write_bytes(b"no net")
    elif harm == "description gone":
        (place / RDF_NAME).unlink()
    else:
        (place / RDF_NAME).write_text("type: model")
    for _ in range(3):
        look(rescan)
    assert model(rescan, None) is before
    assert list(rescan.registry.refused) == ["cells"]
    assert rescan.registry.kept == {"cells@1.0.0": "what is in its place now is not served"}
    put_package(tmp_path, "cells", "1.0.1")
    for _ in range(2):
        look(rescan)
    assert served(rescan) == ["cells@1.0.1"]
    assert (rescan.registry.refused, rescan.registry.kept) == ({}, {})


def test_what_broke_gives_way_to_a_sound_package_of_its_name_and_version(tmp_path: Path) -> None:
    place = put_package(tmp_path, "cells")
    rescan = watched(tmp_path)
    before = model(rescan, "cells")
    (place / "weights.onnx").write_bytes(b"no net")
    put_package(tmp_path, "cells", place="mended")
    for _ in range(2):
        look(rescan)
    assert served(rescan) == ["cells@1.0.0"]
    assert model(rescan, "cells") is not before
    assert rescan.registry.kept == {}


def test_of_several_one_may_be_taken_away(tmp_path: Path) -> None:
    put_package(tmp_path, "cells")
    gone = put_package(tmp_path, "nuclei")
    rescan = watched(tmp_path)
    shutil.rmtree(gone)
    look(rescan)
    assert served(rescan) == ["cells@1.0.0", "nuclei@1.0.0"]
    look(rescan)
    assert served(rescan) == ["cells@1.0.0"]
    with pytest.raises(UnknownModel):
        model(rescan, "nuclei")
    assert rescan.registry.kept == {}


@pytest.mark.parametrize("emptied", [True, False], ids=["empty", "not there"])
def test_a_volume_that_goes_away_takes_nothing_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, emptied: bool
) -> None:
    folder, away = tmp_path / "packages", tmp_path / "away"
    for name in ("cells", "nuclei"):
        put_package(folder, name)
    put_package(tmp_path / "others", "tissue")
    rescan = watched(folder, tmp_path / "others")
    before = rescan.registry.models
    folder.rename(away)
    if emptied:
        folder.mkdir()
    for _ in range(4):
        look(rescan)
    assert rescan.registry.models == before
    assert rescan.registry.kept.keys() == {"cells@1.0.0", "nuclei@1.0.0"}
    assert all(f"no package is left in {folder}" in reason for reason in rescan.registry.kept.values())
    assert len([r for r in caplog.records if "cells@1.0.0 is served on" in r.message]) == 1, "said once"
    shutil.rmtree(folder, ignore_errors=True)
    away.rename(folder)
    for _ in range(2):
        assert rescan.look() == (), "as it was: nothing is loaded again"
        rescan.drop()
    assert rescan.registry.models == before
    assert rescan.registry.kept == {}
    shutil.rmtree(folder / "nuclei")
    for _ in range(2):
        look(rescan)
    assert served(rescan) == ["cells@1.0.0", "tissue@1.0.0"]


def test_a_folder_that_cannot_be_read_for_a_moment_takes_nothing_with_it() -> None:
    with open_to_all() as place:
        folder = place / "packages"
        put_package(folder, "cells")
        put_package(place / "others", "tissue")
        rescan = watched(folder, place / "others")
        before = rescan.registry.models
        with shut(folder):
            for _ in range(3):
                assert rescan.look() == ()
                rescan.drop()
            assert "cannot be looked into" in rescan.registry.refused[str(folder)]
        assert rescan.registry.models == before
        assert rescan.look() == (), "as it was: nothing is loaded again"
        assert rescan.registry.models == before
        assert rescan.registry.refused == rescan.registry.kept == {}


def test_a_folder_that_cannot_be_read_at_first_is_served_once_it_can_and_forgotten_where_it_is_empty() -> None:
    with open_to_all() as place:
        folder = place / "packages"
        put_package(folder, "cells")
        put_package(place / "others", "tissue")
        with shut(folder):
            rescan = watched(folder, place / "others")
            assert served(rescan) == ["tissue@1.0.0"]
        for _ in range(2):
            look(rescan)
        assert served(rescan) == ["cells@1.0.0", "tissue@1.0.0"]
        (place / "empty").mkdir()
        with shut(place / "empty"):
            rescan = watched(place / "empty", place / "others")
            assert rescan.registry.refused.keys() == {str(place / "empty")}
        rescan.look()
        assert rescan.registry.refused == {}


@pytest.mark.parametrize("sound", [True, False], ids=["sound", "broken"])
def test_what_comes_back_changed_is_served_as_before_until_it_has_passed(tmp_path: Path, sound: bool) -> None:
    folder, away = tmp_path / "packages", tmp_path / "away"
    put_package(folder, "cells")
    put_package(folder, "tissue")
    rescan = watched(folder)
    before = model(rescan, "tissue")
    folder.rename(away)
    for _ in range(2):
        look(rescan)
    put_package(away, "tissue", "1.1.0")
    if not sound:
        (away / "tissue" / "weights.onnx").write_bytes(b"no net")
    away.rename(folder)
    look(rescan)
    assert model(rescan, "tissue") is before
    look(rescan)
    assert served(rescan) == ["cells@1.0.0", "tissue@1.1.0" if sound else "tissue@1.0.0"]
    assert list(rescan.registry.refused) == ([] if sound else ["tissue"])


def test_the_default_that_is_named_is_not_lost(tmp_path: Path) -> None:
    gone = put_package(tmp_path, "cells")
    put_package(tmp_path, "nuclei")
    rescan = watched(tmp_path, default="cells")
    before = model(rescan, None)
    shutil.rmtree(gone)
    for _ in range(3):
        look(rescan)
    assert model(rescan, None) is before
    assert "nothing else serves requests that name no model" in rescan.registry.kept["cells@1.0.0"]
    put_package(tmp_path, "cells", "1.1.0")
    for _ in range(2):
        look(rescan)
    assert served(rescan) == ["cells@1.1.0", "nuclei@1.0.0"]
    assert rescan.registry.kept == {}


def test_nor_is_it_by_what_takes_its_place(tmp_path: Path) -> None:
    put_package(tmp_path, "cells", place="served")
    rescan = watched(tmp_path, default="cells@1.0.0")
    before = model(rescan, None)
    for version in ("1.1.0", "1.2.0"):
        put_package(tmp_path, "cells", version, place="served")
        for _ in range(2):
            look(rescan)
        assert model(rescan, None) is before
        assert served(rescan) == [f"cells@{version}", "cells@1.0.0"]


def test_the_only_package_gives_way_to_its_successor_when_that_has_passed(tmp_path: Path) -> None:
    gone = put_package(tmp_path, "cells")
    rescan = watched(tmp_path)
    before = model(rescan, None)
    shutil.rmtree(gone)
    broken = put_package(tmp_path, "nuclei") / "weights.onnx"
    content = broken.read_bytes()
    broken.write_bytes(b"no net")
    for _ in range(3):
        look(rescan)
    assert model(rescan, None) is before
    broken.write_bytes(content)
    for _ in range(2):
        look(rescan)
    assert served(rescan) == ["nuclei@1.0.0"]


def test_a_package_that_is_renamed_is_there_all_the_time(tmp_path: Path) -> None:
    put_package(tmp_path, "tissue")
    place = put_package(tmp_path, "cells")
    rescan = watched(tmp_path)
    before = model(rescan, "cells")
    place.rename(tmp_path / "cells-of-today")
    look(rescan)
    (due,) = rescan.look()
    assert model(rescan, "cells") is before
    rescan.load(due.path)
    assert model(rescan, "cells") is not before
    rescan.drop()
    assert served(rescan) == ["cells@1.0.0", "tissue@1.0.0"]
    assert (rescan.registry.refused, rescan.registry.kept) == ({}, {})


def test_what_waits_for_memory_holds_back_only_what_it_comes_in_place_of(tmp_path: Path) -> None:
    for name in ("cells", "gone", "renamed", "moved"):
        put_package(tmp_path, name)
    rescan = watched(tmp_path)
    (tmp_path / "renamed").rename(tmp_path / "a")
    (tmp_path / "moved").rename(tmp_path / "b")
    put_package(tmp_path, "moved", "1.1.0", place="b")
    shutil.rmtree(tmp_path / "gone")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "rdf.yaml").write_text("no package")
    for version in ("1.1.0", "1.2.0"):
        put_package(tmp_path, "cells", version)
        for _ in range(2):
            waiting = {due.path for due in rescan.look()}
            if tmp_path / "cells" in waiting:
                rescan.load(tmp_path / "cells")
            rescan.drop(waiting - {tmp_path / "cells"})
        assert waiting >= {tmp_path / name for name in ("a", "b", "broken")}
        assert served(rescan) == [f"cells@{version}", "moved@1.0.0", "renamed@1.0.0"]
    for path in sorted(waiting):
        rescan.load(path)
    rescan.drop()
    assert served(rescan) == ["cells@1.2.0", "moved@1.1.0", "renamed@1.0.0"]
    assert rescan.registry.kept == {}


def test_what_another_package_took_the_place_of_is_served_until_it_is_loaded_elsewhere(tmp_path: Path) -> None:
    place = put_package(tmp_path, "cells")
    rescan = watched(tmp_path)
    place.rename(tmp_path / "moved")
    put_package(tmp_path, "nuclei", place="cells")
    rescan.look()
    assert {due.path for due in rescan.look()} == {place, tmp_path / "moved"}
    rescan.load(place)
    rescan.drop([tmp_path / "moved"])
    assert served(rescan) == ["cells@1.0.0", "nuclei@1.0.0"]
    rescan.drop()
    assert served(rescan) == ["nuclei@1.0.0"]


def test_of_two_alike_the_second_takes_over_where_the_first_goes(tmp_path: Path) -> None:
    first = put_package(tmp_path, "cells", place="a")
    put_package(tmp_path, "cells", place="b")
    rescan = watched(tmp_path)
    assert rescan.registry.refused == {"b": "cells@1.0.0 is served from a already"}
    shutil.rmtree(first)
    for _ in range(2):
        look(rescan)
    assert model(rescan, "cells").package.path == tmp_path / "b"
    assert rescan.registry.refused == {}


def test_of_two_alike_the_first_is_served_whichever_came_first(tmp_path: Path) -> None:
    put_package(tmp_path, "cells", place="b")
    rescan = watched(tmp_path)
    put_package(tmp_path, "cells", place="a")
    for _ in range(2):
        look(rescan)
    assert model(rescan, "cells").package.path == tmp_path / "a"
    assert rescan.registry.refused == {"b": "cells@1.0.0 is served from a already"}


def test_who_asks_says_that_all_is_in_place_and_has_what_was_refused_tried_again(tmp_path: Path) -> None:
    put_package(tmp_path, "cells")
    (put_package(tmp_path, "broken") / "weights.onnx").write_bytes(b"no net")
    rescan = watched(tmp_path)
    nuclei = put_package(tmp_path, "nuclei")
    assert [due.path for due in rescan.look(asked=True)] == [tmp_path / "broken", nuclei]


def test_what_is_no_package_stays_none_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put_package(tmp_path, "cells")
    rescan = watched(tmp_path)
    (tmp_path / "lost+found").mkdir()
    is_file = Path.is_file

    def refusing(path: Path) -> bool:
        if path.parent.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refusing)
    for _ in range(3):
        assert rescan.look() == ()
    assert len([record for record in caplog.records if "lost+found is left out" in record.message]) == 1
