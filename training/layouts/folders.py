"""Layout ``folders``: a folder of images and a folder of masks, paired by the stem of the file names.

Where both are the same folder the masks are named as Cellpose names them: ``NAME_masks.png`` or ``NAME_cp_masks.png``
beside ``NAME.tif``, which may end in ``_img`` too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from training.errors import MaskMismatch, MissingFile
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
from training.layouts.names import composed, stem_of
from training.layouts.source import Labels, Source
from training.options import Data

_MASK_ENDINGS = ("_cp_masks", "_masks")
_IMAGE_ENDING = "_img"
_BESIDE = f"NAME{' or NAME'.join(_MASK_ENDINGS)}"

EXPECTS = (
    f"images/NAME.png and labels/NAME.png (or .tif, or masks/), or NAME.png with {_BESIDE} beside it; data.images and "
    "data.masks name other folders"
)


def recognise(folder: Path, data: Data) -> str | None:
    """Say how many images and masks there are; None where one kind is missing, or the first of both are stacks."""
    beside = _is_one_folder(folder, data)
    masked = [path for path in list_files(folder / data.masks, SUFFIXES) if not beside or _mask_ending(path)]
    if not count_files(folder / data.images, IMAGE_SUFFIXES) or not masked:
        return None
    images, masks = _images_and_masks(folder, data)
    if not images:
        return None
    stem, first = next(iter(images.items()))
    mask = masks.get(stem)
    if mask is not None and mask.suffix.lower() in TIFF_SUFFIXES and not is_one_page(mask) and is_stack(first):
        return None
    where = f"beside them as {_BESIDE}" if beside else f"in {data.masks}/"
    return f"{len(images)} images in {data.images}/, {len(masks)} masks {where}"


def list_sources(folder: Path, data: Data, wanted: Sequence[str] | None) -> list[Source]:
    """List images with their masks.

    Raises
    ------
    MissingFile
        Where a folder or a wanted image is missing, an image has no mask, or, all being wanted, a mask no image.
    MaskMismatch
        Where two files share a stem.

    """
    images, masks = _images_and_masks(folder, data)
    stems = sorted(images if wanted is None else map(composed, wanted))
    require_partners(stems, images, folder / data.images, "image", IMAGE_SUFFIXES)
    what = f"mask ({_BESIDE})" if _is_one_folder(folder, data) else "mask"
    require_partners(stems, masks, folder / data.masks, what, SUFFIXES)
    if wanted is None:
        require_images(masks, images, folder / data.images, "masks", IMAGE_SUFFIXES)
    if not stems:
        raise MissingFile(
            f"{folder / data.images} holds no image that is asked for; expected {', '.join(IMAGE_SUFFIXES)}"
        )
    return [mask_source(stem, images[stem], masks[stem]) for stem in stems]


def _images_and_masks(folder: Path, data: Data) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks by stem."""
    files = files_by_stem(folder / data.images, IMAGE_SUFFIXES)
    if not _is_one_folder(folder, data):
        return files, files_by_stem(folder / data.masks)
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for stem, path in files.items():
        ending = _mask_ending(path)
        found, name = masks if ending else images, stem.removesuffix(ending).removesuffix(_IMAGE_ENDING)
        if name in found:
            raise MaskMismatch(f"{found[name]} and {path} are of the same image; keep one of them")
        found[name] = path
    return images, masks


def _is_one_folder(folder: Path, data: Data) -> bool:
    return (folder / data.images) == (folder / data.masks)


def _mask_ending(path: Path) -> str:
    """What makes a file the mask of the image beside it; empty for any other file."""
    named = (ending for ending in _MASK_ENDINGS if path.suffix.lower() in SUFFIXES and stem_of(path).endswith(ending))
    return next(named, "")


def mask_source(stem: str, image: Path, mask: Path, *, training_only: bool = False) -> Source:
    """Pair an image file with a mask file."""
    return Source(
        stem, str(image), str(mask), partial(read_image, image), partial(_read_mask, mask), training_only=training_only
    )


def require_partners(
    stems: Sequence[str], have: dict[str, Path], where: Path, what: str, suffixes: tuple[str, ...]
) -> None:
    """Require a file of every stem.

    Raises
    ------
    MissingFile
        Names the first that is missing.

    """
    missing = [stem for stem in stems if stem not in have]
    if missing:
        raise MissingFile(
            f"{len(missing)} of {len(stems)} have no {what}: expected {where / missing[0]} with suffix "
            f"{', '.join(suffixes)}; found none. Add the file or take its partner away"
        )


def require_images(
    labels: dict[str, Path], images: dict[str, Path], where: Path, what: str, suffixes: tuple[str, ...]
) -> None:
    """Require an image for every file of labels, so that no annotation is dropped without a word.

    Raises
    ------
    MissingFile
        Names the first without image, and an image of its name that is not read for its suffix.

    """
    lonely = sorted(labels.keys() - images.keys())
    if not lonely:
        return
    first = labels[lonely[0]]
    unread = [
        path
        for path in sorted(where.iterdir())
        if lonely[0] in {stem_of(path), composed(path.name)}
        and path.suffix.lower() != first.suffix.lower()
        and path.is_file()
    ]
    found, remedy = "none", f"Add the image, or move {first.name} out of the folder"
    if unread:
        found, remedy = f"{unread[0]}, which is of a kind that is not read", "Convert it to one of these"
    raise MissingFile(
        f"{len(lonely)} of {len(labels)} {what} have no image, {first} is the first: expected {where / lonely[0]} with "
        f"suffix {', '.join(suffixes)}; found {found}. {remedy}"
    )


def _read_mask(path: Path, _size_yx: tuple[int, int]) -> Labels:
    return Labels(read_array(path))
