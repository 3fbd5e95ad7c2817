"""Axes that a caller names: every layout is read as numpy reads it, and those of another image are refused."""

from __future__ import annotations

import io
import itertools
import warnings
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.images import AxesMismatch, UndecodableImage, parse_axes
from model.images.axes import LETTERS
from model.images.tiff_ifd import MAX_PAGES
from tests.model.images.tiffs import ramp, read, write

LAYOUTS = [
    "".join(letters)
    for count in range(2, 6)
    for letters in itertools.permutations(LETTERS, count)
    if {"Y", "X"} <= set(letters)
]


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def as_planes(array: NDArray[Any], axes: str) -> tuple[str, NDArray[Any]]:
    """Letters of the stack, and the array as (..., y, x, c)."""
    if "C" not in axes:
        array, axes = array[..., np.newaxis], axes + "C"
    stack = "".join(letter for letter in axes if letter not in "YXC")
    return stack, np.transpose(array, [axes.index(letter) for letter in stack + "YXC"])


@settings(max_examples=200)
@given(axes=st.sampled_from(LAYOUTS), data=st.data(), fortran=st.booleans())
def test_every_layout_of_an_array_is_numpys(axes: str, data: st.DataObject, fortran: bool) -> None:
    array = ramp(*data.draw(st.tuples(*[st.integers(1, 4)] * len(axes))))
    stack, expected = as_planes(array, axes)
    header, planes = read(npy(np.asfortranarray(array) if fortran else array), axes=axes)
    assert (header.stack_axes, header.stack_shape) == (stack, expected.shape[:-3])
    assert (header.size_yx, header.channels, header.notes) == (expected.shape[-3:-1], expected.shape[-1], ())
    np.testing.assert_array_equal(planes, expected.reshape(-1, *expected.shape[-3:]))


@settings(max_examples=50)
@given(
    lead=st.sampled_from([axes[:-2] for axes in LAYOUTS if axes.endswith("YX")]),
    data=st.data(),
    kind=st.sampled_from(["shaped", "plain"]),
)
def test_every_layout_of_pages_is_numpys(lead: str, data: st.DataObject, kind: str) -> None:
    lead = lead if kind == "shaped" else lead[:1]  # pages alone have one axis
    array = ramp(*data.draw(st.tuples(*[st.integers(2, 4)] * len(lead))), 5, 6)
    stack, expected = as_planes(array, lead + "YX")
    options: dict[str, Any] = {"photometric": "minisblack"} | ({} if kind == "shaped" else {"metadata": None})
    header, planes = read(write(array, **options), axes=lead + "YX")
    assert (header.stack_axes, header.stack_shape, header.channels) == (stack, expected.shape[:-3], expected.shape[-1])
    np.testing.assert_array_equal(planes, expected.reshape(-1, *expected.shape[-3:]))


