"""Images decoded part by part: the same pixels as decoded whole, and never more of them at a time than promised."""

from __future__ import annotations

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.images import UndecodableImage, open_image, png_bands, read_npy, read_png, tiff_bands
from model.images.image import ImageHeader
from tests.images import tiff
from tests.model.images.tiffs import LIMITS

SHAPE = (67, 45)
FILL_ORDER, PREDICTOR = 266, 317


def samples(dtype: Any, *channels: int) -> NDArray[Any]:
    return np.random.default_rng(3).integers(0, np.iinfo(dtype).max, (*SHAPE, *channels)).astype(dtype)


def in_parts(data: bytes) -> tuple[ImageHeader, NDArray[Any], int]:
    """Header, the plane put together from its parts, and how many those are."""
    with open_image(io.BytesIO(data), LIMITS) as reader:
        plane = np.zeros((*reader.header.size_yx, reader.header.channels), dtype=reader.header.dtype)
        seen = np.zeros(plane.shape, dtype=int)
        parts = list(reader.read_parts(0))
        for part in parts:
            assert part.samples_yxc.nbytes <= reader.part_bytes
            plane[part.rows, :, part.channels] = part.samples_yxc
            seen[part.rows, :, part.channels] += 1
        assert (seen == 1).all()
        return reader.header, plane, len(parts)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_bands, "BAND_PX", 10 * SHAPE[1])
    monkeypatch.setattr(png_bands, "BAND_BYTES", 10 * SHAPE[1])
    monkeypatch.setattr(read_npy, "PART_BYTES", 10 * SHAPE[1])
    monkeypatch.setattr(read_png, "CHUNK_BYTES", 100)


TIFFS: dict[str, dict[str, Any]] = {
    "raw": {},
    "raw strips": {"rowsperstrip": 7},
    "raw tiles": {"tile": (16, 32)},
    "big endian": {"byteorder": ">"},
    "deflate strips": {"compression": "zlib", "rowsperstrip": 4, "predictor": True},
    "deflate tiles": {"compression": "zlib", "tile": (16, 16)},
    "lzw strips": {"compression": "lzw", "rowsperstrip": 5},
    "lzw tiles": {"compression": "lzw", "tile": (16, 32)},
    "zstd tiles": {"compression": "zstd", "tile": (32, 16)},
}


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("options", TIFFS.values(), ids=TIFFS.keys())
@pytest.mark.parametrize("layout", ["grey", "contig", "separate", "pages"])
def test_parts_of_a_tiff_are_its_pixels(options: dict[str, Any], layout: str) -> None:
    pixels = samples(np.uint16, *([] if layout == "grey" else [3]))
    if layout == "pages":
        data = tiff(np.moveaxis(pixels, -1, 0), photometric="minisblack", metadata={"axes": "CYX"}, **options)
    elif layout == "separate":
        data = tiff(np.moveaxis(pixels, -1, 0), photometric="rgb", planarconfig="separate", **options)
    else:
        data = tiff(pixels, photometric="rgb" if layout == "contig" else "minisblack", **options)
    _, plane, parts = in_parts(data)
    np.testing.assert_array_equal(plane, pixels.reshape(plane.shape))
    assert parts > 2


@pytest.mark.usefixtures("small_parts")
def test_parts_of_a_tiff_are_what_is_handed_out_whole() -> None:
    """JPEG tiles, white-is-zero bits, a palette: what is done to samples is done to those of a part."""
    jpeg = tiff(samples(np.uint8, 3), compression="jpeg", tile=(16, 16), photometric="ycbcr")
    bits = tiff(samples(np.uint8) > 100, photometric="miniswhite", rowsperstrip=8)
    colours = np.random.default_rng(0).integers(0, 65_535, (3, 256)).astype(np.uint16)
    palette = tiff(samples(np.uint8), photometric="palette", colormap=colours, rowsperstrip=8)
    for data in (jpeg, bits, palette):
        _, plane, parts = in_parts(data)
        with open_image(io.BytesIO(data), LIMITS) as reader:
            np.testing.assert_array_equal(plane, reader.read_plane(0))
        assert parts > 2
    np.testing.assert_array_equal(in_parts(jpeg)[1], tifffile.imread(io.BytesIO(jpeg)))


