"""PNG, TIFF and .npy: decode(encode(x)) == x, and refusals that name the remedy."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from numpy.typing import NDArray
from PIL import Image

from model.images import PIXEL_SIZE_LIMITS_UM, ReadLimits, open_image
from service.formats import UnsupportedOutput
from service.formats import tiff as tiff_format
from tests.service.formats.results import RECEIPT, encoded, label_planes, labels, mask, probabilities

LIMITS = ReadLimits(max_pixels=1 << 24, max_bytes=1 << 26)


@settings(max_examples=100)
@given(plane=label_planes(largest=65_535))
def test_png_labels_are_16_bit_grey_and_exact(plane: NDArray[np.uint16]) -> None:
    with Image.open(io.BytesIO(encoded("png", labels(plane)))) as image:
        assert image.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(image), plane)


@settings(max_examples=50)
@given(plane=label_planes(largest=1))
def test_png_masks_of_two_classes_are_0_and_255(plane: NDArray[np.uint16]) -> None:
    with Image.open(io.BytesIO(encoded("png", mask(plane)))) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), plane * 255)


def test_png_masks_of_more_classes_are_class_indexes_without_a_palette() -> None:
    result = mask([[0, 1, 2]], classes=("background", "a", "b"))
    with Image.open(io.BytesIO(encoded("png", result))) as image:
        assert (image.mode, np.asarray(image).tolist()) == ("L", [[0, 1, 2]])


def test_png_carries_the_receipt() -> None:
    with Image.open(io.BytesIO(encoded("png", mask([[0, 1]])))) as image:
        image.load()
        assert json.loads(image.info["unet-receipt"]) == RECEIPT


@pytest.mark.parametrize(
    ("size_um", "expected"),
    [((0.65, 0.25), (0.65, 0.25)), (None, None), ((1e-6, 1e-6), None), ((0.5, 1e-6), None)],
)
def test_png_keeps_the_pixel_size_where_it_can_hold_it(
    size_um: tuple[float, float] | None, expected: tuple[float, float] | None
) -> None:
    with open_image(io.BytesIO(encoded("png", labels([[0, 1]], pixel_size_um=size_um))), LIMITS) as reader:
        found = reader.header.pixel_size_um
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-6))


@pytest.mark.parametrize("size_um", PIXEL_SIZE_LIMITS_UM)
def test_png_with_the_pixel_size_limits_opens_elsewhere(size_um: float) -> None:
    with Image.open(io.BytesIO(encoded("png", labels([[0, 1]], pixel_size_um=(size_um, 2.0))))) as image:
        assert np.asarray(image).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (labels([[65_536]], dtype=np.uint32), "65536 labels, PNG holds 65535; ask for format=tiff"),
        (labels([[1]], [[1]]), "PNG holds one plane, the result is a stack; ask for format=tiff"),
        (probabilities(np.zeros((2, 1, 1))), "ask for format=tiff"),
    ],
)
def test_what_png_cannot_hold_is_refused_with_the_remedy(result: Any, reason: str) -> None:
    with pytest.raises(UnsupportedOutput, match=reason):
        encoded("png", result)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_tiff_labels_are_exact_and_keep_pixel_size_and_axes(dtype: type) -> None:
    planes = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (6, 30, 21), dtype=dtype)
    result = labels(*planes, dtype=dtype, stack_axes="TZ", stack_shape=(2, 3), pixel_size_um=(0.5, 0.25))
    data = encoded("tiff", result)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert tiff.series[0].axes == "TZYX"
        np.testing.assert_array_equal(tiff.asarray(), planes.reshape(2, 3, 30, 21))
        metadata = tiff.imagej_metadata
        assert metadata is not None
        assert (metadata["unit"], metadata["slices"], metadata["frames"]) == ("micron", 3, 2)
        assert tiff.pages.first.resolution == (4.0, 2.0)
    with open_image(io.BytesIO(data), LIMITS) as reader:
        assert (reader.header.stack_axes, reader.header.stack_shape) == ("TZ", (2, 3))
        assert reader.header.pixel_size_um == pytest.approx((0.5, 0.25))
        np.testing.assert_array_equal(np.stack([reader.read_plane(i)[..., 0] for i in range(6)]).astype(dtype), planes)


@pytest.mark.parametrize("size", PIXEL_SIZE_LIMITS_UM)
def test_tiff_holds_the_smallest_and_the_largest_pixel_size(size: float) -> None:
    data = encoded("tiff", labels([[0, 1]], pixel_size_um=(size, 0.5)))
    with open_image(io.BytesIO(data), LIMITS) as reader:
        assert reader.header.pixel_size_um == pytest.approx((size, 0.5), rel=1e-3)


@pytest.mark.parametrize(("width", "tile"), [(16_384, None), (16_385, (512, 512))])
def test_tiff_pages_of_slides_are_tiles(width: int, tile: tuple[int, int] | None) -> None:
    column = np.arange(16_384, dtype=np.uint16)[:, None]
    result = dataclasses.replace(labels([[0]]), planes=(np.broadcast_to(column, (16_384, width)),))
    with tifffile.TiffFile(io.BytesIO(encoded("tiff", result))) as tiff:
        page = tiff.pages.first
        assert (page.imagelength, page.imagewidth, page.tile) == (16_384, width, tile)
        pixels = 0
        for segment, (*_, y, x, _), _ in page.segments():
            part = segment[0, : 16_384 - y, : width - x, 0]
            assert (part == column[y : y + len(part)]).all(), (y, x)
            pixels += part.size
        assert pixels == 16_384 * width


def test_tiff_tiles_hold_stacks_with_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_format, "TILED_ABOVE_PX", 0)
    planes = np.arange(2 * 2 * 513 * 30, dtype=np.float32).reshape(2, 2, 513, 30)
    with tifffile.TiffFile(io.BytesIO(encoded("tiff", probabilities(*planes)))) as tiff:
        assert (tiff.series[0].axes, tiff.pages.first.is_tiled) == ("ZCYX", True)
        np.testing.assert_array_equal(tiff.asarray(), planes)


@pytest.mark.parametrize("format_name", ["png", "tiff", "rle", "coco", "geojson"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_receipt_with_what_json_does_not_have_is_never_written(format_name: str, number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        encoded(format_name, labels([[0, 1]], receipt={"constants": [number]}))


def test_tiff_keeps_the_steps_of_stacks() -> None:
    result = labels(*[[[1, 2]]] * 6, stack_axes="TZ", stack_shape=(2, 3))
    for pixel_size_um in ((0.5, 0.5), None):
        stepped = dataclasses.replace(result, pixel_size_um=pixel_size_um, spacing_um=2.5, interval_s=3.0)
        header = open_image(io.BytesIO(encoded("tiff", stepped)), LIMITS).header
        assert header.pixel_size_um == pixel_size_um
        assert (header.spacing_um, header.interval_s) == (2.5, 3.0)


def test_tiff_stacks_of_other_order_are_written_in_the_order_of_imagej() -> None:
    planes = np.arange(6, dtype=np.uint16).reshape(6, 1, 1) + np.zeros((1, 4, 5), dtype=np.uint16)
    data = encoded("tiff", labels(*planes, stack_axes="ZT", stack_shape=(3, 2)))
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert tiff.series[0].axes == "TZYX"
        np.testing.assert_array_equal(tiff.asarray()[..., 0, 0], np.arange(6).reshape(3, 2).T)


def test_tiff_probabilities_are_exact_with_one_channel_per_class() -> None:
    planes = np.random.default_rng(0).random((3, 2, 9, 8), dtype=np.float32)
    data = encoded("tiff", probabilities(*planes))
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert tiff.series[0].axes == "ZCYX"
        np.testing.assert_array_equal(tiff.asarray(), planes)


@settings(max_examples=60)
@given(plane=label_planes(largest=1))
def test_tiff_masks_are_0_and_255_with_the_receipt(plane: NDArray[np.uint16]) -> None:
    data = encoded("tiff", mask(plane))
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        np.testing.assert_array_equal(tiff.pages.first.asarray(), plane * 255)
        receipt = tiff.pages.first.description.partition("unet_receipt=")[2]
    assert json.loads(receipt) == RECEIPT


@settings(max_examples=40)
@given(plane=label_planes(largest=65_535))
def test_npy_is_the_array_without_stack_axes_for_one_plane(plane: NDArray[np.uint16]) -> None:
    loaded = np.load(io.BytesIO(encoded("npy", labels(plane))), allow_pickle=False)
    assert loaded.dtype == plane.dtype
    np.testing.assert_array_equal(loaded, plane)


def test_npy_keeps_the_stack_axes() -> None:
    planes = np.random.default_rng(0).random((6, 2, 3, 4), dtype=np.float32)
    result = probabilities(*planes, stack_axes="TZ", stack_shape=(2, 3))
    loaded = np.load(io.BytesIO(encoded("npy", result)), allow_pickle=False)
    np.testing.assert_array_equal(loaded, planes.reshape(2, 3, 2, 3, 4))


def test_results_of_several_bands_are_written_whole() -> None:
    """More than two bands of a million pixels, the last one short."""
    plane = (np.random.default_rng(0).random((1100, 2000)) * 500).astype(np.uint16)
    result = labels(plane)
    assert len(list(result.bands(0))) == 3
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded("png", result)))), plane)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(encoded("tiff", result))), plane)
    np.testing.assert_array_equal(np.load(io.BytesIO(encoded("npy", result))), plane)


def test_a_stack_whose_planes_differ_in_width_is_written_in_the_wider_one() -> None:
    few, many = np.array([[1, 0]], dtype=np.uint16), np.array([[0, 70_000]], dtype=np.uint32)
    result = dataclasses.replace(labels(few, few), planes=(few, many))
    assert tifffile.imread(io.BytesIO(encoded("tiff", result))).tolist() == [few.tolist(), many.tolist()]
    assert np.load(io.BytesIO(encoded("npy", result))).tolist() == [few.tolist(), many.tolist()]


class Plane:
    """Counts how often its type is asked for."""

    asked = 0

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values
        self.shape = values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """As of an array."""
        type(self).asked += 1
        return self._values.dtype

    def __getitem__(self, key: Any, /) -> Any:
        return self._values[key]

    def __setitem__(self, key: Any, value: Any, /) -> None:
        self._values[key] = value


@pytest.mark.parametrize("format_name", ["tiff", "npy"])
def test_the_type_of_a_stack_is_found_once_for_all_its_parts(format_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a stack takes time with the square of its planes."""
    monkeypatch.setattr(Plane, "asked", 0)
    planes = np.arange(50 * 6, dtype=np.uint16).reshape(50, 2, 3)
    result = dataclasses.replace(labels(*planes), planes=tuple(map(Plane, planes)))
    assert encoded(format_name, result) == encoded(format_name, labels(*planes))
    assert Plane.asked == 50
