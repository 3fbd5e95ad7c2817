"""Segmentation results, drawn by Hypothesis and made by hand."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.formats import ENCODERS, SegmentationResult

RECEIPT = {"model": "cells@1.0.0", "note": "µm", "tiles": [1, 2]}


def encoded(format_name: str, result: SegmentationResult) -> bytes:
    """What the encoder of that name writes."""
    file = io.BytesIO()
    ENCODERS[format_name].write(result, file)
    return file.getvalue()


def mask(*planes: Any, classes: tuple[str, ...] = ("background", "cell"), **fields: Any) -> SegmentationResult:
    """Result of class indexes."""
    return _result("mask", np.asarray(planes, dtype=np.uint8), classes, **fields)


def labels(*planes: Any, dtype: type = np.uint16, **fields: Any) -> SegmentationResult:
    """Result of numbered objects."""
    return _result("labels", np.asarray(planes, dtype=dtype), ("background", "cell"), **fields)


def probabilities(*planes: Any, **fields: Any) -> SegmentationResult:
    """Result of floats (n, c, y, x)."""
    return _result("probabilities", np.asarray(planes, dtype=np.float32), ("background", "cell"), **fields)


def _result(kind: Any, planes: NDArray[Any], classes: tuple[str, ...], **fields: Any) -> SegmentationResult:
    stack = {"stack_axes": "Z", "stack_shape": (len(planes),)} if len(planes) > 1 else {}
    defaults: dict[str, Any] = {
        "stack_axes": "",
        "stack_shape": (),
        "pixel_size_um": None,
        "scores": None,
        "receipt": RECEIPT,
    }
    return SegmentationResult(kind, tuple(planes), classes, **(defaults | stack | fields))


def label_planes(largest: int = 5, dtype: Any = np.uint16) -> st.SearchStrategy[NDArray[Any]]:
    """Small label images, 1 x 1 and long ones included; every value anywhere, so that objects touch and have holes."""
    shape = st.tuples(st.integers(1, 12), st.integers(1, 12))
    return shape.flatmap(
        lambda size: hnp.arrays(dtype=dtype, shape=size, elements=st.integers(0, largest), fill=st.nothing())
    )
