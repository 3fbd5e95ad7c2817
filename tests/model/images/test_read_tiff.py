"""TIFF: what tifffile writes is read back exactly, and hostile directories are refused before they cost anything."""

from __future__ import annotations

import io
import struct
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.images import UndecodableImage, open_image
from model.images.tiff_ifd import MAX_PAGES
from tests.model.images.tiffs import LIMITS, packed, ramp, read, write


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "packbits", "jpeg2000", "lzma"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
def test_every_lossless_compression_gives_the_same_pixels(
    compression: str | None, tile: tuple[int, int] | None
) -> None:
    image = ramp(45, 70)
    header, planes = read(write(image, compression=compression, tile=tile))
    np.testing.assert_array_equal(planes[0, ..., 0], image)
    assert (header.dtype, header.bits, header.channels, header.planes) == (np.dtype(np.uint16), 16, 1, 1)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("predictor", [False, True])
def test_every_sample_type_keeps_its_values_and_becomes_native(dtype: str, byteorder: str, predictor: bool) -> None:
    image = ramp(9, 11, dtype=dtype)
    data = write(image, compression="zlib", predictor=predictor, byteorder=byteorder)
    header, planes = read(data)
    assert planes.dtype.isnative
    assert header.dtype == planes.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(planes[0, ..., 0], image)


@pytest.mark.parametrize("bits", [10, 12, 20, 24, 31])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("predictor", [False, True])
def test_integers_that_fill_no_whole_words_keep_their_values(bits: int, byteorder: str, predictor: bool) -> None:
    image = np.random.default_rng(bits).integers(0, 1 << bits, (9, 11))
    data = packed(image, bits, byteorder=byteorder, predictor=predictor)
    if bits == 24 and predictor and byteorder == ">":
        with pytest.raises(UndecodableImage, match="24 bits, big-endian and with a predictor, are not"):
            read(data)
        return
    header, planes = read(data)
    assert header.bits == bits
    np.testing.assert_array_equal(planes[0, ..., 0], image)


@pytest.mark.parametrize(("stored", "given_as"), [("i1", "i2"), ("f2", "f4"), ("i8", "f8"), ("u8", "f8")])
def test_types_that_are_not_computed_with_are_widened_and_noted(stored: str, given_as: str) -> None:
    image = ramp(6, 5, dtype=stored)
    header, planes = read(write(image))
    assert header.dtype == np.dtype(given_as)
    assert any("given as" in note for note in header.notes)
    np.testing.assert_array_equal(planes[0, ..., 0], image)


def test_a_64_bit_integer_that_float64_cannot_hold_is_refused() -> None:
    with pytest.raises(UndecodableImage, match=r"9007199254740993, the limit .* 2\*\*53"):
        read(write(np.full((4, 4), 2**53 + 1, dtype=np.int64)))


@settings(max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    samples=st.sampled_from([1, 3]),
    planar=st.booleans(),
    tiled=st.booleans(),
    planes=st.integers(1, 4),
    bigtiff=st.booleans(),
)
def test_any_layout_is_read_back(
    *, height: int, width: int, samples: int, planar: bool, tiled: bool, planes: int, bigtiff: bool
) -> None:
    stack = ramp(planes, height, width, samples, dtype=np.uint8)
    stored = np.moveaxis(stack, -1, 1) if planar and samples == 3 else stack if samples == 3 else stack[..., 0]
    data = write(
        stored,
        photometric="rgb" if samples == 3 else "minisblack",
        planarconfig=("separate" if planar else "contig") if samples == 3 else None,
        tile=(16, 16) if tiled else None,
        bigtiff=bigtiff,
        metadata=None,
    )
    header, planes_read = read(data)
    np.testing.assert_array_equal(planes_read, stack)
    assert header.stack_shape == ((planes,) if planes > 1 else ())


@pytest.mark.parametrize("ome", [True, False])
def test_axes_come_from_ome_and_from_tifffile_metadata(ome: bool) -> None:
    stack = ramp(2, 3, 4, 8, 9)
    header, planes = read(write(stack, ome=ome, photometric="minisblack", metadata={"axes": "TCZYX"}))
    assert (header.stack_axes, header.stack_shape, header.channels) == ("TZ", (2, 4), 3)
    np.testing.assert_array_equal(planes.reshape(2, 4, 8, 9, 3), np.moveaxis(stack, 1, -1))


