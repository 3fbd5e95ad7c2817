"""Values by rank without sorting: every type, every rank, however the values are cut into bands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from model.normalization import ScaleRange, fit
from model.order_statistics import lowest_to_highest

DTYPES = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float16, np.float32, np.float64]
values = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        st.integers(1, 30),
        elements=hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False),
    )
)


@given(flat=values, band=st.integers(10, 30), data=st.data())
def test_order_statistics_are_those_of_sorting(flat: NDArray[Any], band: int, data: st.DataObject) -> None:
    ranks = data.draw(st.lists(st.integers(0, len(flat) - 1), min_size=1, max_size=4))
    found = lowest_to_highest(lambda: (flat[at : at + band] for at in range(0, len(flat), band)), flat.dtype, ranks)
    np.testing.assert_array_equal(found, np.sort(flat.astype(np.float64))[ranks])


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.float32, np.float64])
@pytest.mark.parametrize("per_channel", [True, False])
def test_the_range_of_wide_types_is_numpys_percentile(dtype: type, per_channel: bool) -> None:
    image_yxc: NDArray[Any] = (np.random.default_rng(1).normal(300, 90, (61, 47, 2)) * 50).clip(0).astype(dtype)
    step = ScaleRange(per_channel=per_channel, min_percentile=1, max_percentile=99.8)
    found = np.array(fit([step], image_yxc).constants()[0]["subtract"])
    expected = np.percentile(image_yxc.astype(np.float64), 1, axis=(0, 1) if per_channel else None)
    np.testing.assert_allclose(found, np.broadcast_to(expected, 2), rtol=1e-12)
