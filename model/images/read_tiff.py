"""Read TIFF through tifffile and imagecodecs: every page on its own, so that no other file is ever opened."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from model.images.errors import UndecodableImage, undecodable
from model.images.image import (
    MOST_NAME_CHARACTERS,
    ImageHeader,
    Part,
    ReaderOfParts,
    ReadLimits,
    check_index,
    handed_out,
    widen,
    widened_note,
)
from model.images.palette import expand, grey_only, palette_note
from model.images.tiff_bands import is_planar, is_raw, is_swapped, page_bands, raw_rows, rows_of_bands
from model.images.tiff_ifd import ORIENTATION, main_page, walk_directories
from model.images.tiff_lzw import LZW
from model.images.tiff_segments import COMPRESSIONS, MIN_JPEG2000_BYTES, check_page, codec_bytes
from model.images.tiff_stack import PageFacts, arrange

# tifffile reports the defects of a file through logging; here they become errors or notes of the request.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
IMAGEJ_METADATA = 50839
ALPHA = frozenset({1, 2})  # ExtraSamples: associated and unassociated alpha
FLAGS_OFF = {f"is_{flag}": False for flag in tifffile.TIFF.FILE_FLAGS}
"""Vendors' dialects are not looked for: some of them open further files."""


class TiffReader(ReaderOfParts):
    """An opened TIFF; it may be read from any thread, one at a time does the reading."""

    __slots__ = (
        "_alpha",
        "_band_rows",
        "_colormap",
        "_invert",
        "_lock",
        "_main",
        "_main_page",
        "_offsets",
        "_stack",
        "_tiff",
        "_virtual_from",
    )

    def __init__(self, source: IO[bytes], limits: ReadLimits, axes: str | None = None) -> None:
        self._lock = threading.Lock()
        directories = walk_directories(source)
        source.seek(0)
        self._offsets = [directory.offset for directory in directories]
        self._main = main_page(directories)
        with undecodable("the first page of the TIFF"):
            self._tiff = tifffile.TiffFile(source, name="upload", _multifile=False, **FLAGS_OFF)
            self._main_page = page = self._page(self._main) if self._main else self._tiff.pages.first
            _check_kind(page)
            facts = PageFacts(
                description=page.description,
                shape=page.shape,
                size_yx=(int(page.imagelength), int(page.imagewidth)),
                samples=page.samplesperpixel,
                planar=is_planar(page),
                is_rgb=page.photometric == RGB,
                resolution_xy=page.resolution if 282 in page.tags and 283 in page.tags else (0.0, 0.0),
                resolution_unit=int(page.resolutionunit),
                uncompressed=is_raw(page),
                labels=_labels(page),
            )
            self._stack = stack = arrange(directories, facts, axes)
            self._virtual_from = page.dataoffsets[0] if stack.virtual else None
            notes = list(stack.notes)
            notes += self._sample_rules(page, is_imagej=facts.description.startswith("ImageJ="))
            stored = np.dtype(np.uint8) if self._colormap is not None else page.dtype
            notes += widened_note(stored)
            if directories[self._main].numbers.get(ORIENTATION, 1) != 1:
                notes.append("the Orientation tag is not applied: rows and columns as stored")
            samples = 1 if stack.samples_are_pages else page.samplesperpixel - len(self._alpha)
            if self._colormap is not None:
                samples = 1 if grey_only(self._colormap) else 3
            self.header = ImageHeader(
                format="tiff",
                dtype=handed_out(stored),
                size_yx=(int(page.imagelength), int(page.imagewidth)),
                channels=stack.pages.shape[1] * samples,
                planes=stack.pages.shape[0],
                stack_axes=stack.axes,
                stack_shape=stack.shape,
                bits=8 if page.bitspersample == 1 else stack.bits or int(page.bitspersample),
                pixel_size_um=stack.pixel_size_um,
                spacing_um=stack.spacing_um,
                interval_s=stack.interval_s,
                channel_names=_channel_names(stack.channel_names, stack.pages.shape[1] * samples),
                compression=COMPRESSIONS[page.compression],
                notes=tuple(notes),
            )
        limits.check(self.header)
        with undecodable("the layout of the first page of the TIFF"):
            self._band_rows = rows_of_bands(page)

    def _sample_rules(self, page: tifffile.TiffPage, *, is_imagej: bool) -> list[str]:
        """Decide what becomes of alpha, palette and white-is-zero; returns the notes that say so."""
        notes: list[str] = []
        colours = 3 if page.photometric in {RGB, YCBCR} else 1
        extra = () if self._stack.samples_are_pages else tuple(int(kind) for kind in page.extrasamples)
        self._alpha = [colours + i for i, kind in enumerate(extra) if kind in ALPHA]
        if page.photometric == RGB and page.samplesperpixel == 4 and not page.extrasamples and not is_planar(page):
            self._alpha = [3]
        if self._alpha:
            notes.append("alpha channel dropped")
        elif extra:
            notes.append(f"{len(extra)} extra samples per pixel, not declared alpha, kept as channels")
        self._colormap: NDArray[Any] | None = None
        if page.photometric == PALETTE:
            if is_imagej:
                # ImageJ stores the lookup table of the display as a palette; the pixels are the measured values.
                notes.append("display lookup table ignored")
            else:
                self._colormap = _colormap(page)
                notes.append(palette_note(self._colormap))
        self._invert = page.photometric == WHITE_IS_ZERO and page.dtype.kind in "bu"
        if self._invert:
            notes.append("white-is-zero inverted")
        elif page.photometric == WHITE_IS_ZERO:
            notes.append("white-is-zero kept: signed and floating samples have no largest value")
        return notes

    @property
    def part_bytes(self) -> int:
        """Bytes of the largest part, judging by the main page."""
        pages_of_plane: int = self._stack.pages.shape[1]
        band = self._band_rows * self.plane_bytes // self.header.size_yx[0] // pages_of_plane
        return band if is_raw(self._main_page) else max(band, codec_bytes(self._main_page))

    def read_parts(self, index: int) -> Iterator[Part]:
        """Decode plane ``index`` by bands of strips or tiles, page by page where its channels are pages.

        Raises
        ------
        IndexError
            There is no such plane.
        UndecodableImage
            The page is damaged, incomplete, or differs from the first one.
        """
        check_index(index, self.header.planes)
        pages = self._stack.pages[index]
        channels = self.header.channels // len(pages)
        samples = self._main_page.samplesperpixel if self._stack.samples_are_pages else 1
        for place, page in enumerate(pages.tolist()):
            number, sample = divmod(page, samples) if samples > 1 else (page, None)
            name = f"page {number} of the TIFF"
            with undecodable(name), self._lock:
                bands = self._bands(number, sample)
            at = 0
            while True:
                with undecodable(name):
                    with self._lock:
                        band = next(bands, None)
                    if band is None:
                        break
                    rows = self._handed_out(band)
                at += len(rows)
                found, wanted = rows.shape[1:], (self.header.size_yx[1], channels)
                if found != wanted or rows.dtype != self.header.dtype or at > self.header.size_yx[0]:
                    raise self._differs(name, (at, *found), rows.dtype, channels)
                yield Part(slice(at - len(rows), at), slice(place * channels, (place + 1) * channels), rows)
            if at != self.header.size_yx[0]:
                raise self._differs(name, (at, self.header.size_yx[1], channels), self.header.dtype, channels)

    def _differs(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], channels: int) -> UndecodableImage:
        wanted = (*self.header.size_yx, channels)
        msg = f"{name} is {shape} {dtype}, the first one {wanted} {self.header.dtype}"
        return UndecodableImage(f"{msg}; send pages of one kind")

    def _bands(self, number: int, sample: int | None) -> Iterator[NDArray[Any]]:
        """Bands (y, x, s) of a page, or of one of its samples, from top to bottom, as stored."""
        first: tifffile.TiffPage = self._main_page
        if self._virtual_from is not None:
            offset = self._virtual_from + number * math.prod(first.shape) * first.dtype.itemsize
            step = self._band_rows
            tops = range(0, first.imagelength, step)
            return (raw_rows(first, offset, slice(top, min(top + step, first.imagelength)), sample) for top in tops)
        page = first
        if number != self._main or first.compression == LZW:
            page = self._page(number)
            _check_kind(page)
        # memory is charged for the segments of the main page
        if codec_bytes(page) > (limit := max(self.part_bytes, self.plane_bytes + MIN_JPEG2000_BYTES)):
            msg = f"page {number} of the TIFF has strips or tiles of {codec_bytes(page)} bytes, the limit is {limit}"
            raise UndecodableImage(f"{msg} by the first page; send pages of one kind")
        check_page(page, self._tiff.filehandle.size)
        if sample is not None and not (is_planar(page) and page.samplesperpixel == first.samplesperpixel):
            msg = f"page {number} of the TIFF has no {first.samplesperpixel} images, as the first one has"
            raise UndecodableImage(f"{msg}; send pages of one kind")
        return page_bands(page, sample)

    def _page(self, number: int) -> tifffile.TiffPage:
        self._tiff.filehandle.seek(self._offsets[number])
        return tifffile.TiffPage(self._tiff, number)

    def _handed_out(self, samples_yxs: NDArray[Any]) -> NDArray[Any]:
        """Samples as the header declares them: without alpha, white and palette undone, of a type that is computed."""
        samples = samples_yxs
        if self._alpha:
            samples = np.delete(samples, self._alpha, axis=-1)
        if self._invert:
            bits = self._main_page.bitspersample
            samples = ~samples if samples.dtype == np.bool_ else samples.dtype.type((1 << bits) - 1) - samples
        if self._colormap is not None:
            samples = expand(samples[..., 0], self._colormap)
        return widen(samples)


