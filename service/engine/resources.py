"""What the container allows: CPUs by affinity and control group, version 1 or 2."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = _CGROUP) -> int:
    """Number of CPUs that this process may keep busy: affinity, cut by the control group's quota; at least 1."""
    cpus = len(os.sched_getaffinity(0))
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return max(1, min(cpus, math.ceil(quota))) if quota else cpus


def _quota_v2(cgroup: Path) -> float | None:
    """CPUs' worth of quota from ``cpu.max`` (``max 100000`` or ``150000 100000``, microseconds)."""
    quota, _, period = _text(cgroup / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _quota_v1(cgroup: Path) -> float | None:
    """CPUs' worth of quota from ``cpu.cfs_quota_us`` (-1: none) over ``cpu.cfs_period_us``."""
    quota, period = (_text(cgroup / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
