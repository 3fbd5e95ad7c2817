"""PNG written by hand: every kind of it as libpng decodes it, and never more handed to libpng than the picture has."""

from __future__ import annotations

import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.images import UndecodableImage, open_image, png_bands
from model.images.png_bands import RowLayout, passes
from model.images.png_chunks import IHDR, SIGNATURE, chunk
from model.images.read_png import DEPTHS, MAX_CHUNKS, PALETTE, SAMPLES
from tests.model.images.test_read_png_jpeg_npy import Counting
from tests.model.images.tiffs import LIMITS, read

GREY = 0
PALETTE_CHUNK = (b"PLTE", bytes(range(256)) * 3)


def png(shape_yx: tuple[int, int], kind: tuple[int, int, bool], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of a depth, a colour type and interlaced or not, of the given chunks."""
    (height, width), (depth, colour, interlaced) = shape_yx, kind
    head = IHDR.pack(width, height, depth, colour, 0, 0, interlaced)
    return SIGNATURE + b"".join(chunk(*each) for each in ((b"IHDR", head), *chunks, (b"IEND", b"")))


def filtered(layout: RowLayout, *, interlaced: bool, seed: int) -> bytes:
    """Any bytes at all, each row behind one of the five filters."""
    random = np.random.default_rng(seed)
    rows = []
    for part in passes(layout, interlaced=interlaced):
        block = random.integers(0, 256, (part.layout.height, 1 + part.layout.row_bytes), np.uint8)
        block[:, 0] %= 5
        rows.append(block.tobytes())
    return b"".join(rows)


@given(
    kind=st.sampled_from([(depth, colour) for colour, depths in DEPTHS.items() for depth in depths]),
    interlaced=st.booleans(),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    band_bytes=st.integers(1, 200),
    seed=st.integers(0, 99),
)
def test_any_png_is_what_libpng_decodes(
    *, kind: tuple[int, int], interlaced: bool, height: int, width: int, band_bytes: int, seed: int
) -> None:
    depth, colour = kind
    layout = RowLayout(width, height, depth, SAMPLES[colour])
    stream = zlib.compress(filtered(layout, interlaced=interlaced, seed=seed))
    palette = [(b"PLTE", PALETTE_CHUNK[1][: 3 << depth])] if colour == PALETTE else []
    parts = [(b"IDAT", stream[at : at + 50]) for at in range(0, len(stream), 50)]
    data = png((height, width), (depth, colour, interlaced), *palette, *parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png_bands, "BAND_BYTES", band_bytes)
        header, planes = read(data)
    expected = np.atleast_3d(imagecodecs.png_decode(data)).reshape(height, width, -1)
    np.testing.assert_array_equal(planes[0], expected[..., : header.channels])


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what libpng is given."""
    sizes: list[int] = []
    decode = imagecodecs.png_decode

    def counted(data: bytes) -> Any:
        sizes.append(len(data))
        return decode(data)

    monkeypatch.setattr(imagecodecs, "png_decode", counted)
    return sizes


@pytest.mark.parametrize("interlaced", [False, True])
def test_what_follows_the_picture_is_not_inflated(handed_over: list[int], interlaced: bool) -> None:
    """libpng inflates it to its end: 5 GB of zeros in 5 MB, at the cost of many seconds that nothing could stop."""
    layout = RowLayout(64, 64, 8, 1)
    rows = filtered(layout, interlaced=interlaced, seed=0)
    kind = (8, GREY, interlaced)
    plain = png((64, 64), kind, (b"IDAT", zlib.compress(rows)))
    bomb = png((64, 64), kind, (b"IDAT", zlib.compress(rows + bytes(32 << 20))))
    expected = imagecodecs.png_decode(plain)
    handed_over.clear()
    np.testing.assert_array_equal(read(bomb)[1][0, ..., 0], expected)
    assert sum(handed_over) < 3 * len(rows)


def test_what_is_no_picture_is_not_read(handed_over: list[int]) -> None:
    """Texts, profiles and EXIF data of any length."""
    rows = filtered(RowLayout(64, 64, 8, 1), interlaced=False, seed=0)
    others = [(kind, bytes(1 << 20)) for kind in (b"zTXt", b"iCCP", b"eXIf", b"tRNS", b"pHYs", b"PLTE")]
    source = Counting(png((64, 64), (8, GREY, False), *others, (b"IDAT", zlib.compress(rows))))
    with open_image(source, LIMITS) as reader:
        assert reader.read_plane(0).shape == (64, 64, 1)
    assert source.taken < 3 * len(rows)
    assert sum(handed_over) < 3 * len(rows)


def test_a_note_is_made_once_however_many_chunks_ask_for_it() -> None:
    rows = filtered(RowLayout(8, 8, 8, 1), interlaced=False, seed=0)
    header, _ = read(png((8, 8), (8, GREY, False), *[(b"tRNS", b"\0\1")] * 50, (b"IDAT", zlib.compress(rows))))
    assert header.notes == ("transparency dropped",)


ROWS = zlib.compress(bytes(8 * 9))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png((8, 8), (8, PALETTE, False), (b"IDAT", ROWS)), "there is no palette"),
        (png((8, 8), (8, PALETTE, False), *[PALETTE_CHUNK] * 2, (b"IDAT", ROWS)), "a second palette"),
        (png((8, 8), (8, PALETTE, False), (b"PLTE", bytes(771)), (b"IDAT", ROWS)), "one of 771 bytes; 3 to 768"),
        (png((8, 8), (8, PALETTE, False), (b"PLTE", b""), (b"IDAT", ROWS)), "one of 0 bytes; 3 to 768"),
        (png((8, 8), (8, PALETTE, False), PALETTE_CHUNK).replace(b"\0\1\2\3", b"\0\1\3\3", 1), "chunk PLTE is not the"),
        (
            png((8, 8), (8, GREY, False), (b"IDAT", ROWS)).replace(b"\0\0\0\x08", b"\0\0\0\x09", 1),
            "chunk IHDR is not the",
        ),
        (png((8, 8), (4, 2, False), (b"IDAT", ROWS)), "colour type 2, depth 4"),
        (png((8, 8), (8, 5, False), (b"IDAT", ROWS)), "colour type 5, depth 8"),
        (png((8, 8), (8, GREY, True), (b"IDAT", ROWS[:-8])), "cannot be decoded"),
        (png((8, 8), (8, GREY, True), (b"IDAT", zlib.compress(bytes(70)))), "the picture's data end"),
        (
            png((8, 8), (8, GREY, False), *[(b"IDAT", b"")] * MAX_CHUNKS, (b"IDAT", ROWS)),
            f"more than {MAX_CHUNKS} chunks, which is the limit",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_png_that_is_none_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UndecodableImage, match=message):
        read(data)
