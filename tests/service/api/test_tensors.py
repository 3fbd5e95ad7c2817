"""Tensors of the Open Inference Protocol on their way in: out of JSON, and as a window of a body."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from service.api.open_inference.json_values import check_nesting, cut_values, json_values, packed_blocks
from service.api.open_inference.tensors import DTYPES, Tensor, as_npy, datatype
from service.request_errors import BrokenInference

ANY_ARRAY = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: arrays.arrays(
        DTYPES[name],
        arrays.array_shapes(min_dims=1, max_dims=4, max_side=5),
        elements={"allow_nan": False, "allow_infinity": False} if name.startswith("FP") else None,
    )
)


def read(values: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    tensor = Tensor(shape, dtype)
    check_nesting(values, tensor)
    return np.frombuffer(b"".join(packed_blocks(values, tensor)), dtype).reshape(shape)


@given(ANY_ARRAY, st.booleans(), st.sampled_from([None, 1]), st.sampled_from(['"', '\\"data\\": [1, 2]', "[[", "é"]))
def test_values_out_of_json_are_those_that_were_written(
    array: NDArray[Any], flat: bool, indent: int | None, other: str
) -> None:
    listed = array.ravel().tolist() if flat else array.tolist()
    document = {"id": other, "inputs": [{"name": "image", "data": listed, "x": other}]}
    rest, values = cut_values(json.dumps(document, indent=indent).encode())
    assert json.loads(rest) == {"id": other, "inputs": [{"name": "image", "data": True, "x": other}]}
    assert values is not None
    np.testing.assert_array_equal(read(values, array.shape, array.dtype), array)


@given(ANY_ARRAY.filter(lambda array: array.dtype.kind != "b"))
def test_values_are_written_as_json_has_them(array: NDArray[Any]) -> None:
    written = json.loads(b"[" + json_values(array.ravel()) + b"]")
    np.testing.assert_array_equal(np.array(written, array.dtype), array.ravel())


def test_no_nesting_is_built_that_is_larger_than_what_was_sent() -> None:
    count = 1 << 20
    values = b"[[" + b"1," * (count - 1) + b"1]]"
    tensor = Tensor((count, 1, 1, 1, 1, 1), DTYPES["UINT8"])
    tracemalloc.start()
    try:
        with pytest.raises(BrokenInference, match="nested otherwise"):
            check_nesting(values, tensor)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(values)
    finally:
        tracemalloc.stop()


def test_lists_are_read_in_more_than_one_block() -> None:
    array = np.random.default_rng(0).integers(0, 65536, (300, 500)).astype(np.uint16)
    values = json.dumps(array.tolist()).encode()
    assert len(list(packed_blocks(values, Tensor(array.shape, array.dtype)))) > 5
    np.testing.assert_array_equal(read(values, array.shape, array.dtype), array)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("[1, 2, 3]", r"has 3 values, shape \[2, 2\] needs 4"),
        ("[]", "has 1 values"),
        ("[[1, 2, 3], [4]]", "nested otherwise"),
        ("[[1, 2], [3, 4]], [[]]", "has 5 values"),
        ("[1, 2], [3, 4]", "nested otherwise"),
        ("[[1, 2]][[3, 4]]", "has 3 values"),
        ("[[[1, 2], [3, 4]]]", "nested otherwise"),
        ("[1, 2, 3 3, 4]", "is no list of values of type UINT8"),
        ("[1, 2, , 4]", "is no list of values"),
        ("[1, 2, 3, -]", "is no list of values"),
        ("[1, 2, 3, " + "9" * 5000 + "]", "is no list of values"),
        ("[1, 2, 3, 256]", "values from 1 to 256, beyond what UINT8 holds"),
        ("[-1, 2, 3, 4]", "values from -1 to 4"),
        ("[1, 2, 3, 1e400]", "none of type UINT8"),
        ("[1, 2, 3, 4.0]", "none of type UINT8"),
        ("[1, 2, 3, true]", "none of type UINT8"),
        ("[true, true, false, true]", "none of type UINT8"),
        ("[1, 2, 3, 1" + "0" * 30 + "]", "values from 1 to 100000000000000000000000, beyond what UINT8 holds"),
    ],
)
def test_lists_that_are_no_such_tensor_are_refused(values: str, said: str) -> None:
    with pytest.raises(BrokenInference, match=said):
        read(values.encode(), (2, 2), np.dtype(np.uint8))


def test_whole_numbers_of_64_bits_are_exact() -> None:
    read_yx = read(b"[0, 9223372036854775809, 18446744073709551615, 1]", (2, 2), np.dtype(np.uint64))
    assert read_yx.tolist() == [[0, 2**63 + 1], [2**64 - 1, 1]]


def test_whole_numbers_of_any_length_are_floats() -> None:
    read_yx = read(b"[1, 2.5, 1" + b"0" * 30 + b", -3]", (2, 2), np.dtype(np.float32))
    np.testing.assert_array_equal(read_yx, np.array([[1, 2.5], [1e30, -3]], np.float32))


def test_a_whole_number_beyond_all_floats_is_refused() -> None:
    with pytest.raises(BrokenInference, match="beyond what FP64 holds"):
        read(b"[1, 2, 3, 1" + b"0" * 400 + b"]", (2, 2), np.dtype(np.float64))


@pytest.mark.parametrize("values", ["[0, 1, 1, 0]", "[true, true, 1, true]"])
def test_numbers_are_no_truths(values: str) -> None:
    with pytest.raises(BrokenInference, match="none of type BOOL"):
        read(values.encode(), (2, 2), np.dtype(np.bool_))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b'{"data": [1], "more": {"data" : [2]}}', "2 lists 'data' or more, the limit is 1"),
        (b'{"data": ["text"]}', "other values than numbers"),
        (b'{"data": [1, 2', "other values than numbers"),
    ],
)
def test_lists_that_cannot_be_taken_out_are_refused(document: bytes, said: str) -> None:
    with pytest.raises(BrokenInference, match=said):
        cut_values(document)


@given(
    ANY_ARRAY,
    st.binary(max_size=20),
    st.binary(max_size=20),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=8),
)
def test_a_window_of_a_body_is_an_npy_file(
    array: NDArray[Any], before: bytes, behind: bytes, reads: list[tuple[int, int]]
) -> None:
    whole = io.BytesIO()
    np.save(whole, array)
    body = io.BytesIO(before + array.tobytes() + behind)
    file = as_npy(Tensor(array.shape, array.dtype), body, len(before))
    for at, size in reads:
        file.seek(at)
        assert file.read(size) == whole.getvalue()[at : at + size]
    assert file.seek(0, 2) == len(whole.getvalue())
    file.seek(0)
    np.testing.assert_array_equal(np.load(file), array)
    del file
    assert not body.closed


def test_every_type_has_one_name() -> None:
    assert {name: datatype(dtype) for name, dtype in DTYPES.items()} == {name: name for name in DTYPES}