def test_ome_pixel_size_and_significant_bits_are_read() -> None:
    data = write(
        ramp(8, 9),
        ome=True,
        metadata={
            "axes": "YX",
            "PhysicalSizeX": 250,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 0.5,
            "PhysicalSizeYUnit": "µm",
            "SignificantBits": 12,
        },
    )
    header, _ = read(data)
    assert header.pixel_size_um == pytest.approx((0.5, 0.25))
    assert header.bits == 12


OME_STEPS = {
    "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2500, "PhysicalSizeZUnit": "nm",
    "TimeIncrement": 3000, "TimeIncrementUnit": "ms",
}  # fmt: skip


@pytest.mark.parametrize(
    ("metadata", "resolution", "expected"),
    [
        (OME_STEPS, None, (2.5, 3.0)),
        ({"unit": "micron", "spacing": 2.5, "finterval": 3}, (2.0, 2.0), (2.5, 3.0)),
        ({"unit": "nm", "spacing": 2500, "finterval": 0}, (2e-3, 2e-3), (2.5, None)),
        ({"spacing": 2.5, "finterval": "soon"}, None, (None, None)),
        ({"unit": "micron", "spacing": -1, "finterval": 3, "tunit": "min"}, None, (None, None)),
    ],
)
def test_steps_of_stacks_are_read(
    metadata: dict[str, Any], resolution: tuple[float, float] | None, expected: tuple[float | None, float | None]
) -> None:
    ome = metadata is OME_STEPS
    options = {"ome": True} if ome else {"imagej": True, "resolution": resolution}
    stack = ramp(2, 3, 8, 9) if ome else ramp(2, 3, 1, 8, 9)
    axes = "TZYX" if ome else "TZCYX"
    header, _ = read(write(stack, photometric="minisblack", metadata={"axes": axes, **metadata}, **options))
    assert header.stack_axes == "TZ"
    assert (header.spacing_um, header.interval_s) == pytest.approx(expected)


def test_further_images_of_an_ome_tiff_are_left_out_with_a_note() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=True) as writer:
        for position in range(3):
            writer.write(ramp(8, 9) + position, photometric="minisblack")
    header, planes = read(buffer.getvalue())
    np.testing.assert_array_equal(planes[0, ..., 0], ramp(8, 9))
    assert header.notes == (
        "2 further images of the OME-XML left out: a file is read as its first image, or position; save the others as "
        "files of their own",
    )


