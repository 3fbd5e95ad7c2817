"""Strips and tiles that ask for more memory or time than what they hold: refused before a codec sees them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from model.images import UndecodableImage, open_image
from model.images.jpeg2000_markers import MAX_SEGMENTS, jpeg2000_frame
from tests.model.images.tiffs import LIMITS, patched, ramp, read, write


def with_segments(data: bytes, stream: bytes, *, count: int | None = None) -> bytes:
    """Let all segments of the first page be ``stream``, behind the end of the file, and of ``count`` bytes."""
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tags = tiff.pages.first.tags
        offsets, counts = (next(tags[code] for code in codes if code in tags) for codes in ((324, 273), (325, 279)))
    for tag, value in ((offsets, len(data)), (counts, count or len(stream))):
        for index in range(tag.count):
            data = patched(data, tag.code, value, index=index)
    return data + stream


def jp2(codestream: bytes, *boxes: tuple[bytes, bytes]) -> bytes:
    """A JP2 file with further boxes in front of its codestream."""
    parts = [(b"jP  ", b"\r\n\x87\n"), (b"ftyp", b"jp2 \0\0\0\0jp2 "), *boxes, (b"jp2c", codestream)]
    return b"".join(struct.pack(">I4s", 8 + len(body), kind) + body for kind, body in parts)


def size_marker(height: int, width: int, *, tile: int = 1 << 16, components: int = 1) -> bytes:
    """The first two markers of a JPEG 2000 codestream."""
    numbers = (width, height, 0, 0, tile, tile, 0, 0)
    body = struct.pack(">H8IH", 0, *numbers, components) + b"\x07\x01\x01" * components
    return b"\xff\x4f\xff\x51" + struct.pack(">H", 2 + len(body)) + body


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (size_marker(16_000, 16_000), "holds 16000 x 16000 pixels, the directory allows 64 x 64"),
        (jp2(size_marker(16_000, 16_000), (b"uuid", bytes(16) + size_marker(64, 64))), "holds 16000 x 16000 pixels"),
        (jp2(size_marker(16_000, 16_000), (b"xml ", size_marker(64, 64))), "holds 16000 x 16000 pixels"),
        (jp2(b"", (b"uuid", bytes(16) + size_marker(64, 64))), "has no size marker"),
        (jp2(size_marker(64, 64))[:-1] + b"\0" * 4, "page 0 of the TIFF cannot be decoded"),
        (jp2(size_marker(64, 64), (b"jp2h", b"\0\0\0\x0epclr\0\1\xff")), "has a palette"),
        (b"\0\0\0\0uuid" + size_marker(64, 64), "has no codestream"),
        (b"\0\0\0\1uuid\0\0\0\0\0\0\0\0" + size_marker(64, 64), "has no codestream"),
        (b"\xff\xff\xff\xffuuid" + size_marker(64, 64), "has no codestream"),
        (size_marker(64, 64, components=16_384), "holds 16384 samples per pixel, the directory allows 1"),
        (size_marker(64, 64, tile=8), "has 64 tiles, the limit for 64 x 64 pixels is 9"),
        (size_marker(64, 64, tile=0), "has 64 x 64 pixels in tiles of 0 x 0"),
        (size_marker(64, 64)[:-9], "tile 0 of 1: "),
    ],
)
def test_a_jpeg_2000_tile_that_asks_for_more_than_the_directory_is_refused(stream: bytes, message: str) -> None:
    """OpenJPEG allocates what the codestream declares; what looks like one in another box is none."""
    data = write(ramp(64, 64, dtype=np.uint8), compression="jpeg2000", tile=(64, 64))
    with pytest.raises(UndecodableImage, match=message):
        read(with_segments(data, stream))


def coded(*, layers: int = 1, levels: int = 5, block: int = 4, precincts: bytes = b"") -> bytes:
    """The marker of how a JPEG 2000 stream is coded; the side of code blocks is 4 for 0, 64 for 4."""
    body = struct.pack(">BBHBBBBBB", bool(precincts), 0, layers, 0, levels, block, block, 0, 1) + precincts
    return b"\xff\x52" + struct.pack(">H", 2 + len(body)) + body


def coded_component(block: int) -> bytes:
    """Likewise for the first component."""
    return b"\xff\x53" + struct.pack(">HBBBBBBB", 9, 0, 0, 5, block, block, 0, 1)


def tile_part(*headers: bytes, length: int | None = None) -> bytes:
    body = b"".join(headers) + b"\xff\x93" + bytes(9)
    return b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 12 + len(body) if length is None else length, 0, 1) + body


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (coded(block=1), "the code blocks of the JPEG 2000 stream hold 64 samples on average, 256 is the least"),
        (coded(precincts=b"\x11" * 6), "hold 1 samples on average"),
        (coded(precincts=b"\x55" + b"\x44" * 5), "hold 64 samples on average"),
        (coded() + coded_component(0), "hold 16 samples on average"),
        (coded() + tile_part(coded(block=0)), "hold 16 samples on average"),
        (coded() + tile_part() + tile_part(coded_component(0)), "hold 16 samples on average"),
        (coded(layers=65), "has 65 layers, the limit is 64"),
        (coded() + b"\xff\x30\x00\x02" + coded(block=0), "marker ff30 at byte 59: it is not supported"),
        (coded() + b"\xff\x64\x00\x01" + coded(block=0), "segment at byte 59 says it has 1 bytes, 2 is the least"),
        (coded() + tile_part(length=12), "the JPEG 2000 tile part at byte 59 ends before its header does"),
        (coded() + b"\xff\x64\x00\x02" * MAX_SEGMENTS, f"more than {MAX_SEGMENTS} segments, which is the limit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_jpeg_2000_of_parts_smaller_than_encoders_write_is_refused(headers: bytes, message: str) -> None:
    """OpenJPEG takes 400 bytes for each code block: 120 MB for 2048 squared in blocks of 4, from 1.8 KB."""
    stream = size_marker(64, 64) + headers
    with pytest.raises(ValueError, match=message):
        jpeg2000_frame(stream)
    data = write(ramp(64, 64, dtype=np.uint8), compression="jpeg2000", tile=(64, 64))
    if len(stream) < 1 << 16:
        with pytest.raises(UndecodableImage, match=message):
            read(with_segments(data, stream))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_resolutions": 1},
        {"codeblock_size": (16, 16)},
        {"codeblock_size": (4, 64)},
        {"precinct_size": (64, 64)},
        {"tile_size": (64, 64), "plt": True},
        {"tile_size": (100, 130), "progression": "RPCL"},
        {"quality_layers": [40, 20, 10], "irreversible": True},
        {"comment": "of a length"},
    ],
    ids=str,
)
@pytest.mark.parametrize("no_jp2", [False, True])
def test_jpeg_2000_as_encoders_write_it_is_read(options: dict[str, Any], no_jp2: bool) -> None:
    file = io.BytesIO()
    Image.fromarray(ramp(300, 200, dtype=np.uint8)).save(file, "JPEG2000", no_jp2=no_jp2, **options)
    data = with_segments(
        write(ramp(300, 200, dtype=np.uint8), compression="jpeg2000", rowsperstrip=300), file.getvalue()
    )
    expected = np.asarray(Image.open(file))
    np.testing.assert_array_equal(read(data)[1][0, ..., 0], expected)


def test_jpeg_2000_is_read_in_and_without_a_file_of_its_own() -> None:
    image = ramp(64, 64, dtype=np.uint8)
    data = write(image, compression="jpeg2000", tile=(64, 64))
    for kind in ("jp2", "j2k"):
        stream = bytes(imagecodecs.jpeg2k_encode(image, level=0, codecformat=kind))
        np.testing.assert_array_equal(read(with_segments(data, stream))[1][0, ..., 0], image)


def test_a_tile_larger_than_its_image_is_charged_and_in_jpeg_2000_bounded() -> None:
    """OpenJPEG takes six bytes for each that it gives: 300 MB for a tile of 8000 squared, from 600 bytes."""
    small = np.zeros((64, 64), dtype=np.uint8)
    for compression, weight in (("zlib", 1), ("jpeg2000", 2)):
        with open_image(io.BytesIO(write(small, compression=compression, tile=(1024, 1024))), LIMITS) as reader:
            assert reader.part_bytes == weight << 20
            np.testing.assert_array_equal(reader.read_plane(0)[..., 0], small)
    large = patched(patched(write(small, compression="jpeg2000", tile=(64, 64)), 322, 4096), 323, 4096)
    with pytest.raises(UndecodableImage, match="a tile holds 16777216 bytes, the limit for this page is 8388608"):
        read(large)


def test_a_later_page_in_far_larger_tiles_than_the_first_is_refused() -> None:
    """Memory is charged by the first page."""
    small = np.zeros((64, 64), dtype=np.uint8)
    for side, is_read in ((1024, True), (4096, False)):
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as writer:
            writer.write(small, metadata=None, compression="zlib", rowsperstrip=16)
            writer.write(small, metadata=None, compression="zlib", tile=(side, side))
        if is_read:
            assert read(file.getvalue())[0].planes == 2
            continue
        with pytest.raises(
            UndecodableImage, match="page 1 of the TIFF has strips or tiles of 16777216 bytes, the limit"
        ):
            read(file.getvalue())


def test_a_strip_that_says_it_has_more_than_any_scheme_needs_is_refused() -> None:
    stream = zlib.compress(bytes(64 * 64))
    data = with_segments(write(np.zeros((64, 64), np.uint8), compression="zlib", rowsperstrip=64), stream)
    assert read(data)[0].size_yx == (64, 64)
    padded = with_segments(data, stream + bytes(1 << 20))
    with pytest.raises(UndecodableImage, match=r"strip 0 of 1 takes \d+ bytes, the limit is 73728 for what it holds"):
        read(padded)


def test_strips_that_cover_the_same_bytes_are_read_where_they_are_few() -> None:
    """Blank ones may share theirs; a thousand strips that share much are a thousand times as much to read."""
    blank = write(np.zeros((1000, 64), np.uint8), compression="zlib", rowsperstrip=1)
    stream = zlib.compress(bytes(64))
    assert not read(with_segments(blank, stream))[1].any()
    with pytest.raises(
        UndecodableImage, match=r"1000 strips of the page take 60000000 bytes, the limit is \d+: they ov"
    ):
        read(with_segments(blank, stream + bytes(60_000), count=60_000))


def test_uncompressed_pixels_are_read_whatever_the_length_of_their_strip_is_said_to_be() -> None:
    image = ramp(20, 30, dtype=np.uint8)
    data = write(image)
    np.testing.assert_array_equal(read(patched(data, 279, 200_000) + bytes(1 << 20))[1][0, ..., 0], image)


def test_noise_takes_no_more_than_its_limit_in_any_scheme() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)
    for compression in ("lzw", "zlib", "packbits", "zstd", "jpeg2000"):
        _, planes = read(write(noise, compression=compression, tile=(256, 256)))
        np.testing.assert_array_equal(planes[0, ..., 0], noise)
    read(write(noise, compression="jpeg", compressionargs={"level": 100}, tile=(256, 256)))


def test_jpeg_tables_of_more_than_tables_are_refused() -> None:
    tables = (347, 7, 70_000, bytes(70_000), True)
    data = write(ramp(64, 64, dtype=np.uint8), compression="jpeg", extratags=[tables])
    with pytest.raises(UndecodableImage, match="JPEG tables of the page take 70000 bytes, the limit is 65536"):
        read(data)
