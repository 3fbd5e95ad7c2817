"""Windows bitmaps: exact values, named changes, and no half images."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.images import FormatError, ImageHeader, ImageTooLarge, ReadLimits, UndecodableImage, open_image, read_bmp
from tests.memory import peak_kib, reset_peak

LIMITS = ReadLimits(max_pixels=1 << 24, max_bytes=1 << 26)
RAMP = (np.arange(20 * 30) * 7 % 256).astype(np.uint8).reshape(20, 30)
COLOURS = np.dstack([RAMP, RAMP[::-1], 255 - RAMP])
RAW, RLE8, BITFIELDS = 0, 1, 3
GREYS = bytes(value for grey in range(256) for value in (grey, grey, grey, 0))


def read(data: bytes, limits: ReadLimits = LIMITS) -> tuple[ImageHeader, NDArray[Any]]:
    """Header and the plane (y, x, c)."""
    with open_image(io.BytesIO(data), limits) as reader:
        return reader.header, reader.read_plane(0)


def saved(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "BMP", **options)
    return file.getvalue()


def bitmap(
    rows: bytes, size_yx: tuple[int, int], bits: int, *, compression: int = RAW, palette: bytes = b"", more: bytes = b""
) -> bytes:
    """A file as Windows writes it (BITMAPINFOHEADER and later ones), rows from the bottom and whole words each."""
    at, (height, width) = 14 + 40 + len(more) + len(palette), size_yx
    sizes = (40 + len(more), width, height, 1, bits, compression, len(rows), 0, 0, len(palette) // 4, 0)
    info = struct.pack("<IiiHHIIiiII", *sizes)
    return struct.pack("<2sIHHI", b"BM", at + len(rows), 0, 0, at) + info + more + palette + rows


def rows_of(samples: NDArray[Any]) -> bytes:
    """Rows (y, bytes) from the bottom, padded to whole words."""
    return np.pad(samples, ((0, 0), (0, -samples.shape[1] % 4)))[::-1].tobytes()


@pytest.mark.parametrize(
    ("image", "expected", "notes"),
    [
        (Image.fromarray(RAMP), RAMP[..., None], ()),
        (Image.fromarray(COLOURS), COLOURS, ()),
        (Image.fromarray(RAMP > 99), (RAMP > 99)[..., None] * 255, ("one bit per pixel given as 0 and 255",)),
        (Image.fromarray(np.dstack([COLOURS, RAMP])), COLOURS, ()),  # whose fourth byte is reserved
    ],
    ids=["grey", "colours", "bits", "four bytes"],
)
def test_samples_are_those_that_were_written(
    image: Image.Image, expected: NDArray[Any], notes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_bmp, "_BAND_PIXELS", 100)  # some rows at a time, as of a large picture
    header, plane = read(saved(image))
    assert (header.format, header.dtype, header.bits, header.planes) == ("bmp", np.dtype(np.uint8), 8, 1)
    assert (header.channels, header.notes) == (expected.shape[-1], notes)
    np.testing.assert_array_equal(plane, expected)


@pytest.mark.parametrize("bits", [4, 8])
def test_palettes_become_what_they_stand_for(bits: int) -> None:
    used = RAMP & ((1 << bits) - 1)
    rows = used if bits == 8 else used[:, ::2] << 4 | used[:, 1::2]
    palette = np.array([(index, 255 - index, 7, 0) for index in range(1 << bits)], dtype=np.uint8)
    header, plane = read(bitmap(rows_of(rows), (20, 30), bits, palette=palette.tobytes()))
    assert header.notes == ("palette expanded to RGB",)
    np.testing.assert_array_equal(plane, palette[used][..., 2::-1])


def test_a_palette_of_few_greys_becomes_grey() -> None:
    header, plane = read(bitmap(rows_of(RAMP % 3), (20, 30), 8, palette=GREYS[40:52]))
    assert (header.channels, header.notes) == (1, ("palette of greys expanded to grey",))
    np.testing.assert_array_equal(plane[..., 0], 10 + RAMP % 3)


def test_rows_may_stand_from_the_top() -> None:
    from_bottom = bitmap(rows_of(RAMP), (20, 30), 8, palette=GREYS)
    from_top = bitmap(rows_of(RAMP[::-1]), (-20, 30), 8, palette=GREYS)
    np.testing.assert_array_equal(read(from_top)[1], read(from_bottom)[1])


def test_colours_of_16_bits_are_scaled() -> None:
    packed = np.full((2, 2), 0b0_11111_00000_10000, dtype="<u2")
    header, plane = read(bitmap(packed.tobytes(), (2, 2), 16))
    assert header.notes == ("5 or 6 bits per colour scaled to 0 to 255",)
    assert plane[0, 0].tolist() == [255, 0, 16 * 255 // 31]


def test_declared_alpha_is_dropped() -> None:
    masks = struct.pack("<4I", 0xFF, 0xFF00, 0xFF0000, 0xFF000000).ljust(108 - 40, b"\0")
    samples = np.dstack([COLOURS, RAMP])
    rows = rows_of(samples.reshape(20, 30 * 4))
    header, plane = read(bitmap(rows, (20, 30), 32, compression=BITFIELDS, more=masks))
    assert (header.channels, header.notes) == (3, ("alpha channel dropped",))
    np.testing.assert_array_equal(plane, COLOURS)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (2_000_000, 4_000_000, (0.25, 0.5)),
        (1_538_461, 1_538_461, (1e6 / 1_538_461, 1e6 / 1_538_461)),
        (2835, 2835, None),  # 72 dots per inch, as nearly every program writes
        (0, 2_000_000, None),
    ],
)
def test_a_pixel_size_is_one_that_a_microscope_could_have(x: int, y: int, expected: tuple[float, float] | None) -> None:
    data = bytearray(saved(Image.fromarray(RAMP)))
    data[38:46] = struct.pack("<ii", x, y)
    assert read(bytes(data))[0].pixel_size_um == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            bitmap(b"\x04\x07" * 9, (20, 30), 8, compression=RLE8, palette=GREYS),
            "compressed by run lengths, which is not supported; write it",
        ),
        (
            bitmap(rows_of(RAMP), (20, 30), 8, compression=4, palette=GREYS),
            r"header cannot be decoded \(Unsupported BMP compression \(4\)\)",
        ),
        # Pillow takes these for samples of another size
        (bitmap(rows_of(RAMP % 2), (20, 30), 8, palette=GREYS[:4] + GREYS[-4:]), "8 bits per pixel and a pal"),
        (bitmap(rows_of(RAMP), (20, 30), 4, palette=GREYS[: 4 * 16]), "4 bits per pixel and a palette of L colours"),
        (bitmap(b"", (20, 0), 8, palette=GREYS), "header cannot be decoded"),
        (b"BM", "header cannot be decoded"),
    ],
    ids=["runs", "JPEG inside", "two greys", "16 greys", "no width", "no header"],
)
def test_what_would_be_read_wrongly_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UndecodableImage, match=message):
        read(data)


def test_gigapixels_are_refused_from_the_header() -> None:
    reset_peak()
    before = peak_kib()
    with pytest.raises(ImageTooLarge, match="3600000000 pixels, the limit is 16777216"):
        read(bitmap(b"", (60_000, 60_000), 24))
    assert peak_kib() - before < 1 << 14


@settings(max_examples=80)
@given(data=st.data())
def test_a_cut_file_is_always_refused(data: st.DataObject) -> None:
    whole = saved(Image.fromarray(COLOURS))
    padding = -3 * COLOURS.shape[1] % 4  # of the last row, which no pixel needs
    with pytest.raises(FormatError):
        read(whole[: data.draw(st.integers(0, len(whole) - padding - 1))])


@settings(max_examples=200)
@given(head=st.binary(min_size=52, max_size=52), compression=st.sampled_from([RAW, BITFIELDS]))
def test_any_header_is_read_or_refused(head: bytes, compression: int) -> None:
    data = bytearray(b"BM" + head + RAMP.tobytes())
    data[14:18] = struct.pack("<I", 40)
    data[18:26] = struct.pack("<ii", data[18] % 32, data[22] % 32)
    data[28:34] = struct.pack("<HI", (1, 4, 8, 16, 24, 32)[data[28] % 6], compression)
    try:
        header, plane = read(bytes(data))
    except FormatError:
        return
    assert plane.shape == (*header.size_yx, header.channels)
