"""Image files: found by stem; images are read as the service reads them, masks as stored."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from model.images import FormatError, ImageReader, ReadLimits, open_image
from training.errors import MaskMismatch, MissingFile, UnreadableFile
from training.names import stem_of

TIFF_SUFFIXES = (".tif", ".tiff")

SUFFIXES = (".png", *TIFF_SUFFIXES)
"""Of masks."""

JPEG_SUFFIXES = (".jpg", ".jpeg")
IMAGE_SUFFIXES = (*SUFFIXES, *JPEG_SUFFIXES, ".bmp")
"""Of images; a mask must not be a JPEG, which blurs its numbers."""

_KINDS = {
    b"\x89PNG": (".png",),
    b"II*\x00": TIFF_SUFFIXES,
    b"MM\x00*": TIFF_SUFFIXES,
    b"II+\x00": TIFF_SUFFIXES,
    b"MM\x00+": TIFF_SUFFIXES,
    b"\xff\xd8\xff": (".jpg", ".jpeg"),
    b"BM": (".bmp",),
}
"""Suffixes by a file's first bytes."""

_PNG_HEADER = 26
"""Bytes up to bit depth and kind of colours, 0 for grey."""

_TURNED = ("EXIF orientation ", "the Orientation tag ")
"""How the reader's notes on an orientation begin."""

_LIMITS = ReadLimits(max_pixels=1 << 96, max_bytes=1 << 96)
"""More than any header can declare: here memory alone limits."""


def files_by_stem(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, Path]:
    """Files of a folder by the stem of their names; hidden files do not count.

    Raises
    ------
    MissingFile
        Where there is no such folder.
    MaskMismatch
        Where two files share a stem.

    """
    if not folder.is_dir():
        raise MissingFile(f"{folder} is not a folder; expected images in it")
    found: dict[str, Path] = {}
    for path in list_files(folder, suffixes):
        stem = stem_of(path)
        if stem in found:
            raise MaskMismatch(f"{found[stem]} and {path} share a stem; keep one of them")
        found[stem] = path
    return found


def list_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of a folder with one of the suffixes, sorted, hidden ones left out; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(suffixes) and not path.name.startswith(".")
    ]


