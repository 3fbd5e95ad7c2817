"""TIFF: what tifffile writes is read back exactly, and hostile directories are refused before they cost anything."""

from __future__ import annotations

import io
import struct
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.formats import FormatError, ImageHeader, ImageTooLarge, ReadLimits, UndecodableImage, open_image

LIMITS = ReadLimits(max_pixels=1 << 26, max_bytes=1 << 28)


def write(array: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def read(data: bytes, limits: ReadLimits = LIMITS) -> tuple[ImageHeader, NDArray[Any]]:
    """Header and all planes (n, y, x, c)."""
    with open_image(io.BytesIO(data), limits) as reader:
        return reader.header, np.stack([reader.read_plane(i) for i in range(reader.header.planes)])


def ramp(*shape: int, dtype: Any = np.uint16) -> NDArray[Any]:
    return (np.arange(np.prod(shape)) * 7 % 251).astype(dtype).reshape(shape)


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


@settings(max_examples=60, deadline=None)
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


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m"])
def test_imagej_hyperstacks_keep_order_and_calibration(unit: str) -> None:
    stack = ramp(2, 3, 2, 8, 9)
    data = write(stack, imagej=True, byteorder=">", resolution=(4.0, 2.0), metadata={"axes": "TZCYX", "unit": unit})
    header, planes = read(data)
    assert data[:2] == b"MM"
    assert (header.stack_axes, header.stack_shape, header.channels) == ("TZ", (2, 3), 2)
    assert header.pixel_size_um == pytest.approx((0.5, 0.25))
    np.testing.assert_array_equal(planes.reshape(2, 3, 8, 9, 2), np.moveaxis(stack, 2, -1))


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


def test_files_named_in_ome_metadata_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret.tif"
    tifffile.imwrite(secret, np.full((8, 9), 65_535, dtype=np.uint16))
    blocks = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{z}</UUID></TiffData>'
        for z, name in enumerate(["upload.tif", str(secret)])
    )
    xml = (
        '<?xml version="1.0"?><OME UUID="urn:uuid:0"><Image><Pixels DimensionOrder="XYZCT" SizeX="9" SizeY="8" '
        f'SizeZ="2" SizeC="1" SizeT="1" Type="uint16"><Channel/>{blocks}</Pixels></Image></OME>'
    )
    monkeypatch.chdir(tmp_path)
    header, planes = read(write(ramp(8, 9), metadata=None, description=xml))
    assert header.planes == 1
    assert any("other files" in note for note in header.notes)
    np.testing.assert_array_equal(planes[0, ..., 0], ramp(8, 9))


@pytest.mark.parametrize(
    "pixels",
    [
        'SizeX="9" SizeY="8" SizeZ="99999999999" SizeC="1" SizeT="1"',
        'SizeX="9" SizeY="8" SizeZ="3" SizeC="1" SizeT="1"',
        'SizeX="9" SizeY="8" SizeZ="-1" SizeC="0" SizeT="x"',
        "",
    ],
)
def test_ome_metadata_that_does_not_fit_the_file_is_ignored_and_noted(pixels: str) -> None:
    xml = f'<OME><Image><Pixels DimensionOrder="XYZCT" {pixels}><TiffData/></Pixels></Image></OME>'
    header, _ = read(write(ramp(8, 9), metadata=None, description=xml))
    assert header.planes == 1
    assert any("read as they stand" in note for note in header.notes)


def test_entities_in_ome_metadata_are_refused() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><OME>&b;</OME>'
    header, _ = read(write(ramp(8, 9), metadata=None, description=bomb))
    assert any("document type" in note for note in header.notes)


def huge_header(height: int, width: int, depth: int) -> bytes:
    """A TIFF of 100 bytes that declares ``depth`` pages' worth of pixels in one."""
    tags = [(256, 3, width), (257, 3, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (32997, 4, depth)]
    table = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + table + b"\0\0\0\0"


def test_a_header_that_declares_gigapixels_is_refused_without_allocating() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ImageTooLarge, match="4294836225 pixels, the limit is 67108864"):
            read(huge_header(65_535, 65_535, 1))
        with pytest.raises(UndecodableImage, match="900 slices"):
            read(huge_header(65_535, 65_535, 900))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_the_byte_limit_counts_channels_and_sample_size() -> None:
    with pytest.raises(ImageTooLarge, match="11520 bytes decoded, the limit is 11519"):
        read(write(ramp(20, 24, 3, dtype=np.float64), photometric="rgb"), ReadLimits(1000, 11_519))


def test_a_circular_chain_of_pages_is_refused() -> None:
    data = bytearray(huge_header(8, 8, 1))
    data[-4:] = struct.pack("<I", 8)
    with pytest.raises(UndecodableImage, match="circle"):
        read(bytes(data))


def test_tag_values_larger_than_the_file_are_refused() -> None:
    table = struct.pack("<HHII", 273, 4, 1 << 28, 8)
    data = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 1) + table + b"\0\0\0\0"
    with pytest.raises(UndecodableImage, match="bytes of numbers"):
        read(data)


def test_a_jpeg_tile_larger_than_declared_is_refused() -> None:
    """libjpeg allocates what the stream declares: 65,500 squared from a few bytes."""
    data = bytearray(write(ramp(64, 64, dtype=np.uint8), compression="jpeg", tile=(64, 64)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    with pytest.raises(UndecodableImage, match="65500 x 65500 pixels, the directory allows 64 x 64"):
        read(bytes(data))


def test_a_deflate_bomb_decodes_no_more_than_the_header_says() -> None:
    data = write(np.zeros((1, 4000), dtype=np.uint8), compression="zlib")
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        width_at = tiff.pages[0].tags[256].valueoffset
    small = bytearray(data)
    small[width_at : width_at + 2] = struct.pack("<H", 4)
    with pytest.raises(UndecodableImage):
        read(bytes(small))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_damage_gives_anything_but_a_format_error(data: st.DataObject) -> None:
    original = write(ramp(2, 20, 30), compression="zlib", tile=(16, 16), ome=True)
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        header, planes = read(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    except FormatError:
        return
    assert planes.shape == (header.planes, *header.size_yx, header.channels)


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
