"""A package takes its place as a whole or not at all, and no file that belongs to something else is lost for it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from model import swapping
from model.package import Package, read_package, write_package
from tests.packages import with_variant, write_tiny_package
from training.errors import ExportError
from training.packaging.drafts import drafted, recover, require_place

# writes a package, and is killed at a moment of it
DRIVER = """
import os, signal, sys
from pathlib import Path
from model import swapping
from model.package import read_package
from training.packaging import drafts

moment, place, sound = sys.argv[1], Path(sys.argv[2]), read_package(Path(sys.argv[3]))

def killed(function, *, before):
    def act(*arguments):
        result = None if before else function(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
        return result
    return act

if moment == "written":
    drafts.write_package = killed(drafts.write_package, before=False)
elif moment == "tried":
    drafts.put_in_place = killed(drafts.put_in_place, before=True)
elif moment == "swapped":
    drafts.put_in_place = killed(drafts.put_in_place, before=False)
else:
    swapping.exchanged = lambda one, other: False
    Path.rename = killed(Path.rename, before=False)
with drafts.drafted(place, sound.spec, sound.own_files()):
    pass
"""


class Refused(Exception):
    """What a draft is not found sound for."""


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def sound(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """What shall be written."""
    return write_tiny_package(tmp_path_factory.mktemp("sound"), version="2.0.0")


def put(sound: Package, path: Path) -> Package:
    with drafted(path, sound.spec, sound.own_files()) as draft:
        assert draft.path.name == path.resolve().name
        draft.check_files()
    return read_package(path)


@pytest.mark.parametrize("name", ["new", "deep/er/new", "new.zip", "new.ZIP"])
def test_a_refused_draft_leaves_nothing(sound: Package, tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused), drafted(tmp_path / name, sound.spec, sound.own_files()):
        raise Refused
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("name", ["new", "deep/er/new", "new.zip", "new.ZIP"])
def test_a_sound_draft_is_put_in_its_place(sound: Package, tmp_path: Path, name: str) -> None:
    put(sound, tmp_path / name).check_files()
    assert (tmp_path / name).is_file() == name.lower().endswith(".zip")
    assert len(list((tmp_path / name).parent.iterdir())) == 1


@pytest.mark.parametrize("zipped", [False, True])
def test_a_package_stays_whole_where_its_successor_is_refused(sound: Package, tmp_path: Path, *, zipped: bool) -> None:
    former = write_tiny_package(tmp_path)
    if zipped:
        former = write_package(tmp_path / "tiny.zip", former.spec, former.own_files())
    before = contents(tmp_path)
    with pytest.raises(Refused), drafted(former.path, sound.spec, sound.own_files()):
        raise Refused
    assert contents(tmp_path) == before
    assert put(sound, former.path).spec.version == "2.0.0"


def test_nothing_of_the_former_package_stays_but_what_is_not_its_own(sound: Package, tmp_path: Path) -> None:
    former, outside = with_variant(write_tiny_package(tmp_path)), tmp_path / "outside"
    outside.mkdir()
    (outside / "weights.onnx").write_text("not the package's")
    (former.path / "link").symlink_to(outside)
    (former.path / "notes").mkdir()
    (former.path / "notes" / "mine.txt").write_text("mine")
    linked = tmp_path / "linked"
    linked.symlink_to(former.path)
    assert (former.path / "int8.onnx").exists()
    put(sound, linked)
    names = {entry.name for entry in former.path.iterdir()}
    assert names == {entry.name for entry in sound.path.iterdir()} | {"link", "notes"}
    assert read_package(former.path).spec.version == "2.0.0"
    assert (former.path / "notes" / "mine.txt").read_text() == "mine"
    assert (outside / "weights.onnx").read_text() == "not the package's"
    assert {entry.name for entry in tmp_path.iterdir()} == {"linked", "outside", "tiny"}
    assert linked.is_symlink()


@pytest.mark.parametrize(
    ("lying", "place", "reason"),
    [
        (
            "run/best.pt",
            "run",
            "is the folder of something else: it has no rdf.yaml, but 1 other entries, best.pt the f",
        ),
        ("run/rdf.yaml", "run", "is no package that can be replaced"),
        ("images.zip", "images.zip", "is no package that can be replaced"),
        ("best.pt", "best.pt", "is a file already; expected a folder, or a name that ends in .zip"),
        ("x.zip/a", "x.zip", "is a folder already; expected a zip"),
        ("best.pt", "best.pt/deep/package", "best.pt is a file; name another place"),
    ],
)
def test_what_is_no_package_is_left_alone(sound: Package, tmp_path: Path, lying: str, place: str, reason: str) -> None:
    (tmp_path / lying).parent.mkdir(exist_ok=True)
    (tmp_path / lying).write_text("- mine")
    before = contents(tmp_path)
    with pytest.raises(ExportError) as caught:
        put(sound, tmp_path / place)
    assert reason in str(caught.value)
    assert str(tmp_path / place) in str(caught.value)
    assert contents(tmp_path) == before


def test_the_folder_that_the_command_runs_in_is_not_taken_away_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_tiny_package(tmp_path).path)
    with pytest.raises(ExportError, match="the folder that the command runs in"):
        require_place(Path())


def killed(moment: str, place: Path, sound: Package) -> None:
    """Write a package in a process that is killed at a moment."""
    program = [sys.executable, "-c", DRIVER, moment, str(place), str(sound.path)]
    finished = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == -signal.SIGKILL, finished.stderr


@pytest.mark.parametrize(("moment", "version"), [("written", "0.1.0"), ("tried", "0.1.0"), ("swapped", "2.0.0")])
def test_a_kill_leaves_a_whole_package_and_the_next_one_takes_away_what_it_left(
    sound: Package, tmp_path: Path, moment: str, version: str
) -> None:
    place = write_tiny_package(tmp_path, version="0.1.0").path
    (place / "mine.txt").write_text("mine")
    killed(moment, place, sound)
    left = [entry.name for entry in tmp_path.iterdir() if entry != place]
    assert len(left) == 1
    assert left[0].startswith(".tiny-")
    package = read_package(place)
    package.check_files()
    assert package.spec.version == version
    assert put(sound, place).spec.version == "2.0.0"
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny"]
    assert (place / "mine.txt").read_text() == "mine"


def test_a_package_that_a_kill_has_hidden_is_put_back(sound: Package, tmp_path: Path) -> None:
    place = write_tiny_package(tmp_path, version="0.1.0").path
    before = contents(place)
    killed("between", place, sound)
    assert not place.exists(), "where folders cannot be exchanged there is a moment without one"
    recover(place)
    assert contents(place) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("draft", [True, False])
def test_what_older_versions_have_hidden_is_put_back(sound: Package, tmp_path: Path, *, draft: bool) -> None:
    place = write_tiny_package(tmp_path, version="0.1.0").path
    before = contents(place)
    place.rename(tmp_path / ".tiny-a_b3c4d5.old")
    if draft:
        shutil.copytree(sound.path, tmp_path / ".tiny-a_b3c4d5" / "tiny")
    recover(place)
    assert contents(place) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny"]


def test_what_is_no_leftover_of_the_place_stays(sound: Package, tmp_path: Path) -> None:
    place = write_tiny_package(tmp_path).path
    others = [".tiny-personal/notes.txt", ".tiny-abcdefgh/tiny.zip", ".other-abcdefgh.draft/other/rdf.yaml"]
    for name in others:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("mine")
    put(sound, place)
    assert all((tmp_path / name).read_text() == "mine" for name in others)
    shutil.copytree(sound.path, tmp_path / ".tiny-01234567" / "tiny")  # of an older version that was killed
    put(sound, place)
    assert not (tmp_path / ".tiny-01234567").exists()


def test_the_draft_of_a_process_at_work_is_left_to_it(sound: Package, tmp_path: Path) -> None:
    place = write_tiny_package(tmp_path, version="0.1.0").path
    with drafted(place, sound.spec.model_copy(update={"version": "3.0.0"}), sound.own_files()) as slow:
        assert put(sound, place).spec.version == "2.0.0"
        slow.check_files()
    assert read_package(place).spec.version == "3.0.0"
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two folders")
def test_a_package_is_exchanged_at_one_stroke(sound: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken_away(path: Path, target: Path) -> None:
        raise AssertionError(f"{path} is renamed to {target}: for a moment there is no package")

    place = write_tiny_package(tmp_path, version="0.1.0").path
    monkeypatch.setattr(Path, "rename", taken_away)
    assert put(sound, place).spec.version == "2.0.0"


def test_without_an_exchange_a_package_is_replaced_as_well(
    sound: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write_tiny_package(tmp_path, version="0.1.0").path
    monkeypatch.setattr(swapping, "exchanged", lambda *_: False)
    assert put(sound, place).spec.version == "2.0.0"
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny"]
    before, rename = contents(place), Path.rename

    def refused(path: Path, target: Path) -> Path:
        if target == place and path.name == "tiny":
            raise PermissionError(path)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(PermissionError):
        put(sound, place)
    assert contents(place) == before
