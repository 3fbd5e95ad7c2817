"""Layout ``folders``: a folder of images and a folder of masks, paired by names (:mod:`training.layouts.pairing`).

Where both are the same folder, masks are told from images by the endings of their names: ``NAME_labels.tif`` beside
``NAME.tif``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from model.wording import counted
from training.errors import MaskMismatch, MissingFile
from training.layouts.cellpose import read_masks
from training.layouts.files import (
    IMAGE_SUFFIXES,
    SUFFIXES,
    TIFF_SUFFIXES,
    count_files,
    files_by_stem,
    is_one_page,
    is_stack,
    list_files,
    read_array,
    read_image,
)
from training.layouts.nested import warn_of_nested
from training.layouts.pairing import (
    BUNDLE,
    ENDINGS,
    IMAGE_ENDING,
    ending_of,
    images_named_as_masks,
    labels_by_stem,
    require_images,
    require_one_kind,
    require_partners,
    without_pictures,
)
from training.layouts.source import Labels, Source
from training.names import composed
from training.options import Data

_ENDED = f"NAME{', NAME'.join(ENDINGS)} or NAME{BUNDLE}.npy"

EXPECTS = (
    f"images/NAME.png and labels/NAME.png (or .tif, or masks/), or NAME.png with {_ENDED} beside it; in labels/ too "
    "masks may be named so; data.images and data.masks name other folders"
)


def recognise(folder: Path, data: Data) -> str | None:
    """Say how many images and masks there are; None where one kind is missing, or the first of both are stacks."""
    beside = _is_one_folder(folder, data)
    pictures = [path for path in list_files(folder / data.masks, SUFFIXES) if not beside or ending_of(path)]
    if not count_files(folder / data.images, IMAGE_SUFFIXES) or not (pictures or _own_files(folder / data.masks)):
        return None
    images, masks, _ = _images_and_masks(folder, data)
    if not images:
        return None
    stem, first = next(iter(images.items()))
    mask = masks.get(stem)
    if mask is not None and mask.suffix.lower() in TIFF_SUFFIXES and not is_one_page(mask) and is_stack(first):
        return None
    where = f"beside them as {_ENDED}" if beside else f"in {data.masks}/"
    return f"{counted(len(images), 'image')} in {data.images}/, {counted(len(masks), 'mask')} {where}"


def list_sources(folder: Path, data: Data, wanted: Sequence[str] | None) -> list[Source]:
    """List images with their masks.

    Raises
    ------
    MissingFile
        Where a folder or a wanted image is missing, an image has no mask, or, all being wanted, a mask no image.
    MaskMismatch
        Where two files share a stem or are of the same image, or the service's masks and its numbered objects mix.

    """
    images, masks, bundles = _images_and_masks(folder, data)
    warn_of_nested(folder / data.images, folder, data)
    stems = sorted(images if wanted is None else map(composed, wanted))
    require_partners(stems, images, folder / data.images, "image", IMAGE_SUFFIXES)
    what = f"mask ({_ENDED})" if _is_one_folder(folder, data) else "mask"
    require_partners(stems, masks, folder / data.masks, what, SUFFIXES, images=images)
    if wanted is None:
        require_images(masks, images, folder / data.images, "masks", IMAGE_SUFFIXES)
    if not stems:
        raise MissingFile(
            f"{folder / data.images} holds no image that is asked for; expected {', '.join(IMAGE_SUFFIXES)}"
        )
    require_one_kind({stem: masks[stem] for stem in stems})
    return [mask_source(stem, images[stem], masks[stem], bundle=bundles.get(stem)) for stem in stems]


def pair_pictures(
    folder: Path, data: Data, suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images, and pictures of masks, both by the image's stem; ``suffixes`` are those of the files that are looked at.

    Raises
    ------
    MissingFile
        Where a folder is missing.
    MaskMismatch
        Where two images share a stem, or two masks are of the same image.

    """
    files = files_by_stem(folder / data.images, suffixes)
    if not _is_one_folder(folder, data):
        masks = files_by_stem(folder / data.masks, tuple(suffix for suffix in suffixes if suffix in SUFFIXES))
        return files, labels_by_stem(masks.values(), files)
    images: dict[str, Path] = {}
    pictures: list[Path] = []
    named = [path for path in list_files(folder / data.masks, (*SUFFIXES, ".npy")) if ending_of(path)]
    images_after_all = images_named_as_masks(named)
    for stem, path in files.items():
        if path.suffix.lower() in SUFFIXES and ending_of(path) and path not in images_after_all:
            pictures.append(path)
            continue
        name = stem.removesuffix(IMAGE_ENDING)
        if name in images:
            raise MaskMismatch(f"{images[name]} and {path} are of the same image; keep one of them")
        images[name] = path
    return images, labels_by_stem(pictures, images)


def _images_and_masks(folder: Path, data: Data) -> tuple[dict[str, Path], dict[str, Path], dict[str, Path]]:
    """Images, masks (pictures where there are some, else Cellpose's own files), and all of the latter."""
    images, pictures = pair_pictures(folder, data)
    bundles = labels_by_stem(_own_files(folder / data.masks), images)
    masks = bundles | pictures
    return without_pictures(images, masks) if _is_one_folder(folder, data) else images, masks, bundles


def _own_files(folder: Path) -> list[Path]:
    """Cellpose's own files."""
    return [path for path in list_files(folder, (".npy",)) if ending_of(path)]


def _is_one_folder(folder: Path, data: Data) -> bool:
    return (folder / data.images) == (folder / data.masks)


def mask_source(
    stem: str, image: Path, mask: Path, *, bundle: Path | None = None, training_only: bool = False
) -> Source:
    """Pair an image file with a mask file; ``bundle`` is Cellpose's own file of the same image, which has to agree."""
    read = partial(_read_mask, mask, bundle if bundle != mask else None)
    return Source(stem, str(image), str(mask), partial(read_image, image), read, training_only=training_only)


def _read_mask(path: Path, bundle: Path | None, _size_yx: tuple[int, int]) -> Labels:
    values = read_array(path) if path.suffix.lower() in SUFFIXES else read_masks(path)
    if bundle is not None and not np.array_equal(values, read_masks(bundle)):
        raise MaskMismatch(
            f"{path} and {bundle} are of the same image and hold different masks; expected one of them, or the same in "
            f"both. Cellpose saves what is drawn to {bundle.name} alone: unless {path.name} was corrected elsewhere, "
            "remove it"
        )
    return Labels(values)
