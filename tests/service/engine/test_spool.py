"""Arrays in files: they hold what is written, are forgotten in memory, and leave nothing behind."""

from __future__ import annotations

import gc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine import spool as spool_module
from service.engine.errors import SpoolFull
from service.engine.spool import Spool


def files_in(folder: Path) -> list[str]:
    """Open files of this process under a folder, nameless ones too."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread has closed it meanwhile
            found.append(str(link.readlink()))
    return [name for name in found if name.startswith(str(folder))]


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


def test_a_disk_without_room_is_an_error_and_no_crash(tmp_path: Path) -> None:
    with pytest.raises(SpoolFull, match=r"MB are needed.*UNET_SPOOL_DIR"):
        Spool(str(tmp_path)).array((1 << 30, 1 << 28), np.dtype(np.uint8))
    assert files_in(tmp_path) == []


def test_a_folder_that_does_not_exist_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(SpoolFull, match="UNET_SPOOL_DIR"):
        Spool(str(tmp_path / "nowhere")).file()
