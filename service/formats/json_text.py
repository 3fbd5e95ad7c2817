"""JSON documents with one long list, written item by item.

One call of ``json.dumps`` over a hundred thousand objects would keep the interpreter's lock for as long as it takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

ROWS = 8192


def dump(value: object) -> bytes:
    """Write one value without spaces, ASCII only.

    Raises
    ------
    ValueError
        NaN or infinity, which JSON does not have.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def dump_list(items: Iterable[object]) -> bytes:
    """Write a list, one item at a time."""
    return join_list(dump(item) for item in items)


def join_list(items: Iterable[bytes]) -> bytes:
    """Write a list of what is JSON already."""
    return b"[" + b",".join(items) + b"]"


def dump_rows(rows: NDArray[Any]) -> bytes:
    """Write an array (n, k), n >= 1, as a list of lists, a few thousand rows at a time."""
    blocks = (rows[at : at + ROWS].tolist() for at in range(0, len(rows), ROWS))
    return join_list(dump(block)[1:-1] for block in blocks)


def dump_object(fields: Mapping[str, object], **raw: bytes) -> bytes:
    """Write an object: ``fields``, then those of ``raw`` whose values are JSON already."""
    parts = [dump(key) + b":" + dump(value) for key, value in fields.items()]
    parts += [dump(key) + b":" + value for key, value in raw.items()]
    return b"{" + b",".join(parts) + b"}"
