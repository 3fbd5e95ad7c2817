"""Tiles without a picture: where a mosaic has no field, or a slide no glass, all pixels are of one value.

A net makes the same of each of them, so that one is run for all of a plane. Nothing else is assumed of it, and what
comes out is the same bit for bit (test: ``test_blank_tiles_are_run_once_and_the_answer_is_the_same``).
"""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

_Part = TypeVar("_Part")


class BlankTile(Generic[_Part]):
    """The last blank tile of a plane that the net was run for; several inference threads may ask and tell."""

    def __init__(self) -> None:
        self._known: tuple[bytes, _Part] | None = None

    def like(self, tile_cyx: NDArray[np.float32]) -> _Part | None:
        """Return that tile where its input was the same as this one (c, y, x)."""
        known = self._known
        return known[1] if known and known[0] == _only_value(tile_cyx) else None

    def note(self, part: _Part, tile_cyx: NDArray[np.float32]) -> None:
        """Note a tile that is done, and its input (c, y, x), where that is blank."""
        if (value := _only_value(tile_cyx)) is not None:
            self._known = value, part


def _only_value(tile_cyx: NDArray[np.float32]) -> bytes | None:
    """What all pixels of a tile are, channel by channel; None where they differ."""
    corner = tile_cyx[:, :1, :1]
    # most tiles differ within their first row already
    if (tile_cyx[:, :1] == corner).all() and (tile_cyx == corner).all():
        return corner.tobytes()
    return None