def count_files(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> int:
    """Count the files of a folder with one of the suffixes, hidden ones left out; 0 where there is no such folder."""
    return len(list_files(folder, suffixes))


def read_image(path: Path) -> NDArray[Any]:
    """Read an image as the service reads it where it serves the net (:mod:`model.images`): (y, x, c).

    Declared alpha is dropped, palettes are expanded, white-is-zero is inverted; 16 bit colours keep their 16 bits.

    Raises
    ------
    UnreadableFile
        Where the file is damaged, of a kind that is not read, or a stack.

    """
    with _opened(path) as reader:
        header = reader.header
        if header.planes == 1:
            return reader.read_plane(0)
    size = " x ".join(map(str, header.size_yx))
    raise UnreadableFile(
        f"{path} is a stack with the axes {header.stack_axes} {header.stack_shape}, its planes are {size} px; expected "
        "one image, as its mask is. Save each plane with a mask of its own, or the masks as a TIFF stack of as many "
        "pages (layout volume); planes that are channels must say so (tifffile: metadata={'axes': 'CYX'})"
    )


def is_turned(path: Path) -> bool:
    """Whether an image asks to be shown turned or mirrored, which :func:`read_image` leaves; a damaged one does not."""
    try:
        with _opened(path) as reader:
            return any(note.startswith(_TURNED) for note in reader.header.notes)
    except UnreadableFile:
        return False


def read_planes(path: Path) -> NDArray[Any]:
    """Read all planes of a TIFF file as :func:`read_image` reads one: (page, y, x, c); channels alone are pages.

    Raises
    ------
    UnreadableFile
        Where the file is damaged, or of a kind that is not read.

    """
    with _opened(path) as reader:
        header = reader.header
        planes = np.empty((header.planes, *header.size_yx, header.channels), dtype=header.dtype)
        for index in range(header.planes):
            planes[index] = reader.read_plane(index)
    return planes if len(planes) > 1 else np.moveaxis(planes[0], -1, 0)[..., np.newaxis]


def read_array(path: Path) -> NDArray[Any]:
    """Read a PNG or TIFF file as stored, a palette's numbers above all: (y, x) or (y, x, c).

    Grey of 2 and 4 bits keeps its numbers, which Pillow spreads over 8 bits. Of a TIFF file axes of length 1 besides y
    and x are left out.

    Raises
    ------
    UnreadableFile
        Where the file is damaged, or of another kind than its suffix says.

    """
    with named_when_damaged(path):
        _require_kind(path)
        if path.suffix.lower() == ".png":
            with PngImageFile(path) as image:  # Image.open refuses what has more than 90 million pixels
                spread, stored = _spread(path), np.asarray(image)
                return stored // spread if spread > 1 else stored
        with _opened_tiff(path) as file:
            axes, array = file.series[0].axes, file.series[0].asarray()
        lone = tuple(at for at, axis in enumerate(axes) if axis not in "YX" and array.shape[at] == 1)
        return np.asarray(array).squeeze(lone)


def read_stack(path: Path) -> NDArray[Any]:
    """Read all pages of a TIFF file as stored: (page, y, x) or (page, y, x, c).

    Raises
    ------
    UnreadableFile
        Where the file is damaged.

    """
    with named_when_damaged(path), _opened_tiff(path) as file:
        series = [part.asarray() for part in file.series]
        return np.asarray(series[0] if len(series) == 1 else np.stack(series))


def stack_axes(path: Path) -> tuple[str, tuple[int, ...]]:
    """Axes of a TIFF file, as tifffile names them, and their lengths; its pixels are not read.

    Pages that were written one by one, all of one shape, have the axis I; pages of several shapes have no common axes,
    ``""``.

    Raises
    ------
    UnreadableFile
        Where the file is damaged.

    """
    with named_when_damaged(path), _opened_tiff(path) as file:
        shapes = [(part.axes, part.shape) for part in file.series]
    axes, shape = shapes[0]
    if len(shapes) == 1:
        return axes, shape
    return (f"I{axes}", (len(shapes), *shape)) if len(set(shapes)) == 1 else ("", ())


def is_one_page(path: Path) -> bool:
    """Whether a TIFF file holds a single page, grey or in colours; a damaged file does not."""
    try:
        return stack_axes(path)[0] in {"YX", "YXS", "SYX"}
    except UnreadableFile:
        return False


def is_stack(path: Path) -> bool:
    """Whether an image has planes that are neither channels nor colours; a damaged file is none."""
    try:
        with _opened(path) as reader:
            return reader.header.planes > 1
    except UnreadableFile:
        return False


def require_target(path: Path) -> None:
    """Refuse a symbolic link that leads nowhere.

    Raises
    ------
    UnreadableFile
        Names what the link points at.

    """
    if path.is_symlink() and not path.exists():
        raise UnreadableFile(
            f"{path} is a link that leads nowhere: expected a file at {path.readlink()}, found none. Bring it "
            "there, or put the file itself in the place of the link"
        )


def _opened_tiff(path: Path) -> tifffile.TiffFile:
    """Open a TIFF file for its own pages: OME-XML may name further files, whose pages are other masks."""
    return tifffile.TiffFile(path, _multifile=False)


def _spread(path: Path) -> int:
    """Return by how much Pillow multiplies the grey values of a PNG: to white where they have 2 or 4 bits."""
    with path.open("rb") as file:
        depth, colours = file.read(_PNG_HEADER)[-2:]
    return 255 // (2**depth - 1) if colours == 0 and depth in {2, 4} else 1


def _require_kind(path: Path) -> None:
    """Refuse a mask whose suffix and first bytes say different things, before a decoder finds mere damage."""
    with path.open("rb") as file:
        head = file.read(4)
    found = next((kind for magic, kind in _KINDS.items() if head.startswith(magic)), None)
    suffix = path.suffix.lower()
    if found is not None and suffix not in found:
        raise UnreadableFile(
            f"{path} is a file of the kind {found[0]}, its suffix is {path.suffix}; expected one that fits. Write the "
            f"mask again as {suffix}, or rename it where it is one of {', '.join(SUFFIXES)}"
        )


@contextmanager
def _opened(path: Path) -> Iterator[ImageReader]:
    # what the service reads is read: warnings are of what surrounds the pixels, such as a camera's EXIF
    with named_when_damaged(path, "ignore"), path.open("rb") as file, open_image(file, _LIMITS) as reader:
        yield reader


@contextmanager
def named_when_damaged(path: Path, on_warning: Literal["error", "ignore"] = "error") -> Iterator[None]:
    """Take every failure of a decoder as a damaged file, its warnings as ``on_warning`` says.

    Raises
    ------
    UnreadableFile
        Names the file; where it is a link that leads nowhere, what the link points at.

    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(on_warning)
            require_target(path)
            if path.is_dir():
                raise UnreadableFile(
                    f"{path} is a folder; expected an image or a mask. Put the file in its place, or take both away"
                )
            if path.is_file() and not path.stat().st_size:
                raise UnreadableFile(
                    f"{path} is empty (0 bytes); expected an image or a mask. Copy it again, or take both away"
                )
            yield
    except UnreadableFile:
        raise
    except FormatError as error:
        raise UnreadableFile(f"{path} cannot be read: {error}") from error
    except MemoryError as error:
        raise UnreadableFile(
            f"{path} needs more memory than there is: {error or 'out of memory'}; crop it, give fewer pages, or write "
            "it again if it should be smaller"
        ) from error
    except Exception as error:  # decoders fail with every kind of exception on damaged files
        raise UnreadableFile(f"{path} cannot be read: {error or type(error).__name__}; write it again") from error
