"""CPUs and memory that the container allows, control groups of both versions."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from service.engine.resources import (
    available_cpus,
    give_memory_back,
    memory_budget,
    memory_conflict,
    memory_limit,
    temporary_memory,
)

ALL = len(os.sched_getaffinity(0))
MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ALL),
        ({"cpu.max": "max 100000"}, ALL),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "6400000 100000"}, ALL),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, ALL),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu.max": "nonsense"}, ALL),
    ],
)
def test_the_quota_cuts_the_number_of_cpus(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert available_cpus(tmp_path) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, MACHINE),
        ({"memory.max": "max"}, MACHINE),
        ({"memory.max": "1073741824"}, 1 << 30),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, MACHINE),
        ({"memory/memory.limit_in_bytes": "536870912"}, 512 << 20),
        ({"memory.max": "nonsense"}, MACHINE),
    ],
)
def test_the_memory_limit_is_the_control_groups_or_the_machines(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path) == expected


@pytest.mark.parametrize(
    ("groups", "files", "memory_mb", "cpus"),
    [
        ("0::/lab/unet.service", {"lab/unet.service/memory.max": "629145600"}, 600, ALL),
        ("0::/lab/unet.service", {"lab/unet.service/memory.max": "max", "lab/memory.max": "629145600"}, 600, ALL),
        ("0::/lab/unet.service", {"lab/unet.service/cpu.max": "100000 100000", "lab/cpu.max": "max 100000"}, None, 1),
        ("0::/lab/unet.service", {"lab/cpu.max": "50000 100000"}, None, 1),
        ("0::/lab", {"lab/unet.service/memory.max": "629145600", "other/memory.max": "1048576"}, None, ALL),
        ("0::/docker/1f0", {"memory.max": "629145600"}, 600, ALL),
        ("0::/../other", {"memory.max": "629145600"}, 600, ALL),
        ("9:memory:/slurm/job_7\n3:cpu:/", {"memory/slurm/job_7/memory.limit_in_bytes": "629145600"}, 600, ALL),
        (
            "4:cpu,cpuacct:/slurm/job_7\n9:memory:/",
            {"cpu/slurm/job_7/cpu.cfs_quota_us": "100000", "cpu/slurm/job_7/cpu.cfs_period_us": "100000"},
            None,
            1,
        ),
    ],
)
def test_limits_of_the_groups_that_this_process_is_in_count_and_of_those_above(
    tmp_path: Path, groups: str, files: dict[str, str], memory_mb: int | None, cpus: int
) -> None:
    """As of ``MemoryMax=`` and ``CPUQuota=`` of a systemd unit, or of a SLURM job."""
    process, root = tmp_path / "cgroup", tmp_path / "fs"
    process.write_text(groups + "\n")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert memory_limit(root, process) == (MACHINE if memory_mb is None else memory_mb << 20)
    assert available_cpus(root, process) == cpus


@pytest.mark.parametrize(
    ("setting_mb", "limit_mb", "temporary_mb", "nets_mb", "expected_mb"),
    [
        (0, 65536, 0, 96, 2048),
        (0, 4096, 1024, 96, 2048),
        (0, 1024, 256, 96, 384),
        (0, 1024, 0, 0, 640),
        (0, 1024, 256, 196, 284),  # what ships takes 96 MiB, which the process has anyway
        (0, 1024, 1024, 96, 128),  # the least that tiles need; the log warns
        (0, 1024, 0, 700, 128),  # likewise
        (0, None, 1024, 96, 2048),
        (3000, 1024, 256, 96, 3000),  # what is set counts
    ],
)
def test_the_memory_budget_is_what_the_limit_leaves_unless_it_is_set(
    setting_mb: int, limit_mb: int | None, temporary_mb: int, nets_mb: int, expected_mb: int
) -> None:
    limit = None if limit_mb is None else limit_mb << 20
    budget = memory_budget(setting_mb, limit, temporary_mb << 20, nets_mb << 20)
    assert budget == expected_mb << 20
    fits = limit is None or (expected_mb + 384 + max(0, nets_mb - 96) + temporary_mb) << 20 <= limit
    assert (memory_conflict(budget, limit, temporary_mb << 20, nets_mb << 20) is None) == fits


@pytest.mark.parametrize(
    ("budget_mb", "is_set", "remedy"),
    [
        (600, False, "or restart, for 440 MiB of it"),
        (600, True, "or lower UNET_MEMORY_BUDGET_MB"),
    ],
)
def test_a_new_start_lowers_working_memory_that_is_not_set(budget_mb: int, remedy: str, *, is_set: bool) -> None:
    conflict = memory_conflict(budget_mb << 20, 1024 << 20, 0, 296 << 20, is_set=is_set)
    assert conflict is not None
    assert "nets of 296 MiB included, are 1184 MiB, the limit is 1024 MiB: raise the limit" in conflict
    assert conflict.endswith(remedy)


def test_only_a_temporary_folder_in_memory_takes_memory(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"overlay / overlay rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n")
    size = os.statvfs(tmp_path)
    assert temporary_memory(tmp_path, mounts) == size.f_blocks * size.f_frsize > 0
    assert temporary_memory(tmp_path.parent, mounts) == 0
    assert temporary_memory(tmp_path, tmp_path / "missing") == 0


def test_where_no_folder_can_be_written_none_takes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing ends for it here: the engine is not ready then, and says why."""

    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    assert temporary_memory() == 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators decide themselves")
def test_memory_between_pieces_in_use_is_given_back() -> None:
    process = psutil.Process()
    pieces = [np.ones(64 << 10, np.uint8) for _ in range(2000)]
    kept = pieces[::100]
    before = process.memory_info().rss
    del pieces
    give_memory_back()
    assert before - process.memory_info().rss > 60 << 20
    assert all(piece.all() for piece in kept)


_HEAPS = """
import ctypes, threading
from service.engine.resources import share_one_heap

share_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
threads = [threading.Thread(target=libc.malloc, args=(100_000,)) for _ in range(8)]
for started in (threading.Thread.start, threading.Thread.join):
    for thread in threads:
        started(thread)
output = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, ctypes.c_void_p(output))
libc.fclose(ctypes.c_void_p(output))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_threads_share_one_heap() -> None:
    output = subprocess.run([sys.executable, "-c", _HEAPS], check=True, capture_output=True, text=True).stdout
    assert output.count("<heap ") == 1
