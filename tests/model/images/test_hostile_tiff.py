"""TIFF that is forged, damaged or incomplete: refused before it costs anything, and never half filled."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from model.images import FormatError, ImageTooLarge, ReadLimits, UndecodableImage, open_image
from model.images.jpeg2000_markers import jpeg2000_frame
from model.images.jpeg_markers import MAX_SCANS, jpeg_frame
from model.images.tiff_ifd import MAX_DESCRIPTION_BYTES, MAX_PAGES
from tests.model.images.tiffs import LIMITS, patched, ramp, read, write


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
        'SizeX="9" SizeY="8" SizeZ="3" SizeC="1" SizeT="1" SignificantBits="many"',
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


@settings(max_examples=150)
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


@pytest.mark.parametrize(
    ("code", "value", "message"),
    [
        (273, 0, r"strip 1 of 4 should be the \d+ bytes at 0"),
        (273, 1 << 30, r"strip 1 of 4 should be the \d+ bytes at 1073741824"),
        (279, 0, "strip 1 of 4 should be the 0 bytes"),
        (279, 65_535, "strip 1 of 4 should be the 65535 bytes"),
        (279, 5, "page 0 of the TIFF cannot be decoded"),
    ],
)
def test_a_missing_or_short_strip_is_refused_by_its_number(code: int, value: int, message: str) -> None:
    data = write(ramp(64, 64), compression="zlib", rowsperstrip=16)
    with pytest.raises(UndecodableImage, match=message):
        read(patched(data, code, value, index=1))


def test_a_page_with_too_few_strips_is_refused() -> None:
    data = write(ramp(64, 64), compression="zlib", rowsperstrip=16)
    with pytest.raises(UndecodableImage, match="needs 8 strips, its directory lists 4"):
        read(patched(data, 257, 128))


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ({"rowsperstrip": 16}, 278, "RowsPerStrip of the TIFF are 0, each should be one number above 0; write"),
        ({"tile": (16, 32)}, 322, "TileLength and TileWidth of the TIFF are 16 and 0, each"),
        ({"tile": (16, 32)}, 323, "TileLength and TileWidth of the TIFF are 0 and 32, each"),
    ],
)
def test_strips_and_tiles_without_extent_are_refused_when_the_image_is_opened(
    options: dict[str, Any], code: int, said: str
) -> None:
    data = patched(write(ramp(64, 64), compression="zlib", **options), code, 0)
    with pytest.raises(UndecodableImage, match=said):
        open_image(io.BytesIO(data), LIMITS)


def test_a_tile_of_two_lengths_is_refused_when_the_image_is_opened() -> None:
    data = bytearray(write(ramp(64, 64), compression="zlib", tile=(16, 32)))
    at = data.index(struct.pack("<HHI", 323, 4, 1))
    struct.pack_into("<HHIHH", data, at, 323, 3, 2, 16, 16)
    with pytest.raises(UndecodableImage, match=r"TileLength and TileWidth of the TIFF are \(16, 16\) and 32"):
        open_image(io.BytesIO(bytes(data)), LIMITS)


def test_a_tile_far_larger_than_its_image_is_refused() -> None:
    data = write(ramp(16, 16, dtype=np.uint8), compression="zlib", tile=(16, 16))
    with pytest.raises(UndecodableImage, match="a tile holds 4294705156 bytes, the limit for this page is 67108864"):
        read(patched(patched(data, 322, 65_534), 323, 65_534))


@pytest.mark.parametrize(
    ("code", "value", "message"),
    [
        (259, 34_676, "compression SGILOG is not supported; use one of none, ccitt rle, .*, lzma, zstd$"),
        (262, 5, "colour model SEPARATED is not supported"),
        (262, 2, "1 samples per pixel, 3 are needed; write it as grey"),
        (262, 3, "palette is None"),
        (258, 77, "samples of 77 bits"),
    ],
)
def test_kinds_that_would_be_read_wrongly_are_refused_by_name(code: int, value: int, message: str) -> None:
    with pytest.raises(UndecodableImage, match=message):
        read(patched(write(ramp(8, 9, dtype=np.uint8)), code, value))


def test_a_later_page_that_differs_is_refused_when_it_is_read() -> None:
    """The metadata joins pages that are no stack."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(ramp(8, 8), metadata=None, compression="zlib")
        writer.write(ramp(8, 8), metadata=None, compression="lzma")
    data = bytearray(file.getvalue())
    second = data.rindex(struct.pack("<HHIH", 259, 3, 1, 34_925))
    struct.pack_into("<H", data, second + 8, 34_676)
    with pytest.raises(UndecodableImage, match="SGILOG"):
        read(bytes(data))


def test_more_pages_than_the_limit_are_refused() -> None:
    entry = struct.pack("<H", 1) + struct.pack("<HHII", 256, 3, 1, 8)
    pages = [entry + struct.pack("<I", 8 + 18 * (i + 1)) for i in range(MAX_PAGES + 1)]
    with pytest.raises(UndecodableImage, match="more than 32768 pages"):
        read(struct.pack("<2sHI", b"II", 42, 8) + b"".join(pages))


def test_directories_that_overlap_are_refused_before_they_are_read_a_million_times() -> None:
    """Each of 4,096 tags, one begins 12 bytes after the other."""
    pages, tags = 300, 4096
    data = bytearray(16 + 2 + 12 * (pages + tags) + 4)
    struct.pack_into("<2sHI", data, 0, b"II", 42, 16)
    for page in range(pages):
        struct.pack_into("<H", data, 16 + 12 * page, tags)
        struct.pack_into("<I", data, 16 + 12 * page + 2 + 12 * tags, 16 + 12 * (page + 1))
    with pytest.raises(UndecodableImage, match=r"2 directories take 98304 bytes, the file has \d+: they overlap"):
        read(bytes(data))