@pytest.mark.parametrize("size", [1e-300, 1e-12, 1e9, 1e300])
def test_a_pixel_size_that_nothing_can_have_is_left_out_with_a_note(size: float) -> None:
    data = write(ramp(8, 9), ome=True, metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": size})
    header, _ = read(data)
    assert header.pixel_size_um is None
    assert header.notes == (f"pixel size of {size:g} x 0.5 um left out: none is below 1e-06 or above 1e+06 um",)


@pytest.mark.parametrize(
    ("said", "size_um"),
    [
        ("|AppMag = 20|MPP = 0.4990|Left = 25.6", (0.499, 0.499)),
        ("|AppMag = 20", (0.25, 0.125)),
        ("|MPP = |AppMag", (0.25, 0.125)),
        ("|MPP = nan", (0.25, 0.125)),
        ("|MPP = 1e9", None),
    ],
)
def test_slides_of_aperio_say_their_pixel_size_in_the_description(
    said: str, size_um: tuple[float, float] | None
) -> None:
    description = f"Aperio Image Library v11.2.1\r\n46000x32914 [0,100 46000x32893] (240x240) JPEG/RGB Q=70{said}"
    data = write(ramp(64, 48), description=description, metadata=None, resolution=(8e4, 4e4), resolutionunit=3)
    header, _ = read(data)
    assert header.pixel_size_um == (pytest.approx(size_um) if size_um else None)


def test_a_calibration_of_imagej_that_nothing_can_have_is_left_out_with_a_note() -> None:
    data = write(ramp(8, 9), imagej=True, byteorder=">", resolution=(1e9, 2.0), metadata={"axes": "YX", "unit": "nm"})
    header, _ = read(data)
    assert header.pixel_size_um is None
    assert any("left out" in note for note in header.notes)


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m"])
def test_imagej_hyperstacks_keep_order_and_calibration(unit: str) -> None:
    stack = ramp(2, 3, 2, 8, 9)
    data = write(stack, imagej=True, byteorder=">", resolution=(4.0, 2.0), metadata={"axes": "TZCYX", "unit": unit})
    header, planes = read(data)
    assert data[:2] == b"MM"
    assert (header.stack_axes, header.stack_shape, header.channels) == ("TZ", (2, 3), 2)
    assert header.pixel_size_um == pytest.approx((0.5, 0.25))
    np.testing.assert_array_equal(planes.reshape(2, 3, 8, 9, 2), np.moveaxis(stack, 2, -1))


@pytest.mark.parametrize("unit", ["\u00c5", "\\u00c5", "\\u00C5", "\u212b", "angstrom"])
def test_imagej_may_measure_in_angstroms(unit: str) -> None:
    description = f"ImageJ=1.54f\nimages=1\nunit={unit}\n".encode()
    header, _ = read(write(ramp(8, 9), metadata=None, resolution=(0.5, 0.25), description=description))
    assert header.pixel_size_um == pytest.approx((4e-4, 2e-4))


OME_CHANNELS = {"axes": "CYX", "Channel": {"Name": ["DAPI", " GFP ", "x" * 300]}}
IMAGEJ_LABELS = {"axes": "ZCYX", "Labels": ["nuclei\n40x", "actin\n40x"] * 3}


@pytest.mark.parametrize(
    ("array", "options", "names"),
    [
        (ramp(3, 8, 9), {"ome": True, "metadata": OME_CHANNELS}, ("DAPI", "GFP", "x" * 100)),
        (ramp(2, 8, 9), {"ome": True, "metadata": {"axes": "CYX", "Channel": {"Fluor": ["", "Cy5"]}}}, ("", "Cy5")),
        (ramp(3, 8, 9), {"ome": True, "metadata": {"axes": "CYX"}}, ()),
        (ramp(8, 9, 3), {"ome": True, "photometric": "rgb", "metadata": {"Channel": {"Name": ["Brightfield"]}}}, ()),
        (ramp(3, 2, 8, 9), {"imagej": True, "metadata": IMAGEJ_LABELS}, ("nuclei", "actin")),
        (ramp(3, 2, 8, 9), {"imagej": True, "metadata": {"axes": "ZCYX", "Labels": list("abcdef")}}, ()),  # of planes
        (ramp(2, 8, 9), {"imagej": True, "metadata": {"axes": "ZYX", "Labels": ["a", "a"]}}, ()),
        (ramp(2, 8, 9), {"imagej": True, "metadata": {"axes": "CYX", "Labels": ["DAPI"]}}, ()),  # cut off
    ],
)
def test_channels_have_the_names_that_the_file_gives(
    array: NDArray[Any], options: dict[str, Any], names: tuple[str, ...]
) -> None:
    options.setdefault("photometric", "minisblack")
    assert read(write(array, **options))[0].channel_names == names


def test_damaged_labels_of_imagej_do_not_hide_the_picture() -> None:
    data = write(ramp(2, 8, 9), imagej=True, metadata={"axes": "CYX", "Labels": ["DAPI", "GFP"]})
    assert read(data)[0].channel_names == ("DAPI", "GFP")
    header, planes = read(data.replace(b"JIJI", b"JUNK"))
    assert header.channel_names == ()
    np.testing.assert_array_equal(planes[0], np.moveaxis(ramp(2, 8, 9), 0, -1))


def test_channels_of_ome_that_are_not_those_of_the_file_give_no_names() -> None:
    data = write(ramp(2, 8, 9), ome=True, metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}})
    assert read(data)[0].channel_names == ("DAPI", "GFP")
    assert read(data.replace(b'<Channel ID="Channel:0:1"', b'<Kannall ID="Channel:0:1"'))[0].channel_names == ()
    assert read(data.replace(b'SamplesPerPixel="1"', b'SamplesPerPixel="9"'))[0].channel_names == ()


def test_an_imagej_stack_behind_one_directory_is_read_to_its_end() -> None:
    """ImageJ writes stacks beyond 4 GB with a single directory."""
    stack = ramp(5, 8, 9)
    description = "ImageJ=1.53t\nimages=5\nslices=5\nloop=false\n"
    first_page = write(stack[0], metadata=None, description=description, byteorder=">")
    with tifffile.TiffFile(io.BytesIO(first_page)) as tiff:
        assert tiff.pages[0].dataoffsets[0] + stack[0].nbytes == len(first_page)
    header, planes = read(first_page + stack[1:].astype(">u2").tobytes())
    assert (header.stack_axes, header.planes) == ("Z", 5)
    np.testing.assert_array_equal(planes[..., 0], stack)
    with pytest.raises(UndecodableImage, match="page 4"):
        read(first_page + stack[1:4].astype(">u2").tobytes())


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((72, 72), "INCH", None),
        ((96, 96), "INCH", None),
        ((300, 300), "INCH", None),
        ((40_000, 20_000), "CENTIMETER", (0.5, 0.25)),
        ((50_800, 50_800), "INCH", (0.5, 0.5)),
        ((2, 2), "NONE", None),
    ],
)
def test_resolution_tags_are_a_pixel_size_only_where_a_microscope_could_have_it(
    resolution: tuple[int, int], unit: str, expected: tuple[float, float] | None
) -> None:
    header, _ = read(write(ramp(8, 9), resolution=resolution, resolutionunit=unit, metadata=None))
    assert header.pixel_size_um == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("extra", ["assocalpha", "unassalpha"])
