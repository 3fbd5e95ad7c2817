"""Images with one file of drawn shapes each, named after them: what the layouts ``rois`` and ``geojson`` share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from model.wording import counted
from training.errors import DatasetError, MissingFile
from training.layouts.documents import looks_like_geojson
from training.layouts.files import IMAGE_SUFFIXES, count_files, files_by_stem, list_files, read_image
from training.layouts.nested import warn_of_nested
from training.layouts.pairing import (
    CELLPOSE_ROIS,
    ending_of,
    image_of,
    labels_by_stem,
    require_images,
    require_one_kind,
    require_partners,
    without_pictures,
)
from training.layouts.shapes import Shape, paint
from training.layouts.source import Labels, Source
from training.names import composed, stem_of
from training.options import Data

_log = logging.getLogger(__name__)

ReadShapes = Callable[[Path, tuple[int, int]], list[Shape]]
MakeReader = Callable[[Sequence[Path]], ReadShapes]
ReadCategories = Callable[[Path], set[str]]
HoldsShapes = Callable[[Path], bool]
_NAMED = 5


def recognise_beside(
    folder: Path, data: Data, suffixes: tuple[str, ...], holds_shapes: HoldsShapes = Path.is_file
) -> str | None:
    """Say how many images and files of shapes there are; None where one kind is missing, or none surely belongs.

    A file belongs to an image by its name. What Cellpose writes beside its masks does not count.
    """
    images, shapes = _folders(folder, data, suffixes, holds_shapes)
    stems = {stem_of(path) for path in list_files(images, IMAGE_SUFFIXES)}
    named = (path for path in _shape_files(images, shapes, suffixes, holds_shapes) if image_of(path, stems) in stems)
    if all(map(_is_cellposes, named)):
        return None
    found = suspect_beside(folder, data, suffixes, holds_shapes)
    return f"{counted(count_files(images, IMAGE_SUFFIXES), 'image')} in {images.name}/, {found}"


def suspect_beside(
    folder: Path, data: Data, suffixes: tuple[str, ...], holds_shapes: HoldsShapes = Path.is_file
) -> str | None:
    """Say how many files of shapes there are, whether or not they belong to images; None without any, or images."""
    images, shapes = _folders(folder, data, suffixes, holds_shapes)
    files = _shape_files(images, shapes, suffixes, holds_shapes)
    if not files or not count_files(images, IMAGE_SUFFIXES):
        return None
    found = [suffix for suffix in suffixes if any(path.name.lower().endswith(suffix) for path in files)]
    return f"{counted(len(files), 'file')} {' or '.join(found)} in {shapes.name}/"


def list_beside(
    folder: Path,
    data: Data,
    wanted: Sequence[str] | None,
    suffixes: tuple[str, ...],
    *,
    reader: MakeReader,
    read_categories: ReadCategories | None = None,
    holds_shapes: HoldsShapes = Path.is_file,
) -> list[Source]:
    """List images with their files of shapes.

    ``reader`` makes what reads a file; it is given all files that belong to images, whichever are wanted. A file of
    another name than the images' is one of shapes where ``holds_shapes`` says so. The log names categories of
    ``data`` that no file has, and files of shapes beside the images that belong to none of them.

    Raises
    ------
    MissingFile
        Where there is no image, an image has no file of shapes, or, all being wanted, a file in a folder of shapes no
        image; where no file has any of the categories that ``data`` names.
    MaskMismatch
        Where two files are of the same image, or the service's masks and its numbered objects mix.

    """
    images_folder, shapes_folder = _folders(folder, data, suffixes, holds_shapes)
    images = files_by_stem(images_folder, IMAGE_SUFFIXES)
    shapes = labels_by_stem(_shape_files(images_folder, shapes_folder, suffixes, holds_shapes), images)
    images = without_pictures(images, shapes)
    warn_of_nested(images_folder, folder, data)
    stems = sorted(images if wanted is None else map(composed, wanted))
    require_partners(stems, images, images_folder, "image", IMAGE_SUFFIXES)
    require_partners(stems, shapes, shapes_folder, "file of shapes", suffixes, images=images)
    if wanted is None and shapes_folder == images_folder:
        _name_strangers([shapes[stem] for stem in sorted(shapes.keys() - images.keys())])
    elif wanted is None:
        require_images(shapes, images, images_folder, "files of shapes", IMAGE_SUFFIXES)
    if not stems:
        raise MissingFile(f"{images_folder} holds no image that is asked for; expected {', '.join(IMAGE_SUFFIXES)}")
    require_one_kind({stem: shapes[stem] for stem in stems})
    _require_categories([shapes[stem] for stem in stems], folder, data, read_categories)
    read = reader([shapes[stem] for stem in sorted(images.keys() & shapes.keys())])
    return [
        Source(
            stem,
            str(images[stem]),
            str(shapes[stem]),
            partial(read_image, images[stem]),
            partial(_read_labels, shapes[stem], data, read),
        )
        for stem in stems
    ]


def _folders(folder: Path, data: Data, suffixes: tuple[str, ...], holds_shapes: HoldsShapes) -> tuple[Path, Path]:
    """Folder of the images (``data.images``, or the data folder) and of the shapes (``data.masks``, or the same)."""
    images, masks = folder / data.images if (folder / data.images).is_dir() else folder, folder / data.masks
    return images, masks if _shape_files(images, masks, suffixes, holds_shapes) else images


def _shape_files(images: Path, shapes: Path, suffixes: tuple[str, ...], holds_shapes: HoldsShapes) -> list[Path]:
    """Files of a folder that are named after an image or hold shapes; none where there is no such folder.

    Of JSON there are many kinds: whatever its name is, it has to look like GeoJSON.
    """
    stems = {stem_of(path) for path in list_files(images, IMAGE_SUFFIXES)}
    files = (path for path in list_files(shapes, suffixes) if not _is_other_json(path))
    return [path for path in files if image_of(path, stems) in stems or holds_shapes(path)]


def _is_other_json(path: Path) -> bool:
    return path.name.lower().endswith((".json", ".json.gz")) and not looks_like_geojson(path)


def _is_cellposes(path: Path) -> bool:
    return ending_of(path) == CELLPOSE_ROIS


def _name_strangers(paths: Sequence[Path]) -> None:
    """Say which files beside the images are left out; whole projects and data sets may lie there too."""
    if paths:
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        names = ", ".join(path.name for path in paths[:_NAMED])
        _log.warning("%s: no image has the name of %s%s; left out", paths[0].parent, names, more)


def _require_categories(
    paths: Sequence[Path], folder: Path, data: Data, read_categories: ReadCategories | None
) -> None:
    if data.categories is None or read_categories is None:
        return
    found: set[str] = set()
    for path in paths:
        with suppress(DatasetError):  # reading its shapes says what is wrong
            found |= read_categories(path)
    strange = [name for name in data.categories if name not in found]
    if not strange:
        return
    said = (
        f"no file of shapes in {folder} has the category {strange[0]!r}, which data.categories names; found "
        f"{sorted(found) or 'none'}"
    )
    if len(strange) == len(data.categories):
        raise MissingFile(f"{said}. Correct the recipe, or leave data.categories out")
    _log.warning("%s", said)


def _read_labels(path: Path, data: Data, read: ReadShapes, size_yx: tuple[int, int]) -> Labels:
    return paint(read(path, size_yx), size_yx, str(path), data)
