"""COCO's run lengths: plain lists and compressed strings, down the columns, background first.

pycocotools decodes run lengths that end too early into whatever the memory held, so they are decoded here, and must
fill the image exactly (test: ``test_run_lengths_decode_as_in_pycocotools``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.layouts.raster import Patch


def decode_run_lengths(counts: Sequence[int] | str, size: tuple[int, int], size_yx: tuple[int, int]) -> Patch:
    """Pixels of run lengths, within the rows and columns that have some.

    Parameters
    ----------
    counts
        Lengths in pixels, background first; or the same as a compressed string.
    size
        Height and width that the file gives with them.
    size_yx
        Height and width of the image.

    Raises
    ------
    ValueError
        Where the lengths are of another image size, do not fill the image, or the string is none of lengths.

    """
    if size != size_yx:
        raise ValueError(f"its run lengths are of an image of {size} (height, width); expected {size_yx}")
    lengths = uncompress(counts) if isinstance(counts, str) else counts
    if min(lengths, default=0) < 0 or sum(lengths) != size_yx[0] * size_yx[1]:
        raise ValueError(f"its run lengths fill {sum(lengths)} pixels; expected {size_yx[0] * size_yx[1]}")
    bounds = np.cumsum([0, *lengths])
    inside = np.arange(len(lengths)) % 2 == 1
    runs = np.flatnonzero(inside & (np.diff(bounds) > 0))
    if not runs.size:
        return Patch(0, 0, np.zeros((1, 1), dtype=bool))
    height = size_yx[0]
    left, right = int(bounds[runs[0]]) // height, (int(bounds[runs[-1] + 1]) - 1) // height + 1
    in_columns = np.diff(np.clip(bounds, left * height, right * height))
    mask = np.repeat(inside, in_columns).reshape((height, right - left), order="F")
    rows = np.flatnonzero(mask.any(axis=1))
    return Patch(int(rows[0]), left, mask[rows[0] : rows[-1] + 1].copy())


def uncompress(text: str) -> list[int]:
    """Run lengths of a compressed string (``rleFrString`` of pycocotools' maskApi.c).

    Six bits a character from "0": five of the number, lowest first, and one that says that more follow; from the
    fourth number on, the difference to the last but one.

    Raises
    ------
    ValueError
        Where the string holds other characters, or ends within a number.

    """
    lengths: list[int] = []
    number, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"its compressed counts hold the character {character!r}")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number, shift = 0, 0
    if shift:
        raise ValueError("its compressed counts end within a number")
    return lengths
