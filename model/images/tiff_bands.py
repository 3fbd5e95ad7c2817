"""Decode the rows of one TIFF page band by band, so that no page need be in memory whole.

A band is a few rows of strips or tiles; what one of those holds is the least that can be decoded, so a page in a single
compressed strip is one band.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from model.images.errors import UndecodableImage
from model.images.tiff_lzw import LZW, lzw_decoder

BAND_PX = 1 << 22
"""Pixels of a band, where strips and tiles allow it."""
_JPEG = 7
_PLANAR = 2
TILE_WIDTH = 322

Decode = Callable[[int], Any]
"""Segment by its number: samples (1, y, x, s), position (s, 0, y, x, 0) and shape, as ``TiffPage.decode`` has them."""


def is_raw(page: tifffile.TiffPage) -> bool:
    """Whether the samples of a page stand in the file one behind the other, as they are."""
    return bool(page.compression == 1 and page.is_contiguous and page.fillorder == 1 and page.predictor == 1)


def is_planar(page: tifffile.TiffPage) -> bool:
    """Whether the samples of a page stand in images of their own, one behind the other."""
    return bool(page.planarconfig == _PLANAR and page.samplesperpixel > 1)


def _is_whole(page: tifffile.TiffPage) -> bool:
    """Whether a page is decoded at once: a predictor or a bit order without compression, which nobody writes."""
    return bool(page.is_contiguous) and not is_raw(page)


def rows_of_bands(page: tifffile.TiffPage) -> int:
    """Rows of a band of ``page``: as many rows of segments as make up :data:`BAND_PX`, one at least.

    Raises
    ------
    UndecodableImage
        Strips or tiles without rows or columns.
    """
    if _is_whole(page):
        return int(page.imagelength)
    rows = 1 if is_raw(page) else _segment_rows(page)
    wanted = rows * max(1, BAND_PX // (rows * page.imagewidth))
    return min(int(page.imagelength), int(wanted))


def page_bands(page: tifffile.TiffPage, sample: int | None = None) -> Iterator[NDArray[Any]]:
    """Decode a page that has passed :func:`model.images.tiff_segments.check_page`.

    Parameters
    ----------
    page
        Read for this call alone, where it is compressed with LZW.
    sample
        The one that is wanted of a planar page, or None for all.

    Yields
    ------
    NDArray
        The next rows (y, x, s), of ``page.dtype``.

    Raises
    ------
    Exception
        Whatever tifffile and the codecs say of a damaged file.

    """
    height, step = page.imagelength, rows_of_bands(page)
    if _is_whole(page):
        samples = _samples_last(page, page.asarray(maxworkers=1))
        yield samples if sample is None else samples[..., sample : sample + 1]
        return
    raw = is_raw(page)
    decode = None if raw else lzw_decoder(page) if page.compression == LZW else _decoder(page)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        if decode is None:
            yield raw_rows(page, page.dataoffsets[0], rows, sample)
        else:
            yield _samples_last(page, _decode_rows(page, decode, rows, sample))


def raw_rows(page: tifffile.TiffPage, offset: int, rows: slice, sample: int | None = None) -> NDArray[Any]:
    """Rows (y, x, s) of uncompressed pixels that begin at byte ``offset`` and are laid out as in ``page``.

    Of a planar page one sample may be asked for.
    """
    handle = page.parent.filehandle
    stored = page.dtype.newbyteorder(page.parent.byteorder)
    _, _, height, width, samples = page.shaped
    planes = _planes(page, sample)
    count = rows.stop - rows.start
    band = np.empty((len(planes), count, width, samples), dtype=page.dtype)
    for at, plane in enumerate(planes):
        first = (plane * height + rows.start) * width * samples
        handle.seek(offset + first * stored.itemsize)
        band[at] = handle.read_array(stored, count * width * samples).reshape(band.shape[1:])
    return band[0] if len(planes) == 1 else np.moveaxis(band[..., 0], 0, -1)


def _segment_rows(page: tifffile.TiffPage) -> int:
    tiled = TILE_WIDTH in page.tags  # tifffile takes tiles without columns for strips
    lengths = (page.tilelength, page.tilewidth) if tiled else (page.rowsperstrip,)
    if not all(isinstance(length, int) and length > 0 for length in lengths):
        names = "TileLength and TileWidth" if tiled else "RowsPerStrip"
        found = " and ".join(map(str, lengths))
        raise UndecodableImage(f"{names} of the TIFF are {found}, each should be one number above 0; write it again")
    return min(int(lengths[0]), int(page.imagelength))


def _planes(page: tifffile.TiffPage, sample: int | None) -> range:
    """Separate samples of a page, or the one that is wanted."""
    return range(page.shaped[0]) if sample is None else range(sample, sample + 1)


def _decode_rows(page: tifffile.TiffPage, decode: Decode, rows: slice, sample: int | None) -> NDArray[Any]:
    """Rows, which begin with a segment, as (separate sample, y, x, contiguous sample)."""
    _, _, height, width, samples = page.shaped
    planes = _planes(page, sample)
    segment_rows = _segment_rows(page)
    across = math.ceil(width / page.tilewidth) if page.is_tiled else 1
    down = math.ceil(height / segment_rows)
    band = np.empty((len(planes), rows.stop - rows.start, width, samples), dtype=page.dtype)
    for at, plane in enumerate(planes):
        for row in range(rows.start // segment_rows, math.ceil(rows.stop / segment_rows)):
            for column in range(across):
                index = (plane * down + row) * across + column
                segment, (_, _, top, left, _), (_, length, extent, _) = decode(index)
                target = band[at, top - rows.start : top - rows.start + length, left : left + extent]
                target[...] = segment[0, : target.shape[0], : target.shape[1]]
    return band


def _decoder(page: tifffile.TiffPage) -> Decode:
    handle = page.parent.filehandle
    options: dict[str, Any] = {"_fullsize": page.is_tiled}
    if page.compression == _JPEG:
        options |= {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}

    decode_segment = page.decode  # made at the first call, which reads tags and so moves in the file

    def decode(index: int) -> Any:  # noqa: ANN401 - tifffile's own
        handle.seek(page.dataoffsets[index])
        return decode_segment(handle.read(page.databytecounts[index]), index, **options)

    return decode


def _whole_integers(page: tifffile.TiffPage, samples: NDArray[Any]) -> NDArray[Any]:
    """Undo what tifffile leaves of integers that fill no whole words, such as 12 bits in 16 or 24 in 32."""
    bits = page.bitspersample
    if samples.dtype.kind != "u" or bits == 8 * samples.dtype.itemsize:
        return samples
    if is_swapped(page):
        samples = samples.byteswap()
    # sums of differences are those of the whole word
    return samples if page.predictor == 1 else samples & samples.dtype.type((1 << bits) - 1)


def is_swapped(page: tifffile.TiffPage) -> bool:
    """Whether tifffile gives the integers of a page with their bytes in the wrong order: 24 bits, big-endian."""
    return bool(page.bitspersample == 24 and page.parent.byteorder == ">" and page.dtype.kind == "u")


def _samples_last(page: tifffile.TiffPage, stored: NDArray[Any]) -> NDArray[Any]:
    """(y, x, s) from what tifffile gives: YX, YXS and SYX, or with both sample axes in front and behind."""
    samples = _whole_integers(page, stored)
    if samples.ndim == 4:
        return samples[0] if len(samples) == 1 else np.moveaxis(samples[..., 0], 0, -1)
    if samples.ndim == 2:
        return samples[..., np.newaxis]
    return np.moveaxis(samples, 0, -1) if is_planar(page) else samples
