"""A file is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import swapping
from model.atomic import put, replacing


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A folder ``a``, and ``part`` that is to replace it; each has a file of its name."""
    found = tmp_path / "a", tmp_path / "part"
    for folder in found:
        folder.mkdir()
        (folder / folder.name).touch()
    return found


@pytest.mark.parametrize("part", [False, True], ids=["beside it", "where it is said"])
def test_what_is_written_has_its_place_at_the_end_alone(tmp_path: Path, part: bool) -> None:
    target = tmp_path / "folder" / "a"
    with replacing(target, tmp_path / "a.part" if part else None) as file:
        file.write(b"half")
        file.flush()
        assert not target.exists()
        file.write(b", whole")
    assert target.read_bytes() == b"half, whole"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [target]


@pytest.mark.parametrize("part", [False, True], ids=["beside it", "where it is said"])
def test_an_error_leaves_the_former_file_and_nothing_beside_it(tmp_path: Path, part: bool) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"former")

    def interrupted() -> None:
        with replacing(target, tmp_path / "a.part" if part else None) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_takes_the_place_of_another_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    target, part = tmp_path / "above" / "a", tmp_path / "part"
    for content in (b"former", b"new"):
        (part / "deep").mkdir(parents=True)
        (part / "deep" / "file").write_bytes(content)
        put(target, part)
        assert (target / "deep" / "file").read_bytes() == content
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [target / "deep" / "file"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_takes_the_place_of_a_file_or_a_link_and_what_that_leads_to_stays(tmp_path: Path, kind: str) -> None:
    target, part, far = tmp_path / "a", tmp_path / "part", tmp_path / "far"
    for folder in (part, far):
        folder.mkdir()
        (folder / "file").touch()
    if kind == "link":
        target.symlink_to(far)
    else:
        target.touch()
    put(target, part)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "far"]
    assert not target.is_symlink()
    assert (far / "file").exists()
    assert (target / "file").exists()


def test_a_folder_that_cannot_have_its_place_leaves_the_former_one(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, part = folders
    rename = Path.rename

    def refused(path: Path, to: Path) -> Path:
        if path == part and not to.exists():
            raise PermissionError(13, "not today")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refused)
    monkeypatch.setattr(swapping, "exchanged", lambda *_: False)
    with pytest.raises(PermissionError):
        put(target, part)
    assert (target / "a").exists()
    assert (part / "part").exists()


def test_there_is_no_moment_without_a_folder(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    target, part = folders
    rename = Path.rename

    def stays(path: Path, to: Path) -> Path:
        assert path != target
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", stays)
    put(target, part)
    assert (target / "part").exists()
    assert list(target.parent.iterdir()) == [target]
