"""PNG, JPEG and .npy: exact values, named changes, and no half images."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from model.images import (
    ImageHeader,
    ImageTooLarge,
    ReadLimits,
    UndecodableImage,
    UnsupportedImageFormat,
    jpeg_markers,
    open_image,
)
from model.images.jpeg_markers import MAX_FILL_BYTES, MAX_SCANS, MAX_SEGMENTS
from model.images.png_bands import Inflated, RowLayout, raw_bands
from model.images.png_chunks import IHDR, PHYS, SIGNATURE, chunk

LIMITS = ReadLimits(max_pixels=1 << 24, max_bytes=1 << 26)
RAMP = (np.arange(20 * 30) * 7 % 256).astype(np.uint8).reshape(20, 30)


def read(data: bytes, limits: ReadLimits = LIMITS) -> tuple[ImageHeader, NDArray[Any]]:
    """Header and all planes (n, y, x, c)."""
    with open_image(io.BytesIO(data), limits) as reader:
        return reader.header, np.stack([reader.read_plane(i) for i in range(reader.header.planes)])


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


class Counting(io.BytesIO):
    """A file that counts the bytes that are read of it."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(7, 9), (9, 7, 3), (1, 1), (1, 300)])
def test_png_keeps_every_value(dtype: type, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    header, planes = read(bytes(imagecodecs.png_encode(image)))
    assert (header.format, header.dtype, header.bits) == ("png", np.dtype(dtype), np.dtype(dtype).itemsize * 8)
    np.testing.assert_array_equal(planes[0], image.reshape(*shape[:2], -1))


@pytest.mark.parametrize(
    ("mode", "channels", "note"),
    [
        ("1", 1, "1 bits per pixel scaled to 0 to 255"),
        ("LA", 1, "alpha channel dropped"),
        ("RGBA", 3, "alpha channel dropped"),
        ("P", 1, "palette of greys expanded to grey"),
    ],
)
def test_png_notes_what_it_changes(mode: str, channels: int, note: str) -> None:
    header, planes = read(save(Image.fromarray(RAMP).convert(mode), "PNG"))
    assert header.channels == planes.shape[-1] == channels
    assert note in header.notes
    expected = np.asarray(Image.fromarray(RAMP).convert(mode).convert("L"))
    np.testing.assert_array_equal(planes[0, ..., 0], expected)


def with_resolution(y: int, x: int, unit: int, *, damaged: bool = False) -> bytes:
    resolution = bytearray(chunk(b"pHYs", PHYS.pack(x, y, unit)))
    resolution[-1] ^= damaged
    data = save(Image.fromarray(RAMP), "PNG")
    behind = 33  # of signature and header
    return data[:behind] + resolution + data[behind:]


@pytest.mark.parametrize(
    ("y", "x", "unit", "expected"),
    [
        (4_000_000, 2_000_000, 1, (0.25, 0.5)),
        (2835, 2835, 1, None),  # 72 dots per inch, as nearly every program writes
        (23622, 23622, 1, None),  # 600
        (2_000_000, 2835, 1, None),
        (2_000_000, 0, 1, None),
        (1, 1, 0, None),  # the ratio of the sides alone
        (2_000_000, 2_000_000, 2, None),
    ],
)
def test_a_png_has_a_pixel_size_only_where_a_microscope_could_have_it(
    y: int, x: int, unit: int, expected: tuple[float, float] | None
) -> None:
    header, _ = read(with_resolution(y, x, unit))
    assert header.pixel_size_um == expected


def test_a_damaged_resolution_of_a_png_is_none() -> None:
    header, planes = read(with_resolution(2_000_000, 2_000_000, 1, damaged=True))
    assert header.pixel_size_um is None
    np.testing.assert_array_equal(planes[0, ..., 0], RAMP)


def test_a_png_palette_of_colours_becomes_rgb() -> None:
    image = Image.fromarray(RAMP).convert("P")
    image.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
    header, planes = read(save(image, "PNG", transparency=3))
    assert header.channels == 3
    assert set(header.notes) == {"palette expanded to RGB", "transparency dropped"}
    np.testing.assert_array_equal(planes[0, ..., 1], 255 - RAMP)


def test_a_png_that_declares_gigapixels_is_refused_from_its_header() -> None:
    data = SIGNATURE + chunk(b"IHDR", IHDR.pack(60_000, 60_000, 8, 0, 0, 0, 0))
    with pytest.raises(ImageTooLarge, match="3600000000 pixels, the limit is 16777216"):
        read(data)


@settings(max_examples=80)
@given(data=st.data())
def test_a_cut_png_is_always_refused(data: st.DataObject) -> None:
    whole = save(Image.fromarray(RAMP), "PNG")
    with pytest.raises((UndecodableImage, UnsupportedImageFormat)):
        read(whole[: data.draw(st.integers(0, len(whole) - 1))])


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_jpeg_is_what_pillow_decodes(mode: str, channels: int) -> None:
    data = save(Image.fromarray(RAMP).convert(mode), "JPEG", quality=90)
    header, planes = read(data)
    assert (header.format, header.channels, header.notes) == ("jpeg", channels, ())
    np.testing.assert_array_equal(planes[0], np.asarray(Image.open(io.BytesIO(data))).reshape(20, 30, channels))


def test_exif_orientation_is_noted_and_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    header, planes = read(save(Image.fromarray(RAMP), "JPEG", exif=exif))
    assert planes.shape == (1, 20, 30, 1)
    assert header.notes == ("EXIF orientation 6 is not applied: rows and columns as stored",)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_exif_data_do_not_hide_the_picture() -> None:
    header, planes = read(save(Image.fromarray(RAMP), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0"))
    assert header.notes == ()
    assert planes.shape == (1, 20, 30, 1)


def with_scans(jpeg: bytes, more: int, between: bytes = b"") -> bytes:
    """Repeat the last scan of a progressive JPEG, which refines the picture by nothing."""
    return jpeg[:-2] + (between + jpeg[jpeg.rindex(b"\xff\xda") : -2]) * more + jpeg[-2:]


def test_a_jpeg_of_more_scans_than_encoders_write_is_refused() -> None:
    """Each is a pass over all pixels, for twenty bytes of the file."""
    jpeg = save(Image.fromarray(RAMP), "JPEG", progressive=True)
    scans = jpeg.count(b"\xff\xda")
    header, _ = read(with_scans(jpeg, 3))
    assert header.size_yx == (20, 30)
    with pytest.raises(UndecodableImage, match=f"more than {MAX_SCANS} scans, which is the limit"):
        read(with_scans(jpeg, MAX_SCANS + 1 - scans))


@pytest.mark.parametrize(
    "between",
    [
        b"\xff\xfe\x00\x02\x00",  # a comment and a byte that belongs to nothing
        b"\xff\xfe\x00\x02rubbish\xff\x00\xff\xd3\xff\xff\xff",
        b"\xff\xdc\x00\x04\x00\x14\xd9",
        b"\xff\x01\xd9",
    ],
)
def test_scans_behind_rubbish_count(between: bytes) -> None:
    """libjpeg passes over it, warns, and reads on."""
    jpeg = save(Image.fromarray(RAMP), "JPEG", progressive=True)
    rows, _ = read(with_scans(jpeg, 3, between))
    assert rows.size_yx == (20, 30)
    with pytest.raises(UndecodableImage, match=f"more than {MAX_SCANS} scans, which is the limit"):
        read(with_scans(jpeg, MAX_SCANS, between))


@pytest.mark.parametrize(
    ("inserted", "message"),
    [
        (
            b"\xff\xfe\x00\x02" + b"\0" * (MAX_FILL_BYTES + 1),
            f"has {MAX_FILL_BYTES + 1} bytes between segments, the limit is",
        ),
        (b"\xff" * (MAX_FILL_BYTES + 1), f"has {MAX_FILL_BYTES + 1} bytes between segments, the limit is"),
        (
            (b"\xff\xfe\xff\xff" + b"x" * 65_533) * 257,
            r"has \d+ bytes in front of the image data, the limit is 16777216",
        ),
        (b"\xff\xfe\x00\x01", "the JPEG segment at byte 2 says it has 1 bytes, 2 is the least"),
        (b"\xff\xf7\x00\x02", "JPEG-LS, which is not supported"),
        (b"\xff\x02\x00\x02", "marker 02 at byte 2, which is not supported"),
        (b"\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00", "two frame headers"),
        (b"\xff\xd9", "no frame header"),
    ],
)
def test_what_no_encoder_writes_in_front_of_a_jpeg_is_refused(inserted: bytes, message: str) -> None:
    """Codecs look at each byte between segments, keep all metadata, and differ on what the rest means."""
    jpeg = save(Image.fromarray(RAMP), "JPEG")
    with pytest.raises(UndecodableImage, match=message):
        read(jpeg[:2] + inserted + jpeg[2:])


def test_padding_as_cameras_write_it_is_read() -> None:
    jpeg = save(Image.fromarray(RAMP), "JPEG")
    tables = jpeg.index(b"\xff\xdb")
    _, planes = read(jpeg[:tables] + b"\xff" * 9 + jpeg[tables:])
    np.testing.assert_array_equal(planes, read(jpeg)[1])


def test_a_jpeg_without_image_data_is_refused_before_a_codec_looks_for_them() -> None:
    jpeg = save(Image.fromarray(RAMP), "JPEG")
    with pytest.raises(UndecodableImage, match="no image data"):
        read(jpeg[: jpeg.index(b"\xff\xda")] + bytes(100))


def test_a_jpeg_of_endless_segments_is_refused() -> None:
    jpeg = save(Image.fromarray(RAMP), "JPEG")
    comments = b"\xff\xfe\x00\x02" * (MAX_SEGMENTS + 1)
    with pytest.raises(UndecodableImage, match=f"more than {MAX_SEGMENTS} segments"):
        read(jpeg[:2] + comments + jpeg[2:])


@settings(max_examples=50)
@given(data=st.data())
def test_markers_are_found_wherever_the_pieces_of_a_jpeg_end(data: st.DataObject) -> None:
    jpeg = save(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)), "JPEG", progressive=True
    )
    after = b"\xff\xda" * 100  # what follows the end of the image is not looked at
    filled = jpeg.replace(b"\xff\xda", b"\xff" * data.draw(st.integers(1, 9)) + b"\xda")
    piece_bytes = data.draw(st.integers(1, 300))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg_markers, "_PIECE_BYTES", piece_bytes)
        assert jpeg_markers.jpeg_frame(io.BytesIO(filled + after)).size_yx == (40, 50)
        with pytest.raises(ValueError, match="scans"):
            jpeg_markers.jpeg_frame(io.BytesIO(with_scans(filled, MAX_SCANS) + after))


