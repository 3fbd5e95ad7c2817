"""Refusals of what would not fit even if nothing else were there."""

from __future__ import annotations

import math

from service.engine.errors import TooLargeForMemory


def check_memory_alone(needed: int, limit: int, ready: int = 0) -> None:
    """Raise :class:`TooLargeForMemory` where an image and its result need more bytes than there are for images.

    ``ready`` bytes of them are other results that the same request gets.
    """
    if needed + ready > limit:
        raise TooLargeForMemory(
            f"the image and its result need {megabytes(needed)} MB{_beside(needed, limit, ready)}, the memory budget "
            f"for images is {megabytes(limit)} MB; {_fewer(needed, limit)}raise UNET_MEMORY_BUDGET_MB, or send the "
            "image in parts"
        )


def check_disk_alone(needed: int, limit: int, ready: int = 0) -> None:
    """Raise :class:`TooLargeForMemory` where they need more bytes in files than there are in the spool folder."""
    if needed + ready > limit:
        raise TooLargeForMemory(
            f"the image and its result need {megabytes(needed)} MB in files{_beside(needed, limit, ready)}, the "
            f"spool's limit is {megabytes(limit)} MB; {_fewer(needed, limit)}raise UNET_SPOOL_LIMIT_MB on a disk that "
            "is larger (UNET_SPOOL_DIR), or send the image in parts"
        )


def _beside(needed: int, limit: int, ready: int) -> str:
    return "" if needed > limit else f" beside {megabytes(ready)} MB of the request's other results"


def _fewer(needed: int, limit: int) -> str:
    """Remedy of what fits but for other results."""
    return "" if needed > limit else "ask for fewer outputs at a time, "


def check_load_alone(needed: int, limit: int) -> None:
    """Raise :class:`TooLargeForMemory` where loading a package needs more bytes than there are for images."""
    if needed > limit:
        raise TooLargeForMemory(
            f"{megabytes(needed)} MB are needed to load it beside requests, the memory budget for images is "
            f"{megabytes(limit)} MB; raise UNET_MEMORY_BUDGET_MB, or restart the service to load it alone"
        )


def megabytes(count: int) -> int:
    """Bytes as messages show them, rounded up."""
    return math.ceil(count / 1_000_000)
