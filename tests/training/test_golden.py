"""The picture of a golden pair tells one net from another."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from training.packaging.golden import SIZE_YX, Answer, candidates, golden_image, telling


def segmenter(sign: int) -> Answer:
    """Find what is brighter (1) or darker (-1) than the middle of the greys, surely."""

    def answer(picture_yxc: NDArray[np.uint8]) -> NDArray[np.float32]:
        smooth_yx = ndimage.gaussian_filter(picture_yxc[..., 0].astype(float), 2)
        foreground_yx = 1 / (1 + np.exp(-sign * (smooth_yx - 128.0)))
        return np.stack([1 - foreground_yx, foreground_yx]).astype(np.float32)

    return answer


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_net_gets_a_picture_in_which_it_finds_objects_and_background(sign: int, channels: int) -> None:
    answer = segmenter(sign)
    picture_yxc = golden_image(channels, answer)
    assert picture_yxc.shape == (*SIZE_YX, channels)
    assert picture_yxc.dtype == np.uint8
    share = float(np.mean(answer(picture_yxc)[1] > 0.5))
    assert 0.05 <= share <= 0.95
    np.testing.assert_array_equal(picture_yxc, golden_image(channels, answer), "the same each time")


def test_a_net_that_is_not_sure_gets_the_picture_of_which_it_is_surest() -> None:
    doubt = {picture_yx.tobytes(): 0.1 + index / 100 for index, picture_yx in enumerate(reversed(list(candidates())))}

    def answer(picture_yxc: NDArray[np.uint8]) -> NDArray[np.float32]:
        undecided_yx = np.linspace(0, 1, picture_yxc[..., 0].size).reshape(SIZE_YX) < doubt[picture_yxc.tobytes()]
        foreground_yx = np.where(undecided_yx, 0.505, 0.1)
        return np.stack([1 - foreground_yx, foreground_yx]).astype(np.float32)

    *_, last = candidates()
    np.testing.assert_array_equal(golden_image(1, answer)[..., 0], last)


def test_pictures_differ_and_use_all_greys() -> None:
    pictures = list(candidates())
    assert len({picture_yx.tobytes() for picture_yx in pictures}) == len(pictures)
    assert all(picture_yx.min() == 0 and picture_yx.max() == 255 for picture_yx in pictures)


def test_an_answer_that_is_no_number_tells_nothing() -> None:
    one = np.full((2, 10, 10), 0.5, dtype=np.float32)
    one[:, 3] = np.nan
    assert telling(one) == -np.inf


@pytest.mark.parametrize(
    ("foreground", "expected"),
    [
        ([0.0] * 100, 0.0),
        ([1.0] * 100, 0.0),
        ([0.9] * 30 + [0.1] * 70, 0.3),
        ([0.9] * 50 + [0.1] * 50, 0.5),
        ([0.505] * 30 + [0.1] * 70, -0.3),  # 0.505 and 0.495 may change places
    ],
)
def test_what_an_answer_tells(foreground: list[float], expected: float) -> None:
    one = np.array(foreground, dtype=np.float32).reshape(10, 10)
    assert telling(np.stack([1 - one, one])) == pytest.approx(expected)
