"""Values at given ranks of an image that is too large to be sorted, exactly, in a few passes and one megabyte.

Numbers are turned into unsigned integers of the same order and found digit by digit, 16 bits a pass: the counts of the
highest digit say which one holds a rank, the next pass counts the next digit of those values alone, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DIGIT_BITS = 16


def lowest_to_highest(
    bands: Callable[[], Iterable[NDArray[Any]]], dtype: np.dtype[Any], ranks: Sequence[int]
) -> NDArray[np.float64]:
    """Return the values that stand at ``ranks`` when all are sorted.

    Parameters
    ----------
    bands
        Gives all values, part by part, the same ones at every call.
    dtype
        Their type: integers or floats of 8 to 64 bits, without NaN.
    ranks
        From 0.

    Returns
    -------
    NDArray[np.float64]
        One value for each rank (test: ``test_order_statistics_are_those_of_sorting``).

    """
    bits = 8 * dtype.itemsize
    digit_bits = min(bits, _DIGIT_BITS)
    prefixes = [0] * len(ranks)
    left = list(ranks)
    for shift in range(bits - digit_bits, -1, -digit_bits):
        counts = {prefix: np.zeros(1 << digit_bits, dtype=np.int64) for prefix in prefixes}
        for band in bands():
            keys = _ordered(band)
            digits = ((keys >> keys.dtype.type(shift)) & keys.dtype.type((1 << digit_bits) - 1)).astype(np.intp)
            if shift + digit_bits < bits:
                above = keys >> keys.dtype.type(shift + digit_bits)
                for prefix in counts:
                    counts[prefix] += np.bincount(digits[above == prefix], minlength=1 << digit_bits)
            else:
                counts[0] += np.bincount(digits, minlength=1 << digit_bits)
        for i, prefix in enumerate(prefixes):
            up_to = np.cumsum(counts[prefix])
            digit = int(np.searchsorted(up_to, left[i], side="right"))
            left[i] -= int(up_to[digit - 1]) if digit else 0
            prefixes[i] = prefix << digit_bits | digit
    return _unordered(np.array(prefixes, dtype=f"u{dtype.itemsize}"), dtype).astype(np.float64)


def _ordered(values: NDArray[Any]) -> NDArray[Any]:
    """Unsigned integers (flat) that sort as ``values`` do: the sign bit flipped, negative floats turned round."""
    flat = np.ascontiguousarray(values).reshape(-1)
    kind, unsigned = flat.dtype.kind, np.dtype(f"u{flat.dtype.itemsize}")
    keys: NDArray[Any] = flat.view(unsigned)
    if kind == "u":
        return keys
    sign = unsigned.type(1 << (8 * unsigned.itemsize - 1))
    return keys ^ sign if kind == "i" else np.where(keys & sign, ~keys, keys | sign)


def _unordered(keys: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Undo :func:`_ordered`."""
    if dtype.kind == "u":
        return keys
    sign = keys.dtype.type(1 << (8 * dtype.itemsize - 1))
    back: NDArray[Any] = keys ^ sign if dtype.kind == "i" else np.where(keys & sign, keys ^ sign, ~keys)
    return back.view(dtype)
