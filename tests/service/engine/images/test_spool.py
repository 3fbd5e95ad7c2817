"""Arrays in files: they hold what is written, are forgotten in memory, and leave nothing behind."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.errors import SpoolFull
from service.engine.images import spool as spool_module
from service.engine.images.spool import Spool, SpoolShare


def files_in(folder: Path) -> list[str]:
    """Open and mapped files of this process under a folder, nameless ones too."""
    found = open_files()
    for line in Path("/proc/self/maps").read_text().splitlines():
        found += [f"/{path}" for _, slash, path in [line.partition("/")] if slash]
    return sorted({name for name in found if name.startswith(str(folder))})


def open_files() -> list[str]:
    """What this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread has closed it meanwhile
            found.append(str(link.readlink()))
    return found


@contextmanager
def most_open_files(more: int) -> Iterator[None]:
    """Let this process open so many files more than its highest one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(link.name) for link in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@given(data=st.data())
def test_a_spooled_array_is_the_array_whatever_is_forgotten_between(data: st.DataObject) -> None:
    shape = (23, 31, 2)
    plain = np.zeros(shape, dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_module, "MAPPED_BYTES", data.draw(st.integers(0, 4000)))
        spooled = Spool(None).array(shape, plain.dtype)
        assert spooled.shape == shape
        assert spooled.dtype == np.float32
        for value in range(1, data.draw(st.integers(2, 12))):
            rows, columns = (slice(*sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2)))) for n in shape[:2])
            plain[rows, columns] = value
            spooled[rows, columns] = value
            part = spooled[rows]
            spooled[::-1, 0]  # reading elsewhere makes it forget; the view that is held stays what it was
            assert np.array_equal(part, plain[rows])
        assert np.array_equal(spooled[:, :], plain)


def test_what_has_been_touched_does_not_stay_in_memory(tmp_path: Path) -> None:
    process = psutil.Process()
    rows, width = 1 << 11, 1 << 17  # 256 MB
    spooled = Spool(str(tmp_path)).array((rows, width), np.dtype(np.uint8))
    before, most = process.memory_info().rss, 0
    for row in range(0, rows, 16):
        spooled[row : row + 16] = row % 251
        most = max(most, process.memory_info().rss)
    for row in range(0, rows, 16):
        assert (spooled[row : row + 16, ::4096] == row % 251).all()
        most = max(most, process.memory_info().rss)
    assert most - before < 3 * spool_module.MAPPED_BYTES


def test_files_have_no_name_and_end_with_their_arrays(tmp_path: Path) -> None:
    array = Spool(str(tmp_path)).array((100, 100), np.dtype(np.uint8))
    part: Any = array[:10]
    part[...] = 7
    assert list(tmp_path.iterdir()) == []
    assert len(files_in(tmp_path)) == 1
    del array, part
    gc.collect()
    assert files_in(tmp_path) == []


def test_a_request_that_is_over_frees_its_room_whoever_holds_its_arrays(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    ended, goes_on = SpoolShare(spool), SpoolShare(spool)
    array, other = (share.array((100, 100), np.dtype(np.uint8)) for share in (ended, goes_on))
    part = ended.array((50, 50), np.dtype(np.uint8))[:10]  # without its array, as a traceback may have it
    other[:] = 7
    assert len(files_in(tmp_path)) == 1 + 2
    ended.close()
    assert len(files_in(tmp_path)) == 1
    with pytest.raises(ValueError, match="closed"):
        array[0]
    with pytest.raises(ValueError, match="closed"):
        array[0] = 1
    assert (other[:] == 7).all()
    assert part.shape == (10, 50)  # it may be held, but not be touched
    goes_on.close()
    assert files_in(tmp_path) == []


def test_more_arrays_than_open_files_are_held(tmp_path: Path) -> None:
    """A plane of a stack is one; a thousand planes are as many as the limit of open files often is."""
    spool = Spool(str(tmp_path))
    with most_open_files(10):
        arrays = [spool.array((3, 5), np.dtype(np.uint16)) for _ in range(300)]
    for value, array in enumerate(arrays):
        array[:] = value
    assert not [path for path in open_files() if path.startswith(str(tmp_path))]
    assert all((array[:] == value).all() for value, array in enumerate(arrays))


def test_a_limit_of_open_files_is_named(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    with most_open_files(0), ExitStack() as held:
        with suppress(OSError):
            while True:
                held.enter_context(Path("/dev/null").open())
        with pytest.raises(SpoolFull, match=r"1 more file is .* files; .*ulimit -n"):
            spool.file()


def test_a_limit_of_mapped_files_is_named(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (8 << 20), before[1]))
    try:
        with pytest.raises(SpoolFull, match=r"1 more mapped file is needed .*vm\.max_map_count"):
            Spool(str(tmp_path)).array((64 << 20,), np.dtype(np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert files_in(tmp_path) == []


def test_a_disk_without_room_is_an_error_and_no_crash(tmp_path: Path) -> None:
    with pytest.raises(SpoolFull, match=r"MB are needed.*UNET_SPOOL_DIR"):
        Spool(str(tmp_path)).array((1 << 30, 1 << 28), np.dtype(np.uint8))
    assert files_in(tmp_path) == []


def test_a_folder_that_does_not_exist_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(SpoolFull, match="UNET_SPOOL_DIR"):
        Spool(str(tmp_path / "nowhere")).file()
