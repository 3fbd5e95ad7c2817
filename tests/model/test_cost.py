"""The cost model: what was measured, what lies between and beyond, and a measuring that ends in time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.cost import Measurement, fit_cost, measure, shapes_to_measure
from model.planner import Planner
from model.tiling import AxisGeometry, Geometry, valid_unet_geometry

PAPER = valid_unet_geometry(4)
edges = st.integers(16, 2000)


def squares(rate: Callable[[int], float], *sides: int) -> list[Measurement]:
    return [Measurement((side, side), rate(side * side) * side * side) for side in sides]


def test_measured_squares_are_given_back_and_others_lie_between() -> None:
    cost = fit_cost(squares(lambda pixels: 1e-9 * pixels**0.25, 256, 512, 1024))
    for side in (256, 512, 1024):
        assert cost.seconds((side, side)) == pytest.approx(1e-9 * (side * side) ** 1.25)
    # a power law is a straight line between the logarithms
    assert cost.seconds((700, 700)) == pytest.approx(1e-9 * 490_000**1.25)


def test_beyond_what_was_measured_growth_flattens_and_does_not_end() -> None:
    cost = fit_cost(squares(lambda pixels: 1e-9 * pixels**0.3, 256, 512))
    assert 1e-9 * 512**0.6 < cost.seconds((1024, 1024)) / 1024**2 < 1e-9 * 1024**0.6


def test_one_measurement_is_enough_for_a_plan() -> None:
    cost = fit_cost([Measurement((268, 268), 0.05)])
    assert cost.seconds((268, 268)) == pytest.approx(0.05)
    assert len(Planner(PAPER, 10**6, cost).plan((2048, 2048))) < 30


@pytest.mark.parametrize(("strip", "wide", "upright"), [(0.9, 0.9, 1.0), (1.1, 1.1, 1.1), (3.0, math.exp(0.3), 1.35)])
def test_a_strip_that_was_measured_tells_of_strips(strip: float, wide: float, upright: float) -> None:
    side = 576
    shape = round(side / math.e), round(side * math.e)
    area = math.prod(shape)
    cost = fit_cost([Measurement((side, side), 1.0), Measurement(shape, strip * area / side**2)])
    square = cost.seconds((side, side)) * area / side**2
    # by more than 15 % for e times as wide a tile nothing differs but by noise
    assert cost.seconds(shape) / square == pytest.approx(wide, rel=0.01)
    assert cost.seconds(shape[::-1]) / square == pytest.approx(upright, rel=0.01)


# seconds of tiles of nuclei, medians of turns, on two cores of a Xeon with AMX
MEASURED = {
    "cpu fp32": {
        (252, 252): 0.0312, (316, 316): 0.0657, (444, 444): 0.1764, (572, 572): 0.3493, (284, 1148): 0.2866,
        (444, 700): 0.3125, (604, 604): 0.4195, (700, 700): 0.5858, (604, 1212): 0.8535, (828, 828): 0.8243,
        (876, 1212): 1.3936, (1148, 1148): 1.8032,
    },
    "cpu int8": {
        (252, 252): 0.0127, (316, 316): 0.0262, (444, 444): 0.0680, (572, 572): 0.1293, (284, 1148): 0.1027,
        (444, 700): 0.1232, (604, 604): 0.1552, (700, 700): 0.2306, (604, 1212): 0.3688, (828, 828): 0.3782,
        (876, 1212): 0.6115, (1148, 1148): 0.8047,
    },
    "openvino int8": {
        (252, 252): 0.0104, (316, 316): 0.0170, (444, 444): 0.0403, (572, 572): 0.0765, (284, 1148): 0.0578,
        (444, 700): 0.0696, (604, 604): 0.0836, (700, 700): 0.1227, (604, 1212): 0.1859, (828, 828): 0.1812,
        (876, 1212): 0.2881, (1148, 1148): 0.3719,
    },
}  # fmt: skip


@pytest.mark.parametrize("row", MEASURED)
@pytest.mark.parametrize("known", [2, 3, 4, 6])
def test_a_few_tiles_tell_of_all_shapes_of_a_net_without_padding(row: str, known: int) -> None:
    """Two are all that a slow machine measures before it has to be ready."""
    seconds = MEASURED[row]
    shapes = [shape for shape in shapes_to_measure(PAPER, 10**7) if shape in seconds][:known]
    cost = fit_cost([Measurement(shape, seconds[shape]) for shape in shapes], PAPER.shrink_yx)
    told = {shape: cost.seconds(shape) / measured for shape, measured in seconds.items() if shape not in shapes}
    assert 0.84 < min(told.values()) <= max(told.values()) < 1.17  # 0.83 to 1.32 by the pixels that are read


def test_what_is_too_much_to_be_noise_is_believed() -> None:
    """A tiny net, of which each call takes half a second whatever the tile."""
    shapes = [shape for shape in shapes_to_measure(PAPER, 10**7) if shape[0] == shape[1]]
    measured = [Measurement(shape, 0.5 + 1e-7 * math.prod(shape)) for shape in shapes]
    cost = fit_cost(measured, PAPER.shrink_yx)
    for known in measured:
        assert cost.seconds(known.input_yx) == pytest.approx(known.seconds, rel=0.1)


@pytest.mark.parametrize(
    "seconds",
    [(0.0373, 0.3765, 0.3214, 1.2497), (0.0328, 0.3387, 0.2795, 1.0559), (0.0470, 0.5043, 0.3865, 1.2176)],
)
def test_what_a_busy_machine_measures_makes_no_bad_plan(seconds: tuple[float, ...]) -> None:
    """Three starts beside other work; by the pixels that are read two of them would take a quarter too long."""
    shapes = shapes_to_measure(PAPER, 10**7)[: len(seconds)]
    measured = [Measurement(shape, value) for shape, value in zip(shapes, seconds, strict=True)]
    true = fit_cost([Measurement(*pair) for pair in MEASURED["cpu fp32"].items()], PAPER.shrink_yx)
    plans = [
        Planner(PAPER, 1_100_000, cost=cost, tile_seconds=0.25).plan((2048, 2048))
        for cost in (fit_cost(measured, PAPER.shrink_yx), true)
    ]
    taken, best = (len(plan) * true.seconds(plan.input_yx) for plan in plans)
    assert taken < 1.15 * best


@given(
    seconds=st.lists(st.floats(1e-6, 100), min_size=1, max_size=6),
    small=st.tuples(edges, edges),
    growth=st.floats(1, 4),
    shrink=st.sampled_from([0, 40, 184]),
)
def test_whatever_was_measured_a_larger_square_is_never_faster(
    seconds: list[float], small: tuple[int, int], growth: float, shrink: int
) -> None:
    measured = [Measurement((100 * (i + 1), 100 * (i + 1)), value) for i, value in enumerate(seconds)]
    cost = fit_cost(measured, (shrink, shrink))
    assert cost.seconds((small[0], small[0])) <= cost.seconds((round(small[0] * growth),) * 2) * (1 + 1e-9)
    assert 0 < cost.seconds(small) < math.inf


@pytest.mark.parametrize(
    ("shape", "seconds"), [((0, 5), 1.0), ((5, 5), 0.0), ((5, 5), math.nan), ((5, 5), math.inf), ((5, 5), -1.0)]
)
def test_what_cannot_be_measured_is_refused(shape: tuple[int, int], seconds: float) -> None:
    with pytest.raises(ValueError, match="no measurement"):
        Measurement(shape, seconds)


def test_a_model_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        fit_cost([])


@dataclass
class SlowNet:
    """Takes a microsecond a pixel by its own clock, twice that for a shape that it has not seen."""

    now: float = 0.0
    seen: list[tuple[int, ...]] = field(default_factory=list)

    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        self.now += tiles.size * (1e-6 if tiles.shape in self.seen else 2e-6)
        self.seen.append(tiles.shape)
        return tiles

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize("budget", [0.1, 0.5, 1.5, 5.0, 30.0])
def test_measuring_ends_in_time_and_counts_no_first_run(budget: float) -> None:
    net = SlowNet()
    found = measure(net, 1, shapes_to_measure(PAPER, 10**7), budget, net.clock)
    assert net.now <= max(budget, 5 * 252 * 252 * 1e-6)
    assert found[0].input_yx == (252, 252)
    for measured in found:
        assert measured.seconds == pytest.approx(measured.pixels * 1e-6)


def test_with_time_enough_every_shape_is_measured() -> None:
    net = SlowNet()
    shapes = shapes_to_measure(PAPER, 10**7)
    assert [measured.input_yx for measured in measure(net, 1, shapes, 60.0, net.clock)] == list(shapes)
    assert len(shapes) == 6


def test_a_shape_too_slow_for_the_time_left_does_not_keep_smaller_ones_from_being_measured() -> None:
    net = SlowNet()
    found = [measured.input_yx[0] for measured in measure(net, 1, shapes_to_measure(PAPER, 10**7), 3.0, net.clock)]
    assert found == [252, 572, 284, 412]


@pytest.mark.parametrize("most", [10**7, 200_000, 300 * 300])
def test_measured_shapes_are_legal_and_keep_within_memory(most: int) -> None:
    for y, x in shapes_to_measure(PAPER, most):
        assert y * x <= most
        assert y % 16 == x % 16 == 12


def test_a_net_of_one_size_is_measured_at_that() -> None:
    axis = AxisGeometry(256, 0, 0, 16, 16)
    assert shapes_to_measure(Geometry(axis, axis), 10**6) == ((256, 256),)
