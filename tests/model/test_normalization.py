"""Normalisation: bioimage.io's formulas, whole-image statistics, every dtype, any region."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from model.errors import NonFiniteImage, UnsupportedPackage
from model.normalization import (
    Clip,
    FixedZeroMeanUnitVariance,
    ScaleLinear,
    ScaleRange,
    Step,
    ZeroMeanUnitVariance,
    fit,
)

images = hnp.arrays(
    dtype=st.sampled_from([np.uint8, np.uint16, np.int16, np.uint32]),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 3)),
)


@given(image_yxc=images, low=st.floats(0, 40), high=st.floats(60, 100))
def test_scale_range_is_numpys_percentile(image_yxc: NDArray[Any], low: float, high: float) -> None:
    fitted = fit([ScaleRange(min_percentile=low, max_percentile=high)], image_yxc).apply(image_yxc)
    values = image_yxc.astype(np.float64)
    bottom, top = np.percentile(values, (low, high), axis=(0, 1))
    expected = np.moveaxis((values - bottom) / (top - bottom + 1e-6), -1, 0)
    np.testing.assert_allclose(fitted, expected, rtol=2e-5, atol=2e-5 * max(1.0, float(np.abs(expected).max())))


@given(image_yxc=images, per_channel=st.booleans())
def test_zero_mean_unit_variance_is_numpys(image_yxc: NDArray[Any], per_channel: bool) -> None:
    fitted = fit([ZeroMeanUnitVariance(per_channel=per_channel)], image_yxc).apply(image_yxc)
    values = image_yxc.astype(np.float64)
    axes = (0, 1) if per_channel else (0, 1, 2)
    expected = (values - values.mean(axis=axes)) / (values.std(axis=axes) + 1e-6)
    np.testing.assert_allclose(fitted, np.moveaxis(expected, -1, 0), rtol=1e-4, atol=1e-4)


STEPS: list[list[Step]] = [
    [ScaleRange(min_percentile=1, max_percentile=99.8)],
    [ZeroMeanUnitVariance(), Clip(min=-3, max=3)],
    [ScaleLinear(gain=(2.0,), offset=(-1.0,)), ZeroMeanUnitVariance()],
    [FixedZeroMeanUnitVariance(mean=(100.0,), std=(20.0,))],
]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_a_region_is_normalised_as_the_whole(steps: list[Step], dtype: type) -> None:
    image_yxc: NDArray[Any] = (np.random.default_rng(0).random((40, 50, 2)) * 200).astype(dtype)
    before = image_yxc.copy()
    normalization = fit(steps, image_yxc)
    whole = normalization.apply(image_yxc)
    assert whole.dtype == np.float32
    assert whole.shape == (2, 40, 50)
    assert np.array_equal(normalization.apply(image_yxc[7:19, 11:30]), whole[:, 7:19, 11:30])
    assert np.array_equal(image_yxc, before), "the image itself must not change"


def test_statistics_follow_earlier_steps() -> None:
    image_yxc = np.random.default_rng(1).integers(0, 4000, (30, 30, 1)).astype(np.uint16)
    direct = fit([ScaleRange()], image_yxc).apply(image_yxc)
    after_gain = fit([ScaleLinear(gain=(3.0,), offset=(5.0,)), ScaleRange()], image_yxc).apply(image_yxc)
    np.testing.assert_allclose(direct, after_gain, atol=1e-5)


def test_16_bit_values_that_differ_by_one_stay_apart() -> None:
    image_yxc = np.array([[40_000, 40_001, 0, 65_535]], dtype=np.uint16)[..., np.newaxis]
    values = fit([ScaleRange()], image_yxc).apply(image_yxc)[0, 0]
    assert values[1] - values[0] == pytest.approx(1 / 65_535, rel=0.01)


def test_a_constant_image_becomes_finite_zeros() -> None:
    image_yxc = np.full((8, 8, 1), 77, dtype=np.uint16)
    for step in (ScaleRange(), ZeroMeanUnitVariance()):
        assert np.array_equal(fit([step], image_yxc).apply(image_yxc), np.zeros((1, 8, 8), dtype=np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_pixels_are_refused_with_their_number(value: float) -> None:
    image_yxc = np.zeros((5, 5, 1), dtype=np.float32)
    image_yxc[2, 2] = image_yxc[3, 1] = value
    with pytest.raises(NonFiniteImage, match="2 of 25"):
        fit([ScaleRange()], image_yxc)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Clip(min=0), ScaleRange()], "after a clip"),
        ([ScaleLinear(gain=(-1.0,)), ScaleRange()], "negative gain"),
        ([ScaleLinear(gain=(0.0,))], "gain of 0"),
        ([FixedZeroMeanUnitVariance(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0))], "3 normalisation constants"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(steps: list[Step], message: str) -> None:
    with pytest.raises(UnsupportedPackage, match=message):
        fit(steps, np.zeros((4, 4, 2), dtype=np.uint8))


def test_constants_name_what_was_done() -> None:
    image_yxc = np.array([[10, 20]], dtype=np.uint8)[..., np.newaxis]
    (affine, clip) = fit([ScaleRange(eps=1e-6), Clip(min=0, max=1)], image_yxc).constants()
    assert affine["subtract"] == [10.0]
    assert affine["multiply"][0] == pytest.approx(0.1)
    assert clip == {"clip": [0.0, 1.0]}


def test_an_open_end_of_a_clip_is_null_and_not_infinity() -> None:
    assert fit([Clip(max=1.0)], np.zeros((2, 2, 1), dtype=np.uint8)).constants() == [{"clip": [None, 1.0]}]


def test_float32_images_of_any_finite_range_are_normalised() -> None:
    image_yxc = np.array([[3e38, -3e38], [0, 1]], dtype=np.float32)[..., np.newaxis]
    values = fit([ScaleRange()], image_yxc).apply(image_yxc)[0]
    np.testing.assert_allclose(values, np.array([[1.0, 0.0], [0.5, 0.5]]), atol=1e-6)


@pytest.mark.parametrize("step", [ScaleRange(), ZeroMeanUnitVariance()])
@pytest.mark.parametrize(
    ("unit", "offset", "dtype", "noted"),
    [
        (1e-9, 0.0, np.float32, True),
        (1e-9, 0.0, np.float64, True),
        (1e-4, 0.0, np.float32, False),
        (1e-9, 0.1, np.float64, False),  # an even image, and rounding
        (0.0, 1e-9, np.float32, False),
        (1.0, 0.0, np.uint8, False),
    ],
)
def test_an_image_whose_contrast_drowns_in_eps_is_noted(
    step: Step, unit: float, offset: float, dtype: Any, noted: bool
) -> None:
    image_yxc = (np.arange(64).reshape(8, 8, 1) / 8 * unit + offset).astype(dtype)
    notes = fit([step], image_yxc).notes
    assert bool(notes) == noted
    if noted:
        assert notes[0].startswith("pixel values are spread over about 1e-")
        factor = float(notes[0].split()[-2].strip(","))
        assert not fit([step], image_yxc * factor).notes


def test_a_channel_that_can_be_seen_is_enough() -> None:
    image_yxc = np.stack([np.arange(16.0), np.arange(16.0) * 1e-9], axis=-1).reshape(4, 4, 2)
    assert not fit([ScaleRange()], image_yxc).notes
    assert fit([ScaleRange(per_channel=True)], image_yxc[..., 1:]).notes


@pytest.mark.parametrize(
    "step", [ScaleRange(min_percentile=1, max_percentile=99), FixedZeroMeanUnitVariance(mean=(7.3,), std=(1.7,))]
)
@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.int32, np.float32, np.float64])
def test_the_same_values_are_normalised_alike_whatever_their_type(step: Step, dtype: Any) -> None:
    image_yxc = np.random.default_rng(0).integers(0, 30_000, (40, 50, 1)).astype(np.uint16)
    other = image_yxc.astype(dtype)
    np.testing.assert_array_equal(fit([step], other).apply(other), fit([step], image_yxc).apply(image_yxc))


@pytest.mark.parametrize("image", [np.array([2**24 + 1, 2**24], np.int32), np.array([1 + 2**-40, 1.0])])
def test_values_that_float32_would_round_are_kept_apart(image: NDArray[Any]) -> None:
    image_yxc = image.reshape(1, 2, 1)
    np.testing.assert_allclose(fit([ScaleRange(eps=1e-30)], image_yxc).apply(image_yxc)[0, 0], [1, 0])
