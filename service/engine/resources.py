"""What this process is allowed: CPUs by affinity and control group, memory by control group, version 1 or 2.

A container sees its own group at the root of the file system of groups; a unit of systemd or a job of SLURM lies
somewhere below, and each group above it limits it too.
"""

from __future__ import annotations

import ctypes
import math
import os
import tempfile
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_PROCESS_GROUPS = Path("/proc/self/cgroup")
_MOUNTS = Path("/proc/self/mounts")
_MOST_BUDGET = 2048 << 20  # more makes no tile faster, and is there for whoever asks for it
_LEAST_BUDGET = 128 << 20  # below it the tiles of a classic net do not fit
_M_ARENA_MAX = -8  # mallopt(3)
_PROCESS = 384 << 20  # interpreter, libraries and the packages that ship about 300 MiB, uploads that stay in memory 64
_FEW_NETS = 96 << 20  # of that


def memory_budget(setting_mb: int, limit: int | None, temporary: int, nets: int = 0) -> int:
    """Working memory for tiles, images and results of all requests together, bytes.

    Parameters
    ----------
    setting_mb
        What the settings say, MiB; 0 for what fits.
    limit
        Memory that this process may take, bytes; see :func:`memory_limit`.
    temporary
        What uploads may take of it, bytes; see :func:`temporary_memory`.
    nets
        What the nets of all packages take of it, bytes.

    """
    if setting_mb:
        return setting_mb << 20
    free = _MOST_BUDGET if limit is None else limit - _process(nets) - temporary
    return max(_LEAST_BUDGET, min(_MOST_BUDGET, free))


def memory_conflict(
    budget: int, limit: int | None, temporary: int, nets: int = 0, *, is_set: bool = True
) -> str | None:
    """Say what may together exceed the limit, and what to change; None where all fits.

    Parameters
    ----------
    budget
        Working memory, bytes.
    limit, temporary, nets
        As for :func:`memory_budget`.
    is_set
        Whether the settings say it; else a new start takes what fits then.

    """
    process = _process(nets)
    total = budget + process + temporary
    if limit is None or total <= limit:
        return None
    next_time = memory_budget(0, limit, temporary, nets)
    is_lowered = not is_set and next_time < budget
    lower = f"restart, for {next_time >> 20} MiB of it" if is_lowered else "lower UNET_MEMORY_BUDGET_MB"
    return (
        f"working memory of {budget >> 20} MiB, a temporary folder in memory of {temporary >> 20} MiB and "
        f"{process >> 20} MiB for the process, its nets of {nets >> 20} MiB included, are {total >> 20} MiB, the limit "
        f"is {limit >> 20} MiB: raise the limit, make the tmpfs smaller, serve fewer packages, or {lower}"
    )


def _process(nets: int) -> int:
    """Bytes of all that is neither working memory nor uploads."""
    return _PROCESS + max(0, nets - _FEW_NETS)


def memory_limit(cgroup: Path = _CGROUP, process: Path = _PROCESS_GROUPS) -> int | None:
    """Bytes that this process may take: the control groups' limit, at most what the machine has; None if unknown."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        machine = None
    # without a limit version 2 says max, version 1 a number beyond all machines
    texts = [_text(group / "memory.max") for group in _groups("", cgroup, process)]
    texts += [_text(group / "memory.limit_in_bytes") for group in _groups("memory", cgroup, process)]
    limits = [int(text) for text in texts if text.isdigit()]
    return min([*limits, *([machine] if machine else [])], default=None)


def temporary_memory(folder: Path | None = None, mounts: Path = _MOUNTS) -> int:
    """Bytes of memory that files in the temporary folder may take: its size where it is a tmpfs, else 0."""
    try:
        folder = (folder or Path(tempfile.gettempdir())).resolve()
    except FileNotFoundError:  # no folder can be written; what needs one says so
        return 0
    points = {Path(line.split()[1]): line.split()[2] for line in _text(mounts).splitlines()}
    for point in (folder, *folder.parents):
        if point in points:
            if points[point] != "tmpfs":
                return 0
            size = os.statvfs(folder)
            return size.f_blocks * size.f_frsize
    return 0


def available_cpus(cgroup: Path = _CGROUP, process: Path = _PROCESS_GROUPS) -> int:
    """Number of CPUs that this process may keep busy: affinity, cut by the control groups' quotas; at least 1."""
    cpus = len(os.sched_getaffinity(0))
    # version 2: max 100000 or 150000 100000; version 1: -1 for none; microseconds
    texts = [_text(group / "cpu.max") for group in _groups("", cgroup, process)]
    texts += [
        f"{_text(group / 'cpu.cfs_quota_us')} {_text(group / 'cpu.cfs_period_us')}"
        for group in _groups("cpu", cgroup, process)
    ]
    parts = [text.split() for text in texts]
    quotas = [(int(part[0]), int(part[1])) for part in parts if len(part) == 2 and all(map(str.isdigit, part))]
    return max(1, min([cpus, *(math.ceil(quota / period) for quota, period in quotas if period)]))


def share_one_heap() -> None:
    """Have all threads that start from now on allocate from the one heap of the process, where the C library is glibc.

    By default each gets one of its own, up to eight for each CPU, which keeps what was freed for that thread alone: the
    process grows as long as images of new sizes come.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_memory_back() -> None:
    """Return memory that was freed to the system: glibc keeps what lies between pieces that are in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _groups(controller: str, cgroup: Path, process: Path) -> list[Path]:
    """Folders of the groups that this process is in, its own last; ``controller`` of version 1, empty for version 2."""
    root = cgroup / controller
    own = Path("/")
    for line in _text(process).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            own = Path(path)
    # a container's group may be told as seen from outside, /docker/1f0...: no such folder, and the root is its own
    return [root / part.relative_to("/") for part in (*reversed(own.parents), own)]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
