"""A package takes its place as a whole or not at all, and no file that belongs to something else is lost for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.package import Package, read_package, write_package
from tests.packages import with_variant, write_tiny_package
from training.drafts import drafted, require_place
from training.errors import ExportError


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
