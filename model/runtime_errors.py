"""What a runtime's errors and odd outputs mean to those who asked it to run a net."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import InferenceFailed, OutOfDeviceMemory

# what OpenVINO puts before the reason: places in its sources, and headings
_OF_SOURCES = re.compile(
    r"Exception from \S+:\d+:|Check '.*' failed at |FrontEnd API failed|While validating .*(failed at \S+:?|:)$|"
    r"Model wasn't fully converted|\S+ with a message:|(Summary|Details|Not Implemented):$"
)


def first_line(error: Exception) -> str:
    """What a runtime says first of an error but where in its own sources; the rest is of no use to who asked."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).strip().splitlines()]
    return next((line for line in lines if line and not _OF_SOURCES.match(line)), lines[0] if lines else "")[:300]


def inference_error(error: Exception, shape: tuple[int, ...]) -> InferenceFailed:
    """Return what a runtime's error on a batch of ``shape`` means to the scheduler: too little memory, or else."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text or "bad_alloc" in text:
        return OutOfDeviceMemory(f"no memory for a batch of shape {shape}; lower the memory budget or the batch")
    return InferenceFailed(f"the net failed on a batch of shape {shape}: {first_line(error)}")


def with_four_axes(output: NDArray[Any]) -> NDArray[Any]:
    """Return what a graph gave if it is an image for each tile.

    Raises
    ------
    InferenceFailed
        Where it has not the axes batch, channel, y, x, or one of no length, which OpenVINO gives of tiles that are too
        small for a net, or of no size that it takes.

    """
    if np.ndim(output) != 4 or not np.size(output):
        raise InferenceFailed(
            f"the net returns shape {np.shape(output)}; (batch, channel, y, x) is needed, none of them 0"
        )
    return output
