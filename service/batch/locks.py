"""Which shares of a batch no process works for: locks on files (:mod:`model.locks`)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from model.locks import take, wait_for


def idle(locks: Path, labels: Collection[str]) -> Iterator[str]:
    """Those of ``labels`` whose file in ``locks`` no process holds; each is held until the next is asked for.

    Processes that ask go one after the other, so that none is in another's way. Where nobody can tell, none is idle.
    """
    if not labels:
        return
    with contextlib.suppress(OSError), (locks / "others").open("w") as turn:
        wait_for(turn.fileno())
        for label in labels:
            with contextlib.suppress(OSError), (locks / label).open("w") as lock:
                if take(lock.fileno()):
                    yield label