def _check_kind(page: tifffile.TiffPage) -> None:
    """Refuse what would be read wrongly: colour models beyond grey, RGB and palette, and schemes not listed."""
    if page.compression not in COMPRESSIONS:
        name = getattr(page.compression, "name", page.compression)
        known = ", ".join(dict.fromkeys(COMPRESSIONS.values()))
        raise UndecodableImage(f"TIFF compression {name} is not supported; use one of {known}")
    if page.photometric not in {WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE} and not (
        page.photometric == YCBCR and page.compression == 7
    ):
        name = getattr(page.photometric, "name", page.photometric)
        msg = f"the colour model {name} is not supported; write the image as grey or RGB"
        raise UndecodableImage(msg)
    if page.dtype is None or not isinstance(page.bitspersample, int):
        msg = f"samples of {page.bitspersample} bits in format {page.sampleformat} are not supported"
        raise UndecodableImage(f"{msg}; use integers or floats of 8 to 64 bits")
    if page.predictor != 1 and is_swapped(page):
        msg = "integers of 24 bits, big-endian and with a predictor, are not supported"
        raise UndecodableImage(f"{msg}; write them without a predictor, or as 32 bits")
    if page.imagedepth != 1:
        msg = f"one page holds a volume of {page.imagedepth} slices; write one page per slice"
        raise UndecodableImage(msg)
    if page.photometric == RGB and page.samplesperpixel < 3 and not is_planar(page):
        # planar ones are channels, of which Zeiss' LSM declares any number RGB
        msg = f"an RGB page has {page.samplesperpixel} samples per pixel, 3 are needed"
        raise UndecodableImage(
            f"{msg}; write it as grey, which may have any number (tifffile: photometric='minisblack')"
        )


