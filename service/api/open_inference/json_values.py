"""Values of tensors as JSON: taken out of their document as text, and read and written block by block.

One call of ``json.loads`` over a million numbers would keep the interpreter's lock, and the event loop, for as long as
it takes, and would make thirty bytes of each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate, islice
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from service.api.open_inference.tensors import Tensor, datatype
from service.request_errors import BrokenInference

QUICK_BYTES = 1 << 20
"""Of JSON that is read or written at once, whoever comes."""
_DATA = b'"data"'
_LIST_FOLLOWS = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(?=\[)")
_VALUES = re.compile(rb"[][0-9eE+.,truefals \t\r\n-]*")
_NO_SKELETON = b"0123456789eE+.truefals \t\r\n-"
_BRACKETS_TO_BLANKS = bytes.maketrans(b"[]", b"  ")
_BLOCK_BYTES = 128 << 10  # read in some milliseconds


def cut_values(document: bytes) -> tuple[bytes, bytes | None]:
    """Take the list of member ``data`` out of a JSON text, where it has one.

    Returns
    -------
    tuple
        The text with ``true`` in its place, and the list as text.

    Raises
    ------
    BrokenInference
        Where there are several, or one that does not hold numbers.

    """
    found = list(islice(_starts(document), 2))
    if not found:
        return document, None
    if len(found) > 1:
        raise BrokenInference("the request has 2 lists 'data' or more, the limit is 1; send one input, 'image'")
    (start,) = found
    values = _VALUES.match(document, start)
    end = document.rfind(b"]", start, values.end() if values else start) + 1
    if not end:
        raise BrokenInference("'data' holds other values than numbers, true and false; send numbers")
    return document[:start] + b"true" + document[end:], document[start:end]


def _starts(document: bytes) -> Iterator[int]:
    at = document.find(_DATA)
    while at >= 0:
        follows = _LIST_FOLLOWS.match(document, at + len(_DATA))
        if follows and document[at - 1 : at] != b"\\":  # in a text the quotes would be escaped
            yield follows.end()
        at = document.find(_DATA, at + len(_DATA))


def check_nesting(values: bytes, tensor: Tensor) -> None:
    """Refuse a list that has another number of values than the tensor, or is nested otherwise.

    Raises
    ------
    BrokenInference
        Where it is.

    """
    skeleton = values.translate(None, _NO_SKELETON)
    count = skeleton.count(b",") + 1
    if count != tensor.count:
        raise BrokenInference(
            f"'data' has {count} values, shape {list(tensor.shape)} needs {tensor.count}; send one for each element"
        )
    if skeleton == b"[" + b"," * (count - 1) + b"]":
        return
    lists = 1 + sum(accumulate(tensor.shape[:-1], mul))
    as_many = len(skeleton) == 2 * lists + count - 1  # else nothing is built, which may be far larger
    if not as_many or skeleton != _nested(tensor.shape):
        raise BrokenInference(
            f"'data' is nested otherwise than shape {list(tensor.shape)}; nest it as the shape says, or send it flat, "
            "row after row"
        )


def _nested(shape: Sequence[int]) -> bytes:
    """Brackets and commas of the values of a shape."""
    nested = b"[" + b"," * (shape[-1] - 1) + b"]"
    for length in reversed(shape[:-1]):
        nested = b"[" + (nested + b",") * (length - 1) + nested + b"]"
    return nested


def packed_blocks(values: bytes, tensor: Tensor) -> Iterator[bytes]:
    """Read the values of a list; gives those of some thousand at a time as the bytes of the tensor.

    Raises
    ------
    BrokenInference
        Where one is no number, or none of the tensor's type.

    """
    at = 0
    while at < len(values):
        end = values.find(b",", at + _BLOCK_BYTES)
        end = len(values) if end < 0 else end
        yield _packed(values[at:end].translate(_BRACKETS_TO_BLANKS), tensor.dtype).tobytes()
        at = end + 1


def _packed(block: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    name = datatype(dtype)
    try:
        values: list[Any] = json.loads(b"[" + block + b"]")
    except ValueError:
        raise BrokenInference(f"'data' is no list of values of type {name}; write them as JSON does") from None
    # told by their letters: numpy would make numbers of true and false, and whole numbers of others
    foreign = {"b": b"0123456789", "u": b".eE", "i": b".eE", "f": b"ul"}[dtype.kind]
    if any(letter in block for letter in foreign):
        raise BrokenInference(f"'data' has values that are none of type {name}; send such, or name another datatype")
    try:
        if dtype.kind == "f":
            with np.errstate(over="ignore"):  # becomes infinity, which is refused as such
                return np.asarray(values, np.float64).astype(dtype)
        return np.asarray(values, dtype)
    except OverflowError:
        raise BrokenInference(
            f"'data' has values from {str(min(values))[:24]} to {str(max(values))[:24]}, beyond what {name} "
            "holds; name another datatype"
        ) from None


def most_text_bytes(tensor: Tensor) -> int:
    """Bytes that the values of a tensor take at most as :func:`json_values` writes them."""
    return tensor.count * (25 if tensor.dtype.kind == "f" else len(str(np.iinfo(tensor.dtype).max)) + 1)


def json_values(values: NDArray[Any]) -> bytes:
    """Write finite numbers with commas between, so that reading gives the same ones."""
    if values.dtype.kind == "u" and values.itemsize <= 2:
        # ten times as fast, and most of it without the interpreter's lock
        texts: bytes = _texts(values.dtype)[values].tobytes()
        return texts.translate(None, b"\0")[:-1]
    return to_json(values.tolist())[1:-1]  # seven times as fast as json.dumps, for numbers that are not whole


@cache
def _texts(dtype: np.dtype[Any]) -> NDArray[np.bytes_]:
    return np.array([b"%d," % value for value in range(np.iinfo(dtype).max + 1)])
