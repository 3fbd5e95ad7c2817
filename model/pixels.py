"""Arrays in memory or in a file: what both have in common, and how to go through them in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

BAND_PX = 1 << 20
"""Elements of a band: numpy holds the interpreter lock in some calls, so none may be long; memory stays small, too."""


class Pixels(Protocol):
    """An array of which any part can be read or written; ``numpy.ndarray`` is one.

    Indexing by slices gives a part as an array in memory, without copying where it lies there already.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        ...

    def __getitem__(self, key: Any, /) -> Any: ...  # noqa: ANN401 - as numpy has it

    def __setitem__(self, key: Any, value: Any, /) -> None: ...  # noqa: ANN401


def row_bands(rows: int, row_elements: int, elements: int = BAND_PX) -> Iterator[slice]:
    """Slices of consecutive rows that cover ``rows`` rows, of about ``elements`` elements each and one row at least."""
    step = max(1, elements // max(1, row_elements))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