def test_slices_that_are_channels_lose_what_the_file_says_of_slices() -> None:
    stack = ramp(3, 8, 9)
    data = write(stack, imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", "unit": "um", "spacing": 3.0})
    header, planes = read(data, axes="CYX")
    assert (header.channels, header.stack_axes, header.pixel_size_um) == (3, "", (0.5, 0.5))
    assert header.spacing_um is None
    assert header.notes == ("axes CYX as asked for, in place of ZYX",)
    np.testing.assert_array_equal(planes[0], np.moveaxis(stack, 0, -1))
    assert read(data, axes="ZYX")[0] == read(data)[0]


@pytest.mark.parametrize(
    ("axes", "labels", "names"),
    [
        ("CTYX", ["actin"] * 3 + ["DAPI"] * 3, ("actin", "DAPI")),
        ("TCYX", ["actin", "DAPI", "GFP"] * 2, ("actin", "DAPI", "GFP")),
        ("CTYX", ["actin", "DAPI", "GFP"] * 2, ()),
        ("CTYX", ["actin"] * 3, ()),
    ],
)
def test_labels_of_what_were_slices_name_the_channels(axes: str, labels: list[str], names: tuple[str, ...]) -> None:
    data = write(ramp(2, 3, 8, 9), imagej=True, metadata={"axes": "TZYX", "Labels": labels})
    assert read(data)[0].channel_names == ()
    assert read(data, axes=axes)[0].channel_names == names


def test_frames_and_channels_that_are_confused_are_told_apart() -> None:
    hyperstack = ramp(2, 3, 8, 9)
    header, planes = read(write(hyperstack, imagej=True, metadata={"axes": "ZCYX"}), axes="CTYX")
    assert (header.stack_axes, header.stack_shape, header.channels) == ("T", (3,), 2)
    np.testing.assert_array_equal(planes, np.moveaxis(hyperstack, 0, -1))


@pytest.mark.parametrize("axes", ["ZYXC", "ZCYX"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_pages_of_colours_keep_them(axes: str, planar: str) -> None:
    stack = ramp(2, 8, 9, 3, dtype=np.uint8)
    stored = stack if planar == "contig" else np.moveaxis(stack, -1, 1)
    data = write(stored, photometric="rgb", planarconfig=planar, metadata=None)
    header, planes = read(data, axes=axes)
    assert (header.stack_axes, header.channels) == ("Z", 3)
    np.testing.assert_array_equal(planes, stack)


@settings(max_examples=80)
@given(
    axes=st.sampled_from([axes for axes in LAYOUTS if axes.endswith("YX") and len(axes) > 2]),
    data=st.data(),
    samples=st.sampled_from([3, 4]),
    said=st.sampled_from(["by the caller", "by the file"]),
    options=st.sampled_from(
        [{}, {"compression": "zlib"}, {"compression": "lzw", "rowsperstrip": 2}, {"tile": (16, 16)}, {"bigtiff": True}]
    ),
)
def test_axes_of_arrays_that_tifffile_makes_colours_are_believed(
    axes: str, data: st.DataObject, samples: int, said: str, options: dict[str, Any]
) -> None:
    array = ramp(*data.draw(st.tuples(*[st.integers(2, 4)] * (len(axes) - 3))), samples, 5, 6)
    stack, expected = as_planes(array, axes)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # that it will not make colours of them
        file = write(array, metadata={"axes": axes} if said == "by the file" else {}, **options)
    with tifffile.TiffFile(io.BytesIO(file)) as tiff:
        assert (tiff.pages.first.photometric, tiff.pages.first.planarconfig) == (2, 2)
    header, planes = read(file, axes=axes if said == "by the caller" else None)
    assert (header.stack_axes, header.stack_shape, header.channels) == (stack, expected.shape[:-3], expected.shape[-1])
    np.testing.assert_array_equal(planes, expected.reshape(-1, *expected.shape[-3:]))


def test_images_of_planar_pages_behind_one_directory_are_read_to_their_end() -> None:
    array = ramp(2, 3, 8, 9)
    description = '{"shape": [2, 3, 8, 9], "axes": "TZYX"}'
    first = write(array[0], photometric="rgb", planarconfig="separate", metadata=None, description=description)
    header, planes = read(first + array[1].tobytes())
    assert (header.stack_axes, header.stack_shape, header.channels) == ("TZ", (2, 3), 1)
    np.testing.assert_array_equal(planes[..., 0], array.reshape(6, 8, 9))


def test_planar_colours_stay_colours_where_nobody_says_otherwise() -> None:
    image = ramp(4, 8, 9)
    data = write(image, photometric="rgb", planarconfig="separate", extrasamples=["unassalpha"])
    for axes in (None, "YXC"):
        header, planes = read(data, axes=axes)
        np.testing.assert_array_equal(planes[0], np.moveaxis(image[:3], 0, -1))
        assert "alpha channel dropped" in header.notes
    assert any("send axes=CYX or ZYX, or write them with photometric='minisblack'" in n for n in read(data)[0].notes)
    said = write(image, photometric="rgb", planarconfig="separate", metadata={"axes": "SYX"})
    assert read(said)[0].notes == ("alpha channel dropped",)


def test_pixel_sizes_and_labels_go_with_the_axes_that_are_left() -> None:
    image = ramp(3, 8, 9)
    options: dict[str, Any] = {"photometric": "rgb", "planarconfig": "separate", "resolution": (20_000, 20_000)}
    header, planes = read(write(image, resolutionunit="CENTIMETER", **options), axes="TYX")
    assert (header.stack_axes, header.pixel_size_um, header.channel_names) == ("T", (0.5, 0.5), ())
    np.testing.assert_array_equal(planes[..., 0], image)


def test_more_samples_than_pages_are_read_are_no_stack() -> None:
    data = write(ramp(MAX_PAGES + 1, 1, 1, dtype=np.uint8), photometric="minisblack", planarconfig="separate")
    with pytest.raises(UndecodableImage, match="more than 32768 pages"):
        read(data, axes="ZYX")


GREY, COLOUR = ramp(8, 9, dtype=np.uint8), ramp(8, 9, 3, dtype=np.uint8)


@pytest.mark.parametrize(
    ("data", "axes", "said"),
    [
        (
            npy(ramp(3, 8, 9)),
            "YX",
            "axes YX are 2 letters, the image has 3 axes: 3 x 8 x 9, read as IYX without a word",
        ),
        (npy(GREY), "CYX", "axes CYX are 3 letters, the image has 2 axes: 8 x 9, read as YX without a word"),
        (write(GREY), "ZYX", "axes ZYX are 3 letters, the image has 2 axes: 8 x 9, read as YX"),
        (write(ramp(3, 8, 9), photometric="minisblack", metadata=None), "TZYX", "3 axes: 3 x 8 x 9, read as IYX"),
        (write(ramp(3, 8, 9), photometric="minisblack", metadata=None), "YXC", "3 axes: 3 x 8 x 9, read as IYX"),
        (write(COLOUR, photometric="rgb"), "YX", "3 axes: 8 x 9 x 3, read as YXC"),
        (bytes(imagecodecs.png_encode(COLOUR)), "CYX", "3 axes: 8 x 9 x 3, read as YXC"),
        (bytes(imagecodecs.jpeg8_encode(GREY)), "YXC", "2 axes: 8 x 9, read as YX"),
    ],
)
def test_axes_of_another_image_are_refused(data: bytes, axes: str, said: str) -> None:
    with pytest.raises(AxesMismatch, match=said):
        read(data, axes=axes)


def test_axes_of_a_picture_may_be_said() -> None:
    for data, axes in (
        (bytes(imagecodecs.png_encode(COLOUR)), "YXC"),
        (bytes(imagecodecs.jpeg8_encode(GREY)), "YX"),
        (write(GREY), "YX"),
        (write(COLOUR, photometric="rgb"), "YXC"),
    ):
        assert read(data, axes=axes)[0] == read(data)[0]


@pytest.mark.parametrize("text", ["", "Y", "XC", "YXQ", "YXX", "YYX", "Y X", "YX,C", "TZICYXX", "\u0131yx"])
def test_letters_that_are_no_axes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it as YXC, CYX or TZYX"):
        parse_axes(text)


def test_small_letters_do() -> None:
    assert parse_axes(" czyx ") == "CZYX"