def test_values_that_directories_share_in_masses_are_refused() -> None:
    """Bits of 4,096 samples, the same for every page."""
    pages, samples = 40, 4096
    entries = struct.pack("<HHHII", 1, 258, 3, samples, 8 + 18 * pages)
    chain = [entries + struct.pack("<I", 8 + 18 * (page + 1) if page + 1 < pages else 0) for page in range(pages)]
    with pytest.raises(UndecodableImage, match="they overlap"):
        read(struct.pack("<2sHI", b"II", 42, 8) + b"".join(chain) + b"\x08\x00" * samples)


def test_a_description_of_more_than_words_is_refused() -> None:
    data = write(ramp(8, 9), metadata=None, description="x" * (MAX_DESCRIPTION_BYTES + 1))
    with pytest.raises(UndecodableImage, match=f"a description of {MAX_DESCRIPTION_BYTES + 2} bytes, the limit is"):
        read(data)


def test_ome_metadata_of_more_blocks_than_pages_are_read_is_left_aside() -> None:
    xml = (
        '<?xml version="1.0"?><OME><Image><Pixels DimensionOrder="XYZCT" SizeX="9" SizeY="8" SizeZ="1" SizeC="1" '
        f'SizeT="1" Type="uint16">{"<TiffData/>" * (MAX_PAGES + 1)}</Pixels></Image></OME>'
    )
    header, planes = read(write(ramp(8, 9), metadata=None, description=xml))
    assert any(f"more than {MAX_PAGES} TiffData" in note for note in header.notes)
    np.testing.assert_array_equal(planes[0, ..., 0], ramp(8, 9))


@pytest.mark.parametrize("between", [b"", b"\xff\xfe\x00\x02\x00"])
def test_a_jpeg_strip_of_many_scans_is_refused(between: bytes) -> None:
    """The strip's last scan is repeated at the end of the file, where its directory is told that it lies."""
    data = bytearray(write(np.full((64, 64), 7, dtype=np.uint8), compression="jpeg"))
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tags = tiff.pages.first.tags
        stream = data[tags["StripOffsets"].value[0] :][: tags["StripByteCounts"].value[0]]
        places = [tags[name].valueoffset for name in ("StripOffsets", "StripByteCounts")]
    scan = stream[stream.rindex(b"\xff\xda") : -2]
    longer = stream[:-2] + (between + scan) * MAX_SCANS + b"\xff\xd9"
    for place, value in zip(places, (len(data), len(longer)), strict=True):
        struct.pack_into("<I", data, place, value)
    with pytest.raises(UndecodableImage, match=f"more than {MAX_SCANS} scans"):
        read(bytes(data + longer))


def test_a_truncated_jpeg_strip_is_refused_and_not_filled_with_grey() -> None:
    data = bytearray(write(ramp(64, 64, dtype=np.uint8), compression="jpeg"))
    data[data.rindex(b"\xff\xd9") :] = b"\0\0"
    with pytest.raises(UndecodableImage, match="ends before its JPEG stream does"):
        read(bytes(data))


def jpeg_stream_yx(stream: bytes) -> tuple[int, int]:
    return jpeg_frame(io.BytesIO(stream)).size_yx


def jpeg2000_frame_yx(stream: bytes) -> tuple[int, int]:
    return jpeg2000_frame(stream).size_yx


@pytest.mark.parametrize("frame", [jpeg_stream_yx, jpeg2000_frame_yx])
@given(stream=st.binary(max_size=64))
def test_any_bytes_have_a_frame_or_none(frame: Callable[[bytes], tuple[int, int]], stream: bytes) -> None:
    try:
        height, width = frame(stream)
    except (ValueError, struct.error):
        return
    assert isinstance(height, int)
    assert isinstance(width, int)


@pytest.mark.parametrize(("compression", "frame"), [("jpeg", jpeg_stream_yx), ("jpeg2000", jpeg2000_frame_yx)])
def test_frame_sizes_are_those_of_the_streams(compression: str, frame: Callable[[bytes], tuple[int, int]]) -> None:
    data = write(ramp(37, 53, dtype=np.uint8), compression=compression, rowsperstrip=37)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages.first
        stream = data[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]]
    assert frame(stream) == (37, 53)


def test_a_stream_that_ends_other_decoders_is_refused() -> None:
    """An LZW stream on which imagecodecs 2026.3.6 reads outside its table, and the process dies."""
    stream = bytes.fromhex("80004020201800000301408070b810060a0000800051285c560706874034102a245e")
    data = bytearray(write(ramp(64, 64, dtype=np.uint8), compression="lzw"))
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        at = tiff.pages.first.dataoffsets[0]
    data[at : at + len(stream)] = stream
    with pytest.raises(UndecodableImage, match="page 0 of the TIFF cannot be decoded"):
        read(bytes(data))


@pytest.mark.parametrize("shape", [(50, 70), (50, 70, 3), (1, 1), (3, 33)])
@pytest.mark.parametrize("options", [{"rowsperstrip": 7}, {"tile": (16, 32)}, {"predictor": True}])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_lzw_is_undone_exactly(shape: tuple[int, ...], options: dict[str, Any], byteorder: Any) -> None:
    image = ramp(*shape)
    colour = "rgb" if len(shape) == 3 else "minisblack"
    data = write(image, compression="lzw", photometric=colour, byteorder=byteorder, metadata=None, **options)
    np.testing.assert_array_equal(read(data)[1][0], image.reshape(*shape[:2], -1))