def test_alpha_is_dropped_and_noted(extra: str) -> None:
    image = ramp(8, 9, 4, dtype=np.uint8)
    header, planes = read(write(image, photometric="rgb", extrasamples=[extra]))
    assert header.channels == 3
    assert "alpha channel dropped" in header.notes
    np.testing.assert_array_equal(planes[0], image[..., :3])


def test_an_extra_sample_that_is_no_alpha_is_kept() -> None:
    image = ramp(8, 9, 4, dtype=np.uint8)
    header, planes = read(write(image, photometric="rgb", extrasamples=["unspecified"]))
    assert header.channels == 4
    np.testing.assert_array_equal(planes[0], image)


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_planar_channels_that_are_declared_colours_without_alpha_are_all_kept(channels: int) -> None:
    """As LSM has them."""
    image = ramp(channels, 8, 9)
    data = bytearray(write(image, photometric="minisblack", planarconfig="separate", metadata=None))
    struct.pack_into("<HHIH", data, data.index(struct.pack("<HHIH", 262, 3, 1, 1)), 262, 3, 1, 2)
    struct.pack_into("<H", data, data.index(struct.pack("<HHI", 338, 3, channels - 1)), 65_000)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert (tiff.pages.first.photometric, tiff.pages.first.extrasamples) == (2, ())
    header, planes = read(bytes(data))
    assert (header.channels, header.notes) == (channels, ())
    np.testing.assert_array_equal(planes[0], np.moveaxis(image, 0, -1))


def test_white_is_zero_is_inverted_and_noted() -> None:
    image = ramp(8, 9, dtype=np.uint8)
    header, planes = read(write(image, photometric="miniswhite"))
    assert "white-is-zero inverted" in header.notes
    np.testing.assert_array_equal(planes[0, ..., 0], 255 - image)


def test_one_bit_becomes_0_and_255() -> None:
    image = ramp(8, 19, dtype=np.uint8) % 2 == 1
    header, planes = read(write(image, photometric="minisblack"))
    assert (header.dtype, header.bits) == (np.dtype(np.uint8), 8)
    np.testing.assert_array_equal(planes[0, ..., 0], image * 255)


def test_a_palette_is_expanded_but_the_display_table_of_imagej_is_not() -> None:
    image = ramp(8, 9, dtype=np.uint8)
    colours = np.stack([np.arange(256), np.arange(256)[::-1], np.zeros(256)]).astype(np.uint16)
    header, planes = read(write(image, photometric="palette", colormap=colours * 257))
    assert (header.channels, header.notes) == (3, ("palette expanded to RGB",))
    np.testing.assert_array_equal(planes[0], colours.T[image])
    header, planes = read(write(image, imagej=True, colormap=colours * 257))
    assert (header.channels, header.notes) == (1, ("display lookup table ignored",))
    np.testing.assert_array_equal(planes[0, ..., 0], image)


def test_pages_of_other_size_are_left_out_and_noted() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for size in (8, 8, 5):
            writer.write(ramp(size, size), metadata=None)
    header, _ = read(file.getvalue())
    assert header.planes == 2
    assert "1 further pages of other size or type left out" in header.notes


def test_a_pyramid_gives_its_full_resolution() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(ramp(64, 64), subifds=1, tile=(16, 16), metadata=None)
        writer.write(ramp(32, 32), subfiletype=1, tile=(16, 16), metadata=None)
    header, planes = read(file.getvalue())
    np.testing.assert_array_equal(planes[0, ..., 0], ramp(64, 64))
    assert header.planes == 1


@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("mask_too", [False, True])
def test_a_thumbnail_before_the_page_that_it_shows_is_left_out(compression: str | None, mask_too: bool) -> None:
    pixels = ramp(50, 37)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(np.ascontiguousarray(pixels[::4, ::4]).astype(np.uint8), subfiletype=1, metadata=None)
        if mask_too:
            writer.write(pixels > 0, subfiletype=4, metadata=None)
        writer.write(pixels, compression=compression, metadata=None, extratags=[(274, 3, 1, 3, True)])
    with open_image(buffer, LIMITS) as reader:
        assert (reader.header.size_yx, reader.header.dtype, reader.header.planes) == ((50, 37), pixels.dtype, 1)
        assert any("further pages of other size or type left out" in note for note in reader.header.notes)
        assert any("Orientation" in note for note in reader.header.notes)
        np.testing.assert_array_equal(reader.read_plane(0)[..., 0], pixels)


