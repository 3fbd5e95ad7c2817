"""Runs of the net that are made one after the other for one caller, who gets all their answers at once."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Series:
    """What came before one of these runs, and what is looked at with it."""

    memory_bytes: int = 0
    """Of answers that are ready."""
    disk_bytes: int = 0
    """Likewise in the spool folder."""
    seconds: float = 0.0
    """Since the caller asked."""
    runs: int = 1
    """Of equal pixels, for which there must be time: this one, or all of them where it is the first."""
    owner: object | None = None
    """Under which the answers are charged; None where there is one alone."""

    def plus(self, size: int, *, in_memory: bool) -> Series:
        """Return it with an answer of so many bytes ready."""
        memory, disk = (size, 0) if in_memory else (0, size)
        return replace(self, memory_bytes=self.memory_bytes + memory, disk_bytes=self.disk_bytes + disk)


SINGLE = Series()
"""One run for all that a caller wants, asked for now."""
