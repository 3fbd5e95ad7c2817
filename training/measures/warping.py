"""The warping error's warp: a reference deformed towards a proposal without changing its topology.

Jain et al. 2010, "Boundary learning by optimization with topological constraints", as the ISBI 2012 challenge scored
it with Fiji's Trainable Segmentation (``WarpingError``, no geometric mask). Cells are connected by edges
(4-neighbours), membranes by corners too (8-neighbours); beyond the image there is membrane.

A pixel is *simple* where flipping it neither joins, parts, makes nor removes a cell or a hole. That depends on its
eight neighbours alone: with cells connected by edges, it is simple where their connectivity number (Yokoi et al. 1975)
is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# neighbours (dy, dx) around a pixel, counter-clockwise from the east: bit b of a neighbourhood's code is the b-th
_RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True, slots=True)
class Mismatches:
    """Pixels at which the warped reference still differs from the proposal.

    Parameters
    ----------
    merges
        Membrane in the warped reference whose flip would join cells.
    splits
        Cell in the warped reference whose flip would part it.
    others
        Pixels whose flip would make or remove a hole or a cell.

    """

    merges: int
    splits: int
    others: int


def _simple_codes() -> bytes:
    """For each of the 256 neighbourhoods, 1 where the pixel in the middle is simple."""
    table = bytearray(256)
    for code in range(256):
        x = [code >> bit & 1 for bit in range(8)]
        # edge neighbours stand at even places; the corner between two of them joins these two
        number = sum(x[k] - x[k] * x[k + 1] * x[(k + 2) % 8] for k in range(0, 8, 2))
        table[code] = number == 1
    return bytes(table)


SIMPLE = _simple_codes()


def warp(
    reference_yx: NDArray[np.bool_], proposal_yx: NDArray[np.bool_], confidence_yx: NDArray[Any]
) -> NDArray[np.bool_]:
    """Flip simple pixels of the reference where it differs from the proposal, until none is left.

    Parameters
    ----------
    reference_yx, proposal_yx
        Cells (True) and membranes (False), (y, x).
    confidence_yx
        Order of the flips within a pass, highest first (the challenge: distance of the probability from the
        threshold); which pixels remain may depend on it.

    Returns
    -------
    NDArray[np.bool_]
        (y, x), with the topology of the reference.

    """
    padded = np.pad(reference_yx, 1)
    width = padded.shape[1]
    codes_yx = np.zeros(padded.shape, dtype=np.uint8)
    for bit, (dy, dx) in enumerate(_RING):
        codes_yx |= np.roll(padded, (-dy, -dx), axis=(0, 1)).astype(np.uint8) << bit
    codes, image = bytearray(codes_yx.tobytes()), bytearray(padded.tobytes())
    # a flipped pixel is bit b + 4 of the code of its neighbour b
    effects = [(dy * width + dx, 1 << (bit + 4) % 8) for bit, (dy, dx) in enumerate(_RING)]

    rows, columns = np.nonzero(reference_yx != proposal_yx)
    order = np.argsort(-confidence_yx[rows, columns], kind="stable")
    pending: list[int] = ((rows[order] + 1) * width + columns[order] + 1).tolist()
    while pending:
        refused = []
        for index in pending:
            if SIMPLE[codes[index]]:
                image[index] ^= 1
                for offset, bit in effects:
                    codes[index + offset] ^= bit
            else:
                refused.append(index)
        if len(refused) == len(pending):
            break
        pending = refused
    warped: NDArray[np.bool_] = np.frombuffer(bytes(image), dtype=np.bool_).reshape(padded.shape)[1:-1, 1:-1]
    return warped


def classify_mismatches(warped_yx: NDArray[np.bool_], proposal_yx: NDArray[np.bool_]) -> Mismatches:
    """Count the pixels that remain, by the kind of error that their flip would be.

    The rules are the challenge's: by the cells among a pixel's eight neighbours. Membrane beside two cells or more is a
    merge. So is cell beside two cells or more a split, and cell beside its own alone where that falls into parts
    without the pixel.
    """
    cells, count = ndimage.label(warped_yx)  # edges connect
    windows = ndimage.find_objects(cells, count)
    merges = splits = others = 0
    for y, x in np.argwhere(warped_yx != proposal_yx).tolist():
        around = cells[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        own = int(cells[y, x])
        neighbours = set(around.ravel().tolist())
        if own and np.count_nonzero(around == own) == 1:
            neighbours.discard(own)  # the pixel itself
        beside = len(neighbours - {0})
        if not own:
            merges, others = merges + (beside > 1), others + (beside <= 1)
        elif beside > 1 or (beside == 1 and 0 in neighbours and _falls_apart(cells, windows[own - 1], own, (y, x))):
            splits += 1
        else:
            others += 1
    return Mismatches(merges, splits, others)


def _falls_apart(
    cells_yx: NDArray[np.int32], window: tuple[slice, slice], number: int, pixel_yx: tuple[int, int]
) -> bool:
    """Whether the neighbours of a pixel belong to several parts of its cell once the pixel is gone."""
    y, x = (position - part.start for position, part in zip(pixel_yx, window, strict=True))
    cell = cells_yx[window] == number
    cell[y, x] = False
    parts, _ = ndimage.label(cell)
    return np.unique(parts[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]).size > 2  # 0 and two parts or more