def test_planes_are_read_from_many_threads_at_once() -> None:
    stack = ramp(12, 40, 50)
    with tempfile.SpooledTemporaryFile(max_size=100) as file:
        file.write(write(stack, compression="zlib", metadata=None))
        with open_image(file, LIMITS) as reader, ThreadPoolExecutor(8) as pool:
            planes = list(pool.map(reader.read_plane, list(range(12)) * 5))
    np.testing.assert_array_equal(np.stack(planes)[..., 0], np.concatenate([stack] * 5))


def test_a_plane_that_does_not_exist_is_an_index_error() -> None:
    with open_image(io.BytesIO(write(ramp(8, 9))), LIMITS) as reader, pytest.raises(IndexError, match="plane 1 of 1"):
        reader.read_plane(1)


def metamorph(stack: NDArray[Any]) -> bytes:
    """STK: there is one page; the count of tag 33629, a RATIONAL, is the number of planes, pixels follow the page's."""
    count = 6 * len(stack)  # six numbers for each plane, where the type says two
    tags = [(33628, "I", 2, (0, 0), True), (33629, "I", count, (1,) * count, True)]
    data = bytearray(write(stack[0], metadata=None, extratags=tags))
    entry = data.index(struct.pack("<HHI", 33629, 4, count))
    struct.pack_into("<HHI", data, entry, 33629, 5, len(stack))
    return bytes(data) + stack[1:].tobytes()


def test_a_metamorph_stack_behind_one_directory_is_read_to_its_end() -> None:
    stack = ramp(3, 8, 9)
    data = metamorph(stack)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert tiff.is_stk
        np.testing.assert_array_equal(tiff.asarray(), stack)
    header, planes = read(data)
    assert (header.stack_axes, header.planes) == ("I", 3)
    np.testing.assert_array_equal(planes[..., 0], stack)


@pytest.mark.parametrize(
    "description",
    [
        f"ImageJ=1.54f\nimages={MAX_PAGES + 1}\nslices={MAX_PAGES + 1}\n",
        f"ImageJ=1.54f\nimages={1 << 40}\n",
        f'{{"shape": [{MAX_PAGES + 1}, 2, 3]}}',
        f'{{"shape": {[2] * 16}}}'.replace("2]", "2, 2, 3]"),
        None,
    ],
)
def test_a_stack_behind_one_directory_is_refused_beyond_the_limit_as_one_of_directories(
    description: str | None,
) -> None:
    stack = np.zeros((MAX_PAGES + 1, 2, 3), dtype=np.uint8)
    data = metamorph(stack) if description is None else write(stack[0], metadata=None, description=description)
    with pytest.raises(UndecodableImage, match="the TIFF has more than 32768 pages, which is the limit; split the"):
        read(data + stack[1:].tobytes())


def test_an_array_of_more_planes_than_the_limit_is_noted_where_the_file_does_not_hold_them() -> None:
    header, _ = read(write(ramp(2, 3), metadata=None, compression="zlib", description='{"shape": [40000, 2, 3]}'))
    assert "the metadata describes more than 32768 planes, the file holds 1: read as they stand" in header.notes


def test_max_sample_value_tells_the_bits_of_the_camera() -> None:
    header, _ = read(write(ramp(8, 9), metadata=None, extratags=[(281, "H", 1, 4095, True)]))
    assert header.bits == 12
    header, _ = read(write(ramp(8, 9), metadata=None, extratags=[(281, "H", 1, 3000, True)]))
    assert header.bits == 16


@pytest.mark.parametrize("description", ["ImageJ=1\nimages=x\n", '{"shape": 5}', "{", '{"shape": [3, 8, 8]}'])
def test_descriptions_that_do_not_fit_leave_the_pages_as_they_stand(description: str) -> None:
    header, planes = read(write(ramp(8, 9), metadata=None, description=description))
    assert header.planes == 1
    np.testing.assert_array_equal(planes[0, ..., 0], ramp(8, 9))


def test_an_imagej_description_of_more_planes_than_pages_is_noted() -> None:
    data = write(ramp(8, 9), metadata=None, compression="zlib", description="ImageJ=1\nimages=4\nslices=4\n")
    header, _ = read(data)
    assert header.planes == 1
    assert "the metadata describes 4 planes, the file holds 1: read as they stand" in header.notes
