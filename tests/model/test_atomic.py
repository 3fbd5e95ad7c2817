"""A file is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.atomic import replacing


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
