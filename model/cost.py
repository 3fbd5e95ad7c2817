"""What a tile costs on this machine: measured for a handful of shapes, interpolated between them.

Time for each pixel that is read is no constant. A net without padding returns less than it reads, and most of its work
is in what it returns: of a 252 px tile it does a third as much for each pixel as of a 1148 px tile. Pixels read and
``output_weight`` times the pixels returned, its *work*, tell the time of any tile to some 4 % (``nuclei``, ONNX Runtime
in fp32 and int8, OpenVINO in int8, squares and rectangles of 252 to 1212 px; weights of 1.4 to 3.9). What is left,
caches, and other programs, is interpolated: seconds for each unit of work over its logarithm, and squares and strips
told apart by a factor that grows with the logarithm of width over height. Where work explains nearly all, a quarter of
what is left is believed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.planner import pixels_read
from model.stitching import Run
from model.tiling import Geometry

Clock: TypeAlias = Callable[[], float]
"""Seconds since some moment."""

_EDGES_PX = ((252, 252), (572, 572), (284, 1148), (828, 828), (412, 412), (1148, 1148))
"""About the shapes (y, x) that are measured, in this order; the strip has the area of the square before it."""
_SQUARE = 1.5  # longer over shorter edge up to which a tile counts as a square
_SAME_WORK = 0.1  # logarithm of the ratio below which two tiles count as equally large
_OUTPUT_WEIGHTS = np.geomspace(0.25, 16, 49)
_USUAL_OUTPUT_WEIGHT = 3.0
_NOISE = 0.1  # of the logarithm of a measured time, and, beside it, of what weights differ by from net to net
_VARIETY = math.log(2)
_TRUST = 0.25  # in what work does not explain where that is little: on a busy machine most of it is noise
_MOST_NOISE = 0.2  # standard deviation of logarithms
_MOST_ASPECT = 0.15  # nothing measured differed by more for e times as wide a tile; what does is noise
_FLATTENING = 0.5  # of the slope measured is assumed beyond the largest tile measured: growth slows outside the caches
_MOST_SLOPE = 0.6
_UNKNOWN_SLOPE = 0.1  # where one size alone was measured
_REPEATS = 2
_REPEAT_SHARE = 0.1  # a tile is timed again where that takes no more than this share of the time left


@dataclass(frozen=True, slots=True)
class Measurement:
    """Time of one tile of ``input_yx`` pixels in seconds, the shortest of a few runs after a first one."""

    input_yx: tuple[int, int]
    seconds: float

    def __post_init__(self) -> None:
        if min(self.input_yx) < 1 or not 0 < self.seconds < math.inf:
            raise ValueError(f"{self.input_yx[0]} x {self.input_yx[1]} px in {self.seconds} s is no measurement")

    @property
    def pixels(self) -> int:
        """Area of the tile."""
        return math.prod(self.input_yx)


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds of one tile, for any shape; a :data:`model.planner.Cost`.

    Parameters
    ----------
    log_work, log_rate
        Knots: logarithms of a tile's work, ascending, and of seconds for each unit of it.
    aspect
        Added to the logarithm of the time for each unit of log(width / height) beyond a square; for upright strips
        only where it is positive.
    measurements
        What the model was fitted to.
    shrink_yx, output_weight
        Pixels by which the net's output is smaller than its input, and what one that it returns adds to its work.

    """

    log_work: tuple[float, ...]
    log_rate: tuple[float, ...]
    aspect: float
    measurements: tuple[Measurement, ...]
    shrink_yx: tuple[int, int] = (0, 0)
    output_weight: float = 0.0

    def __call__(self, input_y: NDArray[np.float64], input_x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds of one tile for arrays of input heights and widths in pixels."""
        work = np.log(_work(input_y, input_x, self.shrink_yx, self.output_weight))
        rate = np.interp(work, self.log_work, self.log_rate)
        rate += np.maximum(0.0, work - self.log_work[-1]) * self._slope_beyond()
        wide = np.log(input_x / input_y)
        rate += np.where(wide > 0, self.aspect * wide, -max(0.0, self.aspect) * wide)
        seconds: NDArray[np.float64] = np.exp(work + rate)
        return seconds

    def seconds(self, input_yx: tuple[int, int]) -> float:
        """Seconds of one tile of ``input_yx`` pixels."""
        return float(self(np.array([float(input_yx[0])]), np.array([float(input_yx[1])]))[0])

    def _slope_beyond(self) -> float:
        """Growth of log(seconds for each unit of work) with log(work) beyond the last knot."""
        if len(self.log_work) < 2:
            return _UNKNOWN_SLOPE
        slope = float(np.polyfit(self.log_work, self.log_rate, 1)[0])
        return _FLATTENING * min(max(slope, 0.0), _MOST_SLOPE)


def _work(
    input_y: NDArray[np.float64], input_x: NDArray[np.float64], shrink_yx: tuple[int, int], output_weight: float
) -> NDArray[np.float64]:
    """Pixels read, and the weighted ones returned."""
    output_y, output_x = np.maximum(0.0, input_y - shrink_yx[0]), np.maximum(0.0, input_x - shrink_yx[1])
    work: NDArray[np.float64] = pixels_read(input_y, input_x) + output_weight * output_y * output_x
    return work


def _work_of(measured: Measurement, shrink_yx: tuple[int, int], output_weight: float) -> float:
    input_y, input_x = (np.array([float(length)]) for length in measured.input_yx)
    return float(_work(input_y, input_x, shrink_yx, output_weight)[0])


def _output_weight(measurements: Sequence[Measurement], shrink_yx: tuple[int, int]) -> float:
    """Weight by which equal work takes the most equal time, held near the usual one as far as times are noisy."""
    if not any(shrink_yx):
        return 0.0  # all that is read is returned
    rates = np.array(
        [
            [math.log(measured.seconds / _work_of(measured, shrink_yx, weight)) for measured in measurements]
            for weight in _OUTPUT_WEIGHTS
        ]
    )
    unlike = ((rates - rates.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) / _NOISE**2
    unusual = (np.log(_OUTPUT_WEIGHTS / _USUAL_OUTPUT_WEIGHT) / _VARIETY) ** 2
    return float(_OUTPUT_WEIGHTS[(unlike + unusual).argmin()])


def _trust(log_rate: NDArray[np.float64]) -> float:
    """How much of what work does not explain is believed: the more of it there is, the less can be noise."""
    spread = float(log_rate.std())
    return max(_TRUST, 1 - (_MOST_NOISE / spread) ** 2) if spread > 0 else 1.0


def fit_cost(measurements: Sequence[Measurement], shrink_yx: tuple[int, int] = (0, 0)) -> CostModel:
    """Fit the model; a larger tile is never taken to be faster than a smaller one.

    Parameters
    ----------
    measurements
        One or more.
    shrink_yx
        Pixels by which the net's output is smaller than its input.

    Raises
    ------
    ValueError
        Without a measurement.

    """
    if not measurements:
        raise ValueError("a cost model needs at least one measured tile")
    squares = [m for m in measurements if max(m.input_yx) <= _SQUARE * min(m.input_yx)]
    weight = _output_weight(squares or measurements, shrink_yx)
    knots: list[tuple[float, float]] = []
    for measured in sorted(squares or measurements, key=lambda m: m.pixels):
        work = math.log(_work_of(measured, shrink_yx, weight))
        if knots and work - knots[-1][0] < _SAME_WORK:
            continue
        # noise may say that a larger tile took less time; no planner should see that
        total = max(math.log(measured.seconds), sum(knots[-1]) if knots else -math.inf)
        knots.append((work, total - work))
    log_work, log_rate = map(np.array, zip(*knots, strict=True))
    trust = _trust(log_rate) if any(shrink_yx) else 1.0
    log_rate = log_rate.mean() + trust * (log_rate - log_rate.mean())
    square = CostModel(tuple(log_work.tolist()), tuple(log_rate.tolist()), 0.0, tuple(measurements), shrink_yx, weight)
    slopes = [
        math.log(m.seconds / square.seconds(m.input_yx)) / math.log(m.input_yx[1] / m.input_yx[0])
        for m in (measurements if squares else ())
        if m.input_yx[1] > _SQUARE * m.input_yx[0]
    ]
    aspect = trust * float(np.clip(np.mean(slopes), -_MOST_ASPECT, _MOST_ASPECT)) if slopes else 0.0
    return replace(square, aspect=aspect)


def shapes_to_measure(geometry: Geometry, max_tile_pixels: int) -> tuple[tuple[int, int], ...]:
    """Legal input shapes (y, x) near small, medium and large squares and one strip, in the order of measuring."""
    shapes: dict[tuple[int, int], None] = {}
    for edge_y, edge_x in _EDGES_PX:
        shape = (
            geometry.y.input_for(max(1, edge_y - 2 * geometry.y.margin)) if geometry.y.step else geometry.y.minimum,
            geometry.x.input_for(max(1, edge_x - 2 * geometry.x.margin)) if geometry.x.step else geometry.x.minimum,
        )
        if math.prod(shape) <= max_tile_pixels:
            shapes[shape] = None
    smallest = geometry.y.input_for(1), geometry.x.input_for(1)
    return tuple(shapes) or (smallest,)


def measure(
    run: Run,
    channels: int,
    shapes: Sequence[tuple[int, int]],
    budget_s: float,
    clock: Clock = time.perf_counter,
) -> tuple[Measurement, ...]:
    """Time a net on tiles of noise, one shape after the other as far as time allows; the first one always.

    Parameters
    ----------
    run
        The net.
    channels
        Of its input.
    shapes
        Input shapes (y, x), in order.
    budget_s
        Seconds that all of it should take; a shape whose runs would not end in time is left out.
    clock
        Seconds.

    """
    noise = np.random.default_rng(0)
    found: list[Measurement] = []
    end = clock() + budget_s
    for shape in shapes:
        # a first run pays for the new shape and may take as long as two; at least one more is timed
        if found and clock() + 3 * found[-1].seconds * math.prod(shape) / found[-1].pixels > end:
            continue
        tile = noise.standard_normal((1, channels, *shape), dtype=np.float32)
        run(tile)
        best = _timed(run, tile, clock)
        for _ in range(_REPEATS):
            # whatever else the machine does can only make a run longer
            if best < _REPEAT_SHARE * (end - clock()):
                best = min(best, _timed(run, tile, clock))
        found.append(Measurement(shape, best))
    return tuple(found)


def _timed(run: Run, tile: NDArray[np.float32], clock: Clock) -> float:
    started = clock()
    run(tile)
    return max(1e-6, clock() - started)