def _labels(page: tifffile.TiffPage) -> tuple[str, ...]:
    """Labels that ImageJ gives pages; where tifffile finds its metadata damaged there are none."""
    metadata = page.tags[IMAGEJ_METADATA].value if IMAGEJ_METADATA in page.tags else None
    found = metadata.get("Labels", ()) if isinstance(metadata, dict) else ()
    return (found,) if isinstance(found, str) else tuple(found)


def _channel_names(names: Sequence[str], channels: int) -> tuple[str, ...]:
    """Names as receipts show them, where there is one for each channel."""
    shown = tuple(name.strip()[:MOST_NAME_CHARACTERS] for name in names)
    return shown if len(shown) == channels and any(shown) else ()


def _colormap(page: tifffile.TiffPage) -> NDArray[np.uint8]:
    """Palette as uint8 (entries, 3); 16 bit entries keep their high byte, as every reader does."""
    colormap = page.colormap
    entries = 1 << page.bitspersample
    if colormap is None or page.samplesperpixel != 1 or colormap.shape != (3, entries):
        found = None if colormap is None else colormap.shape
        msg = f"the palette is {found}, a page of {page.bitspersample} bits needs (3, {entries}); write it as RGB"
        raise UndecodableImage(msg)
    if int(colormap.max()) > 255:
        colormap = colormap >> 8
    return np.ascontiguousarray(colormap.T.astype(np.uint8))
