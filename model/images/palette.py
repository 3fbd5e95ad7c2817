"""Palettes, expanded to the colours that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def grey_only(palette: NDArray[np.uint8]) -> bool:
    """Say whether every entry of ``palette`` (entries, 3) is a grey."""
    return bool((palette == palette[:, :1]).all())


def palette_note(palette: NDArray[np.uint8]) -> str:
    """Say what :func:`expand` makes of it."""
    return "palette of greys expanded to grey" if grey_only(palette) else "palette expanded to RGB"


def expand(indexes_yx: NDArray[Any], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Replace indexes (y, x) by their colours: (y, x, 3), or (y, x, 1) where the palette holds greys only."""
    used = palette[:, :1] if grey_only(palette) else palette
    expanded: NDArray[np.uint8] = np.take(used, indexes_yx.astype(np.intp, copy=False), axis=0)
    return expanded