def test_a_png_whose_stream_ends_early_is_given_up_at_once() -> None:
    """Else zlib would copy all that follows with each piece, in a time that grows with its square."""
    rows = RowLayout(width=4000, height=4000, depth=8, samples=1)
    pieces = iter([zlib.compress(bytes(1000)), *[bytes(1000)] * 100])
    with pytest.raises(EOFError, match="bytes early"):
        list(raw_bands(rows, Inflated(pieces)))
    assert sum(1 for _ in pieces) > 95


def test_cmyk_jpeg_is_refused_by_name() -> None:
    with pytest.raises(UndecodableImage, match="CMYK"):
        read(save(Image.fromarray(RAMP).convert("CMYK"), "JPEG"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            imagecodecs.jpeg8_encode(np.full((8, 9), 4000, dtype=np.uint16), bitspersample=12),
            "samples of 12 bits, 8 are",
        ),
        (imagecodecs.ljpeg_encode(np.full((8, 9), 60_000, dtype=np.uint16)), "samples of 16 bits, 8 are supported"),
        (imagecodecs.jpegls_encode(RAMP), "the picture is JPEG-LS, which is not supported"),
    ],
)
def test_kinds_of_jpeg_that_are_sound_but_not_read_are_named(data: bytes, said: str) -> None:
    with pytest.raises(UndecodableImage, match=f"{said}.*; write it as PNG or TIFF$"):
        read(bytes(data))


