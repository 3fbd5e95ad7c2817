"""Layout ``volume``: TIFF stacks of images and stacks of labels, page by page, as the ISBI 2012 challenge gives them.

::

    train-volume.tif, train-labels.tif        pages become train-000, train-001, ...
    images.tif, labels.tif                    or the files that data.images and data.masks name
    images/a.tif, labels/a.tif                stacks in folders: a-000, a-001, ..., named as in the layout folders
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from training.errors import MaskMismatch, MissingFile, UnreadableFile
from training.layouts.files import (
    TIFF_SUFFIXES,
    files_by_stem,
    is_one_page,
    is_stack,
    read_planes,
    read_stack,
    stack_axes,
)
from training.layouts.folders import pair_pictures
from training.layouts.nested import warn_of_nested
from training.layouts.pairing import require_images, require_partners
from training.layouts.source import Labels, Source, choose
from training.names import composed, stem_of
from training.options import Data

EXPECTS = "NAME-volume.tif and NAME-labels.tif, or images.tif and labels.tif: TIFF stacks of as many pages"


def recognise(folder: Path, data: Data) -> str | None:
    """Name the first pair of stacks; None where there is none."""
    pairs = _named_pairs(folder, data) or [
        pair for pair in _pairs(*_folder_files(folder, data)) if is_stack(pair[1]) and not is_one_page(pair[2])
    ]
    if not pairs:
        return None
    _, volume, labels = pairs[0]
    more = f" and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
    return f"{volume.relative_to(folder)} with {labels.relative_to(folder)}{more}"


def list_sources(folder: Path, data: Data, wanted: Sequence[str] | None) -> list[Source]:
    """List the pages of all stacks.

    Raises
    ------
    MissingFile
        Where there is no pair of stacks, or, all being wanted, one in a folder has no partner.
    MaskMismatch
        Where two stacks of a pair differ in their pages.
    UnreadableFile
        Where a file is no TIFF stack.

    """
    pairs = _named_pairs(folder, data)
    if not pairs:
        images, masks = _folder_files(folder, data)
        warn_of_nested(folder / data.images, folder, data)
        if wanted is None:
            require_partners(
                sorted(images), masks, folder / data.masks, "stack of labels", TIFF_SUFFIXES, images=images
            )
            require_images(masks, images, folder / data.images, "stacks of labels", TIFF_SUFFIXES)
        pairs = _pairs(images, masks)
    if not pairs:
        raise MissingFile(f"{folder} holds no pair of stacks; expected {EXPECTS}")
    sources = []
    for name, image_path, labels_path in pairs:
        planes, labels = _Stack(image_path, read_planes), _Stack(labels_path, read_stack)
        if planes.pages != labels.pages:
            raise MaskMismatch(
                f"{labels_path} has {labels.pages} pages, {image_path} has {planes.pages}; expected as many"
            )
        digits = max(3, len(str(planes.pages - 1)))
        sources += [
            Source(
                f"{name}-{page:0{digits}d}",
                f"{image_path} page {page}",
                f"{labels_path} page {page}",
                partial(planes.page, page),
                partial(_read_labels, labels, page),
            )
            for page in range(planes.pages)
        ]
    return choose(sources, wanted, folder)


def _named_pairs(folder: Path, data: Data) -> list[tuple[str, Path, Path]]:
    """Name, images and labels of the stacks that lie in the data folder itself."""
    files = files_by_stem(folder, TIFF_SUFFIXES) if folder.is_dir() else {}
    pairs = [
        (name, files[f"{name}-volume"], files[f"{name}-labels"])
        for name in sorted(stem.removesuffix("-volume") for stem in files if stem.endswith("-volume"))
        if f"{name}-labels" in files
    ]
    images, masks = (
        stem_of(Path(name)) if Path(name).suffix in TIFF_SUFFIXES else composed(name)
        for name in (data.images, data.masks)
    )
    return [*pairs, (images, files[images], files[masks])] if images in files and masks in files else pairs


def _folder_files(folder: Path, data: Data) -> tuple[dict[str, Path], dict[str, Path]]:
    """TIFF files by stem in the folders of images and of masks; none where one folder is not there."""
    if not (folder / data.images).is_dir() or not (folder / data.masks).is_dir():
        return {}, {}
    return pair_pictures(folder, data, TIFF_SUFFIXES)


def _pairs(images: dict[str, Path], masks: dict[str, Path]) -> list[tuple[str, Path, Path]]:
    """Name, images and labels of the files that share a stem."""
    return [(stem, images[stem], masks[stem]) for stem in sorted(images.keys() & masks.keys())]


class _Stack:
    """Pages of a TIFF file, read at once when the first is asked for."""

    def __init__(self, path: Path, read: Callable[[Path], NDArray[Any]]) -> None:
        self._path, self._read = path, read
        axes, shape = stack_axes(path)
        if len(axes) not in {3, 4} or axes[1:3] != "YX" or axes[3:] not in {"", "S"} or axes[0] == "S":
            remedy = "Write one stack to a file"
            if axes[:1] == "S":  # tifffile does so with three or four planes
                remedy = "The planes are stored as colours: write them with photometric='minisblack' (tifffile)"
            raise UnreadableFile(
                f"{path} has the axes {axes} {shape}; expected one stack of pages, (page, y, x) or (page, y, x, "
                f"colour). {remedy}"
            )
        self.pages = shape[0]

    @cached_property
    def _array(self) -> NDArray[Any]:
        pages = self._read(self._path)
        if len(pages) != self.pages:
            raise UnreadableFile(
                f"{self._path} gives {len(pages)} pages; expected {self.pages} of one size and type. Write it again"
            )
        return pages

    def page(self, number: int) -> NDArray[Any]:
        """Page as read, (y, x) or (y, x, c)."""
        page: NDArray[Any] = self._array[number]
        return page


def _read_labels(stack: _Stack, page: int, _size_yx: tuple[int, int]) -> Labels:
    return Labels(stack.page(page))