def test_a_page_in_one_compressed_strip_is_one_part_and_says_so() -> None:
    with open_image(io.BytesIO(tiff(samples(np.uint16), compression="zlib", rowsperstrip=67)), LIMITS) as reader:
        assert reader.part_bytes == 67 * 45 * 2


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("tag", [FILL_ORDER, PREDICTOR])
def test_a_page_that_is_decoded_whole_without_compression_says_so(tag: int) -> None:
    private = 65_000
    data = tiff(samples(np.uint8), rowsperstrip=7, extratags=[(private, 3, 1, 2, True)])
    odd = data.replace(struct.pack("<HHI", private, 3, 1), struct.pack("<HHI", tag, 3, 1))
    assert odd != data
    _, plane, parts = in_parts(odd)
    assert parts == 1
    np.testing.assert_array_equal(plane[..., 0], tifffile.imread(io.BytesIO(odd)))


PNGS: dict[str, NDArray[Any]] = {
    "grey": samples(np.uint8),
    "grey 16": samples(np.uint16),
    "grey alpha": samples(np.uint8, 2),
    "grey alpha 16": samples(np.uint16, 2),
    "rgb": samples(np.uint8, 3),
    "rgb 16": samples(np.uint16, 3),
    "rgba": samples(np.uint8, 4),
    "rgba 16": samples(np.uint16, 4),
}


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("pixels", PNGS.values(), ids=PNGS.keys())
@pytest.mark.parametrize("row_filter", [8, 16, 32, 64, 128])
def test_parts_of_a_png_are_its_pixels(pixels: NDArray[Any], row_filter: int) -> None:
    """Every colour type with every filter: none, left, above, average, Paeth."""
    header, plane, parts = in_parts(bytes(imagecodecs.png_encode(pixels, filter=row_filter)))
    np.testing.assert_array_equal(plane, np.atleast_3d(pixels)[..., : header.channels])
    assert parts > 5


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("mode", ["1", "P", "grey palette", "2 bits"])
def test_parts_of_a_png_with_few_bits_or_a_palette_are_what_libpng_gives(mode: str) -> None:
    file = io.BytesIO()
    picture = Image.fromarray(samples(np.uint8, 3))
    if mode == "1":
        picture.convert("1").save(file, "PNG")
    elif mode == "grey palette":
        picture = Image.fromarray(samples(np.uint8))
        picture.putpalette([level for level in range(256) for _ in range(3)])
        picture.save(file, "PNG")
    else:
        picture.quantize(4 if mode == "2 bits" else 200).save(file, "PNG")
    whole = np.atleast_3d(imagecodecs.png_decode(file.getvalue()))
    header, plane, parts = in_parts(file.getvalue())
    np.testing.assert_array_equal(plane, whole[..., : header.channels])
    assert parts >= 1


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("broken", ["cut", "checksum", "short"])
def test_damage_in_a_large_png_is_an_error_of_the_image(broken: str) -> None:
    data = bytearray(bytes(imagecodecs.png_encode(samples(np.uint8))))
    at = data.index(b"IDAT")
    if broken == "cut":
        data = data[:-200]
    elif broken == "checksum":
        data[data.index(b"IEND") - 6] ^= 1
    else:
        data[20:24] = (1000).to_bytes(4, "big")  # more rows than there are
    assert at
    with pytest.raises(UndecodableImage):
        in_parts(bytes(data))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("fortran", [False, True])
def test_parts_of_an_npy_are_its_pixels(fortran: bool) -> None:
    file = io.BytesIO()
    pixels = samples(np.uint16, 3)
    np.save(file, np.asfortranarray(pixels) if fortran else pixels)
    _, plane, parts = in_parts(file.getvalue())
    np.testing.assert_array_equal(plane, pixels)
    assert parts == 1 if fortran else parts > 2


@given(width=st.integers(1, 40), height=st.integers(1, 40), band=st.integers(1, 400), seed=st.integers(0, 99))
def test_any_png_is_the_same_in_bands_of_any_size(width: int, height: int, band: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png_bands, "BAND_BYTES", band)
        _, plane, _ = in_parts(bytes(imagecodecs.png_encode(pixels)))
    np.testing.assert_array_equal(plane, pixels)
