"""Mirrored views: turned there and back exactly, and averaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model.label_rule import LabelRule
from model.tiling import AxisGeometry, Geometry
from training.evaluation.prediction import Predictor, net_predictor
from training.recipe import Recipe
from training.runs.checkpoint import build_net

AXIS = AxisGeometry(minimum=3, step=1, shrink=2, halo=0, grid=1)


def left_neighbour(tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
    """A net that sees one direction only: each pixel becomes its left neighbour."""
    return tiles_bcyx[..., 1:-1, :-2]


@pytest.fixture
def image_yxc() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((7, 10, 1), dtype=np.float32)


def test_mirroring_averages_over_all_eight_views(image_yxc: NDArray[np.float32]) -> None:
    plain = Predictor(left_neighbour, (), Geometry(AXIS, AXIS), LabelRule(), ("background", "object"))
    padded = np.pad(image_yxc[..., 0], 1, mode="reflect")
    assert np.array_equal(plain.probabilities(image_yxc)[0], padded[1:-1, :-2])
    sides = padded[1:-1, :-2] + padded[1:-1, 2:] + padded[:-2, 1:-1] + padded[2:, 1:-1]
    mirrored = replace(plain, mirror=True).probabilities(image_yxc)
    assert mirrored.dtype == np.float32
    np.testing.assert_allclose(mirrored[0], sides / 4, rtol=1e-6)


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_a_mirrored_net_knows_no_direction(
    image_yxc: NDArray[np.float32], tiny_recipe: Recipe, quarter_turns: int, flip: bool
) -> None:
    plain = net_predictor(build_net(tiny_recipe).eval(), tiny_recipe)
    mirrored = replace(plain, mirror=True)

    def turned(array: NDArray[np.float32], axes: tuple[int, int]) -> NDArray[np.float32]:
        return np.rot90(np.flip(array, axes[1]) if flip else array, quarter_turns, axes=axes)

    there = mirrored.probabilities(turned(image_yxc, (0, 1)))
    np.testing.assert_allclose(there, turned(mirrored.probabilities(image_yxc), (1, 2)), atol=1e-6)
    if quarter_turns or flip:  # which an unmirrored net does
        seen = plain.probabilities(turned(image_yxc, (0, 1)))
        assert not np.allclose(seen, turned(plain.probabilities(image_yxc), (1, 2)), atol=1e-6)
