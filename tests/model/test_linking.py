"""Objects of neighbouring planes that are one object."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from model.linking import Linked, band_bytes, link_planes, neighbours, overlaps

MB = 1 << 20


def ignored(_: int) -> None:
    """Take no notice."""


def areas_of(plane: NDArray[Any]) -> NDArray[np.int64]:
    return np.bincount(plane.ravel())[1:].astype(np.int64)


def linked(
    planes: Sequence[NDArray[Any]], least_iou: float, shape: Sequence[int] | None = None, axis: int = 0
) -> Linked:
    before = neighbours(shape or (len(planes),), axis)
    return link_planes(planes, [areas_of(plane) for plane in planes], before, least_iou, ignored)


def rows(*planes: Sequence[int], least_iou: float = 0.5) -> list[list[int]]:
    """Numbers in the stack of what each plane has as 1, 2, ...; planes are one row of pixels each."""
    found = linked([np.array([plane], dtype=np.uint16) for plane in planes], least_iou)
    assert all(numbers[0] == 0 for numbers in found.numbers)
    assert found.count == max((int(numbers.max()) for numbers in found.numbers), default=0)
    return [numbers[1:].tolist() for numbers in found.numbers]


def test_one_object_has_one_number_through_all_planes_and_numbers_are_in_the_order_of_first_planes() -> None:
    assert rows([1, 1, 0, 2, 2], [0, 1, 0, 2, 2], [1, 0, 2, 3, 3]) == [[1, 2], [1, 2], [3, 4, 2]]


def test_planes_without_objects_are_no_planes_of_any() -> None:
    assert rows([0, 0], [1, 1], [0, 0], [1, 1]) == [[], [1], [], [2]]
    assert rows([0], [0]) == [[], []]


def test_an_object_that_vanishes_and_comes_back_is_a_new_one() -> None:
    assert rows([1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 0, 2]) == [[1], [2], [3, 2]]


def test_of_parts_the_one_that_overlaps_most_goes_on() -> None:
    # 3 / 6 and 2 / 6 of the object before
    assert rows([1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 2, 2]) == [[1], [1, 2]]
    assert rows([1, 1, 1, 1, 1, 1], [1, 1, 0, 2, 2, 2]) == [[1], [2, 1]]
    assert rows([1, 1, 1, 1, 1, 1], [1, 1, 0, 2, 2, 2], least_iou=0.51) == [[1], [2, 3]]


def test_of_objects_that_become_one_the_one_that_overlaps_most_goes_on() -> None:
    assert rows([1, 1, 0, 2, 2, 2], [1, 1, 1, 1, 1, 1], least_iou=0.3) == [[1, 2], [2]]


def test_the_least_overlap_is_enough() -> None:
    assert rows([1, 1, 1, 0], [0, 1, 1, 1], least_iou=0.5) == [[1], [1]]
    assert rows([1, 1, 1, 0], [0, 1, 1, 1], least_iou=0.5000001) == [[1], [2]]
    assert rows([1, 1], [1, 1], least_iou=1) == [[1], [1]]
    assert rows([1, 1, 1], [1, 1, 0], least_iou=1) == [[1], [2]]


def test_an_object_goes_on_as_its_best_match_or_not_at_all() -> None:
    # the second of the lower ones overlaps the first best (4 / 12), which goes on as another (6 / 10), then 2 (2 / 14)
    before = [1] * 10 + [2] * 10
    after = [1] * 6 + [2] * 6 + [0] * 8
    assert rows(before, after, least_iou=0.1) == [[1, 2], [1, 3]]
    # without the first, it is 2's
    assert rows([0] * 10 + [1] * 10, after, least_iou=0.1) == [[1], [2, 1]]


def test_of_equals_the_lower_number_goes_on() -> None:
    assert rows([1, 1, 0, 2, 2], [1, 1, 1, 1, 1], least_iou=0.4) == [[1, 2], [1]]
    assert rows([1, 1, 1, 1, 1], [1, 1, 0, 2, 2], least_iou=0.4) == [[1], [1, 2]]
    assert rows([2, 2, 0, 1, 1], [1, 1, 1, 1, 1], least_iou=0.4) == [[1, 2], [1]]
    # all four pairs are equal: that of 1 and 1 goes on, which both others have for their best, too
    assert linked([np.array([[1, 1], [2, 2]]), np.array([[1, 2], [1, 2]])], 0.3).numbers[1].tolist() == [0, 1, 3]


def test_pixels_count_and_not_boxes() -> None:
    frame = np.ones((5, 5), dtype=np.uint16)
    frame[1:-1, 1:-1] = 0
    core = np.zeros_like(frame)
    core[1:-1, 1:-1] = 1
    assert linked([frame, core, frame], 0.01).count == 3


@pytest.mark.parametrize(
    ("axes", "expected"), [("TZ", [None, 0, 1, None, 3, 4]), ("ZT", [None, None, 0, 1, 2, 3]), ("Z", [None, 0, 1])]
)
def test_planes_are_neighbours_along_one_axis_wherever_it_stands(axes: str, expected: list[int | None]) -> None:
    shape = {"TZ": (2, 3), "ZT": (3, 2), "Z": (3,)}[axes]
    assert neighbours(shape, axes.index("Z")) == expected


def test_both_orders_of_axes_link_the_same_objects() -> None:
    drawn = np.random.default_rng(3).integers(0, 3, (2, 3, 6, 7))  # t, z
    own = np.stack([[own_numbers(plane) for plane in frame] for frame in drawn])
    frames = linked([*own.reshape(6, 6, 7)], 0.2, (2, 3), 1)
    slices = linked([*own.swapaxes(0, 1).reshape(6, 6, 7)], 0.2, (3, 2), 0)
    assert frames.count == slices.count
    pairs = set()
    for t in range(2):
        for z in range(3):
            one, other = frames.numbers[3 * t + z], slices.numbers[2 * z + t]
            pairs |= set(zip(one.tolist(), other.tolist(), strict=True))
    assert len(pairs) == frames.count + 1, "one number stands for one number"
    assert frames.numbers[0].tolist() == slices.numbers[0].tolist()


def test_more_objects_than_16_bits_hold_have_32_bits_in_every_plane() -> None:
    dots = np.arange(1, 32_769, dtype=np.uint16).reshape(128, 256)
    areas = areas_of(dots)
    one = np.ones((128, 256), dtype=np.uint16)
    half = link_planes([dots, dots, one], [areas, areas, areas_of(one)], [None, 0, None], 1, ignored)
    assert (half.count, {str(each.dtype) for each in half.numbers}) == (32_769, {"uint16"})
    apart = link_planes([dots, dots, dots], [areas] * 3, [None, None, 1], 1, ignored)
    assert (apart.count, {str(each.dtype) for each in apart.numbers}) == (65_536, {"uint32"})
    assert (apart.numbers[2] == np.append(0, np.arange(32_769, 65_537))).all()
    fewer = dots.copy()
    fewer[-1, -1] = 0
    within = link_planes([dots, fewer], [areas, areas[:-1]], [None, None], 1, ignored)
    assert (within.count, {str(each.dtype) for each in within.numbers}) == (65_535, {"uint16"})


def own_numbers(plane: NDArray[Any]) -> NDArray[np.uint16]:
    """The plane with its numbers from 1 without gaps."""
    values, place = np.unique(np.append(plane.ravel(), 0), return_inverse=True)
    assert values[0] == 0
    return place[:-1].reshape(plane.shape).astype(np.uint16)


def plain(planes: Sequence[NDArray[Any]], before: Sequence[int | None], least_iou: float) -> list[dict[int, int]]:
    """The rule, object by object."""
    found: list[dict[int, int]] = []
    count = 0
    for plane, neighbour in zip(planes, before, strict=True):
        own = [label for label in range(1, int(plane.max()) + 1) if (plane == label).any()]
        numbers: dict[int, int] = {}
        if neighbour is not None:
            other = planes[neighbour]
            others = sorted(found[neighbour])
            iou = {
                (a, b): ((other == a) & (plane == b)).sum() / ((other == a) | (plane == b)).sum()
                for a in others
                for b in own
            }
            iou = {pair: value for pair, value in iou.items() if value >= least_iou}
            for a, b in iou:
                best_b = min((-value, y) for (x, y), value in iou.items() if x == a)[1]
                best_a = min((-value, x) for (x, y), value in iou.items() if y == b)[1]
                if (best_a, best_b) == (a, b):
                    numbers[b] = found[neighbour][a]
        for label in own:
            if label not in numbers:
                count += 1
                numbers[label] = count
        found.append(numbers)
    return found


stacks = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 5), st.integers(1, 6)).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.integers(0, 3), fill=st.nothing())
)


@given(stack=stacks, axis=st.integers(0, 1), least_iou=st.sampled_from([0.01, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.7, 1.0]))
def test_numbers_are_those_of_the_plain_rule(stack: NDArray[np.uint8], axis: int, least_iou: float) -> None:
    planes = [own_numbers(plane) for plane in stack.reshape(-1, *stack.shape[2:])]
    before = neighbours(stack.shape[:2], axis)
    found = linked(planes, least_iou, stack.shape[:2], axis)
    expected = plain(planes, before, least_iou)
    assert [dict(enumerate(numbers[1:].tolist(), 1)) for numbers in found.numbers] == expected
    every = {number for numbers in expected for number in numbers.values()}
    assert every == set(range(1, found.count + 1)), "there are no gaps"


@given(stack=hnp.arrays(np.uint8, (2, 7, 9), elements=st.integers(0, 4)), band_px=st.integers(1, 70))
def test_overlaps_are_counted_whatever_the_bands(stack: NDArray[np.uint8], band_px: int) -> None:
    first, second = stack
    found = {
        (a, b): n for a, b, n in zip(*map(np.ndarray.tolist, overlaps(first, second, 5, ignored, band_px)), strict=True)
    }
    counted = {(a, b): int(((first == a) & (second == b)).sum()) for a in range(1, 5) for b in range(1, 5)}
    assert found == {pair: pixels for pair, pixels in counted.items() if pixels}


def test_overlaps_of_many_bands_are_summed_before_they_are_many() -> None:
    columns = np.tile(np.arange(1, 40_001, dtype=np.uint32), (20, 1))
    told: list[int] = []
    one, other, pixels = overlaps(columns, columns, 40_001, told.append, band_px=1)
    assert len(told) == 20
    assert max(told) < 5 * 40_000
    assert (one == other).all()
    assert pixels.tolist() == [20] * 40_000


def test_memory_is_that_of_a_band_and_of_what_is_told() -> None:
    size = 1536
    each_px = np.arange(1, size * size + 1, dtype=np.uint32).reshape(size, size)
    squares = ((np.mgrid[:size, :size] // 32) * [[[size // 32]], [[1]]]).sum(axis=0).astype(np.uint16) + 1
    for plane in (each_px, squares):
        areas = areas_of(plane)
        told: list[int] = []
        tracemalloc.start()
        try:
            found = link_planes([plane, plane[::-1]], [areas, areas], [None, 0], 0.5, told.append)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert found.count == len(areas)
        assert peak < max(told) + band_bytes((size, size))
    assert max(told) < MB


def test_a_long_dense_stack_is_told_as_little_more_than_it_takes() -> None:
    dots = np.arange(1, 128 * 128 + 1, dtype=np.uint16).reshape(128, 128)
    planes, told = 60, list[int]()
    areas = [areas_of(dots)] * planes
    tracemalloc.start()
    try:
        link_planes([dots] * planes, areas, neighbours((planes,), 0), 0.5, told.append)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(told) < 2 * peak
    assert peak < max(told) + band_bytes((128, 128))


def test_what_is_told_can_end_the_work() -> None:
    def ends(_: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        link_planes([np.ones((2, 2), np.uint16)], [np.array([4])], [None], 0.5, ends)
