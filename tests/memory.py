"""Peak memory of this process alone.

``ru_maxrss`` will not do: a started process inherits it from the one that started it, however large that was.
"""

from __future__ import annotations

from pathlib import Path

RESET_PEAK = "5"  # proc(5), /proc/PID/clear_refs


def reset_peak() -> None:
    """Let the peak begin anew from what is resident now."""
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)


def peak_kib() -> int:
    """Peak resident memory in KiB since this program was started or the peak was reset."""
    return _status_kib("VmHWM:")


def resident_kib() -> int:
    """Resident memory in KiB."""
    return _status_kib("VmRSS:")


def _status_kib(line: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(line)[2].split()[0])
