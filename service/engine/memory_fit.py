"""Whether working memory, uploads and nets fit together into what the process may take: at the start, and later."""

from __future__ import annotations

import logging

from service.engine.options import Budget
from service.engine.resources import memory_conflict, memory_limit, temporary_memory
from service.telemetry import fields

_LOG = logging.getLogger("unet.engine")


class MemoryFit:
    """Logs the working memory, which stays what it is, and warns where it does not fit beside what else there is.

    Parameters
    ----------
    budget
        What it is, and what the nets take beside which it is looked at first.
    is_set
        Whether the settings say it.

    """

    def __init__(self, budget: Budget, *, is_set: bool) -> None:
        self._is_set = is_set
        self._total = budget.total
        limit = memory_limit()
        shown = fields(
            budget_mb=self._total >> 20,
            limit_mb=limit and limit >> 20,
            temporary_mb=temporary_memory() >> 20,
            nets_mb=budget.nets >> 20,
        )
        _LOG.info("working memory", extra=shown)
        self.conflict: str | None = None
        """What does not fit, by which figures, and what to change; None where all does."""
        self.look(budget.nets)

    def look(self, nets: int) -> None:
        """Look whether it fits beside nets of so many bytes; reads files of the system, so call it in a thread."""
        former = self.conflict
        self.conflict = memory_conflict(self._total, memory_limit(), temporary_memory(), nets, is_set=self._is_set)
        if self.conflict is not None and self.conflict != former:
            _LOG.warning("%s", self.conflict)
        elif former is not None and self.conflict is None:
            _LOG.info("working memory and packages fit into the limit again")
