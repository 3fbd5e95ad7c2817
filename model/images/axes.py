"""How the axes of an image are laid out, in letters, slowest first: where a caller says so, what a file says gives way.

``Y`` and ``X`` are rows and columns, ``C`` channels, ``T`` frames, ``Z`` slices and ``I`` planes of other meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.images.errors import AxesMismatch
from model.images.image import ImageHeader

LETTERS = "TZICYX"


def parse_axes(text: str) -> str:
    """Letters from ``zyx``, in capitals.

    Raises
    ------
    ValueError
        Where they are no axes of an image.
    """
    axes = text.strip().upper()
    if not (text.isascii() and set("YX") <= set(axes) <= set(LETTERS) and len(set(axes)) == len(axes)):
        msg = (
            "should be one letter for each axis, slowest first: Y and X, and at most once each C (channels), T "
            "(frames), Z (slices) and I (other planes); write it as YXC, CYX or TZYX"
        )
        raise ValueError(msg)
    return axes


def mismatch(axes: str, own: str, shape: Sequence[int]) -> AxesMismatch:
    """Error for axes that are not those of an image of this shape, read as ``own`` without them."""
    size = " x ".join(map(str, shape))
    msg = f"axes {axes} are {len(axes)} letters, the image has {len(shape)} axes: {size}, read as {own} without a word"
    return AxesMismatch(f"{msg}; give a letter for each of these, in the order of the file")


def check_picture(axes: str | None, header: ImageHeader) -> None:
    """Refuse axes that are not those of a picture of one plane, which its format lays down.

    Raises
    ------
    AxesMismatch
    """
    own, shape = ("YX", header.size_yx) if header.channels == 1 else ("YXC", (*header.size_yx, header.channels))
    if axes is not None and axes != own:
        raise mismatch(axes, own, shape)


def channels_last(axes: str, pages: NDArray[np.int64]) -> tuple[str, NDArray[np.int64]]:
    """Letters of the axes of a stack without ``C``, and its pages with the axis of channels last."""
    if "C" not in axes:
        return axes, pages[..., np.newaxis]
    return axes.replace("C", "", 1), np.moveaxis(pages, axes.index("C"), -1)