@settings(max_examples=60)
@given(data=st.data())
def test_a_cut_jpeg_is_always_refused(data: st.DataObject) -> None:
    whole = save(Image.fromarray(RAMP), "JPEG", quality=90)
    with pytest.raises((UndecodableImage, UnsupportedImageFormat)):
        read(whole[: data.draw(st.integers(0, len(whole) - 3))])


@settings(max_examples=80)
@given(
    image=hnp.arrays(
        dtype=st.sampled_from(["u1", "<u2", ">u2", "<i2", "<u4", ">i4", "<f4", ">f8"]),
        shape=st.one_of(
            st.tuples(st.integers(1, 9), st.integers(1, 9)),
            st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)),
            st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(5, 9)),
        ),
        elements=st.integers(0, 100),
    ),
    fortran=st.booleans(),
)
def test_npy_keeps_every_value(image: NDArray[Any], fortran: bool) -> None:
    header, planes = read(npy(np.asfortranarray(image) if fortran else image))
    assert header.dtype == image.dtype.newbyteorder("=")
    assert planes.dtype.isnative
    channels_last = image.ndim == 3 and image.shape[-1] <= 4
    expected = image[np.newaxis] if image.ndim == 2 or channels_last else image
    np.testing.assert_array_equal(planes, expected if channels_last else expected[..., np.newaxis])


