"""Run lengths: pycocotools reads what is written, for every shape and every arrangement of objects."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco

from service.formats import SegmentationResult, UnsupportedOutput
from service.formats import runs as runs_module
from service.formats.runs import BLOCK, compress, object_runs
from tests.service.formats.results import encoded, label_planes, labels, mask, probabilities

# pycocotools 2.0 hands NumPy 2 an object that does not know the copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def encode(result: SegmentationResult) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encoded("rle", result))
    return document


@settings(max_examples=300)
@given(plane=label_planes())
def test_labels_are_what_pycocotools_decodes(plane: NDArray[np.uint16]) -> None:
    document = encode(labels(plane))
    decoded = np.zeros_like(plane)
    for entry in document["objects"]:
        pixels = coco.decode(entry["segmentation"]).astype(bool)
        decoded[pixels] = entry["label"]
        assert entry["area"] == int(pixels.sum()) == int(coco.area(entry["segmentation"]))
        assert entry["bbox"] == coco.toBbox(entry["segmentation"]).tolist()
    np.testing.assert_array_equal(decoded, plane)
    assert document["size"] == list(plane.shape)


@settings(max_examples=200)
@given(plane=label_planes(largest=1))
def test_counts_are_the_very_bytes_of_pycocotools(plane: NDArray[np.uint16]) -> None:
    (entry,) = encode(mask(plane))["objects"]
    assert entry["segmentation"]["counts"] == coco.encode(np.asfortranarray(plane.astype(np.uint8)))["counts"].decode()


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3, 7), (1, 400_000), (700, 900)])
@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_masks_of_any_size(shape: tuple[int, int], value: int) -> None:
    plane = np.full(shape, value, dtype=np.uint8)
    (entry,) = encode(mask(plane))["objects"]
    assert entry["area"] == value * plane.size
    assert entry["class"] == "cell"
    np.testing.assert_array_equal(coco.decode(entry["segmentation"]), plane)


def test_many_objects_in_more_runs_than_one_block() -> None:
    rng = np.random.default_rng(0)
    plane = rng.integers(0, 9, (600, 700), dtype=np.uint32) * 100_000
    assert plane.size > BLOCK
    decoded = np.zeros_like(plane)
    for runs in object_runs(plane):
        decoded[coco.decode({"size": [600, 700], "counts": runs.counts}).astype(bool)] = runs.label
    np.testing.assert_array_equal(decoded, plane)


def test_absent_classes_of_a_mask_are_there_and_empty() -> None:
    document = encode(mask([[0, 2], [0, 0]], classes=("background", "a", "b")))
    assert [(entry["class"], entry["class_index"], entry["area"]) for entry in document["objects"]] == [
        ("a", 1, 0),
        ("b", 2, 1),
    ]


def test_scores_and_receipt_are_in_the_document() -> None:
    document = encode(labels([[1, 2]], scores=(np.array([0.25, 0.75], dtype=np.float32),), pixel_size_um=(0.5, 0.25)))
    assert [entry["score"] for entry in document["objects"]] == [0.25, 0.75]
    assert document["receipt"]["model"] == "cells@1.0.0"
    assert document["pixel_size_um"] == [0.5, 0.25]


def test_a_stack_has_one_entry_per_plane_with_its_position() -> None:
    planes = np.arange(6).reshape(6, 1, 1)
    document = encode(labels(*planes, stack_axes="TZ", stack_shape=(2, 3)))
    assert [plane["index"] for plane in document["planes"]] == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert [len(plane["objects"]) for plane in document["planes"]] == [0, 1, 1, 1, 1, 1]
    assert "objects" not in document


def test_probabilities_are_refused_with_the_remedy() -> None:
    with pytest.raises(UnsupportedOutput, match="format=tiff"):
        encode(probabilities(np.zeros((2, 3, 4))))


@settings(max_examples=100)
@given(counts=st.lists(st.integers(1, 2**40), min_size=1, max_size=8))
def test_long_runs_are_compressed_without_overflow(counts: list[int]) -> None:
    """Lengths beyond 32 bits, decoded by the inverse of maskApi.c's rleToString."""
    text, _ = compress(np.array(counts, dtype=np.int64), np.array([0, len(counts)]))
    decoded: list[int] = []
    position = 0
    while position < len(text):
        value = shift = 0
        while True:
            group = text[position] - 48
            value |= (group & 0x1F) << shift
            position, shift = position + 1, shift + 5
            if not group & 0x20:
                break
        if group & 0x10:
            value -= 1 << shift
        decoded.append(value + (decoded[-2] if len(decoded) > 2 else 0))
    assert decoded == counts


@given(plane=label_planes(largest=2), columns_px=st.integers(1, 60))
def test_runs_do_not_depend_on_how_many_columns_are_looked_at_together(
    plane: NDArray[np.uint16], columns_px: int
) -> None:
    whole = list(object_runs(plane))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs_module, "COLUMNS_PX", columns_px)
        assert list(object_runs(plane)) == whole
