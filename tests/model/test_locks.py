"""Locks go with their process, and what has none is told apart from what is held."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from model.locks import NO_LOCKS, release, take, wait_for


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT)


def test_one_has_it_until_it_lets_go(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "lock"), opened(tmp_path / "lock")
    assert take(first)
    assert not take(second)
    release(first)
    assert take(second)
    os.close(second)
    assert take(first)
    os.close(first)


@pytest.mark.parametrize("number", sorted(NO_LOCKS))
def test_a_file_system_without_locks_is_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    file = opened(tmp_path / "lock")
    with pytest.raises(OSError, match=os.strerror(number)) as told:
        take(file)
    assert told.value.errno in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF}
    release(file)
    os.close(file)


def test_who_waits_is_told_once_and_has_it_once_it_is_free(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "lock"), opened(tmp_path / "lock")
    assert take(first)
    told: list[bool] = []

    def waiting() -> None:
        told.append(True)
        threading.Thread(target=release, args=(first,)).start()

    assert wait_for(second, waiting=waiting) is True
    assert told == [True]
    assert wait_for(first, 0) is False
    os.close(second)
    os.close(first)


def test_nobody_waits_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    file = opened(tmp_path / "lock")
    assert wait_for(file) is None
    os.close(file)