def test_a_column_major_stack_is_read_once_for_all_of_its_planes() -> None:
    stack = np.asfortranarray(np.random.default_rng(0).integers(0, 256, (30, 20, 30), np.uint8))
    source = Counting(npy(stack))
    with open_image(source, LIMITS) as reader:
        planes = [reader.read_plane(index)[..., 0] for index in range(30)]
    np.testing.assert_array_equal(planes, stack)
    assert source.taken < 2 * stack.size


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(np.zeros((4, 4)))[:-1], "127 were sent"),
        (npy(np.zeros((4, 4))) + b"x", "129 were sent"),
        (npy(np.zeros(4)), "1-dimensional"),
        (npy(np.array([[object()]], dtype=object)), "object"),
        (npy(np.zeros((4, 4), dtype=complex)), "complex128"),
        (npy(np.zeros((0, 4))), "empty"),
        (b"\x93NUMPY\x03\x00" + b"x" * 20, "version 3.0, 1.0 and 2.0 are read; save the pixels alone"),
        (b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000, "header cannot be decoded"),
        (b"\x93NUMPY\x01\x00\x11\x27" + b"(" * 10_001, "header takes 10001 bytes, the limit is 10000; save"),
        (b"\x93NUMPY\x02\x00\x11\x27\x00\x00" + b"(" * 10_001, "header takes 10001 bytes, the limit is 10000"),
        (b"\x93NUMPY\x02\x00\x11", "header cannot be decoded"),
    ],
)
def test_npy_that_is_no_image_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UndecodableImage, match=message):
        read(data)


def test_a_huge_header_of_an_npy_is_refused_before_it_is_read() -> None:
    source = Counting(b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 20) + b" " * (1 << 20))
    with pytest.raises(UndecodableImage, match="header takes 1048576 bytes"):
        open_image(source, LIMITS)
    assert source.taken < 100


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "empty"),
        (b"GIF89a", "GIF"),
        (b"ZISRAWFILE", "Zeiss CZI file; .*unet-service segment, which reads it"),
        (b"PK\x03\x04zip", "zip"),
        (b"hello", "hello"),
    ],
)
def test_other_files_are_named_in_the_refusal(data: bytes, named: str) -> None:
    with pytest.raises(UnsupportedImageFormat, match=named):
        read(data)
